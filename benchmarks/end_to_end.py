"""From files to rows: dermq beside Keras, tf.data, a Celery task per image, Ray Data, and a bare loop of its engine.

    python benchmarks/end_to_end.py /data/HAM10000 [--images 2000] [--rounds 3]

All contenders score the same images in the same run, on all processors. dermq is measured from the first claim to the
last committed outcome, with a real broker, real workers and SQLite; the others from the first file to the last
probability. Each loads its model and warms up before. The bare loop reads, decodes, resizes and infers in as many
processes, without queue, SQL, hashes or gates: decoding needs the same processors, so it is the ceiling.

ResNet50 has random weights: the structure decides the speed. Slow contenders score the first images only. Ray takes
part where it is installed (``pip install "ray[data]"``).
"""

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from running import running

from worker.limits import available_cpus
from worker.settings import shipped_bundle

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
SIZE, BATCH = 224, 32
#: Images of the contenders that are ten times slower than the others.
SLOW_IMAGES = 400
RESNET, SHIPPED = "ResNet50", "the shipped network"


@dataclass(frozen=True, kw_only=True)
class Contender:
    """Something that scores images, and how many of them. It returns their seconds."""

    name: str
    images: int
    run: Callable[[Sequence[Path]], float]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="real images, such as HAM10000")
    parser.add_argument("--images", type=int, default=2_000, help="images to score (2000)")
    parser.add_argument("--rounds", type=int, default=3, help="times that each contender runs (3)")
    parser.add_argument("--only", nargs="*", default=[""], help="only contenders whose name holds one of these texts")
    arguments = parser.parse_args()
    files = sorted(arguments.folder.rglob("*.jpg"))
    # Spread over the folder, so that no source of images is left out.
    files = files[:: max(1, len(files) // arguments.images)][: arguments.images]
    if len(files) < arguments.images:
        parser.error(f"{arguments.folder} holds {len(files)} JPEG images, and {arguments.images} are wanted")
    with tempfile.TemporaryDirectory(prefix="dermq-end-to-end-") as name:
        made = Path(name)
        contenders = [
            each
            for each in _contenders(made, arguments.folder, len(files))
            if any(text in each.name for text in arguments.only)
        ]
        rates: dict[str, list[float]] = defaultdict(list)
        for number in range(arguments.rounds):
            for contender in contenders:
                some = files[: contender.images]
                rates[contender.name].append(len(some) / contender.run(some))
                print(f"# round {number + 1}: {contender.name}: {rates[contender.name][-1]:.1f}", file=sys.stderr)
    _print(rates, len(files))


def _print(rates: dict[str, list[float]], images: int) -> None:
    print(f"{images:,} images, {available_cpus()} processors, medians of {len(next(iter(rates.values())))} rounds")
    print(f"{'contender':<52} {'images/s':>9}  {'of the bare loop':>16}  {'of tf.data':>10}")
    for name, own in rates.items():
        network = RESNET if RESNET in name else SHIPPED
        beside = []
        for other in (f"bare loop, {network}", f"tf.data and predict, {RESNET}"):
            ratio = [mine / its for mine, its in zip(own, rates.get(other, []), strict=False)]
            beside.append(f"{statistics.median(ratio):.2f}" if ratio else "")
        print(f"{name:<52} {statistics.median(own):9.1f}  {beside[0]:>16}  {beside[1]:>10}")


def _contenders(made: Path, root: Path, images: int) -> list[Contender]:
    shipped = shipped_bundle()
    resnet, resnet_int8 = _resnet_bundles(made, shipped, root)
    keras_models = {SHIPPED: shipped / "model.keras", RESNET: resnet / "model.keras"}

    def dermq(bundle: Path) -> Callable[[Sequence[Path]], float]:
        return lambda files: _dermq(files, root, bundle)

    def bare(bundle: Path) -> Callable[[Sequence[Path]], float]:
        return lambda files: _in_processes(_bare_loop, files, bundle)

    slow = min(images, SLOW_IMAGES)
    found = [
        Contender(name=f"bare loop, {SHIPPED}", images=images, run=bare(shipped)),
        Contender(name=f"dermq, {SHIPPED}", images=images, run=dermq(shipped)),
        Contender(name=f"bare loop, {RESNET}", images=slow, run=bare(resnet)),
        Contender(name=f"dermq, {RESNET}", images=slow, run=dermq(resnet)),
        Contender(name=f"dermq, {RESNET} in 8 bits", images=images, run=dermq(resnet_int8)),
    ]
    for network, model in keras_models.items():
        found += [
            Contender(
                name=f"{what}, {network}",
                images=slow,
                run=lambda files, script=script, model=model: _script(script, files, model),  # type: ignore[misc]
            )
            for what, script in (("tf.data and predict", _TF_DATA), ("Keras predict in a loop", _KERAS_LOOP))
        ]
    found.append(
        Contender(
            name=f"a Celery task per image with TensorFlow, {SHIPPED}",
            images=slow,
            run=lambda files: _celery_tasks(files, keras_models[SHIPPED], made),
        )
    )
    if shutil.which("ray") or _installed("ray"):
        found.append(
            Contender(
                name=f"Ray Data with OpenVINO, {SHIPPED}",
                images=images,
                run=lambda files: _script(_RAY, files, shipped),
            )
        )
    return found


def _installed(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None


def _resnet_bundles(made: Path, shipped: Path, root: Path) -> tuple[Path, Path]:
    """The shipped bundle with the network of ResNet50: in floats, and in 8 bits. Made in a process of its own."""
    floats, integers = made / "resnet50", made / "resnet50-int8"
    for folder in (floats, integers):
        shutil.copytree(shipped, folder)
    images = [str(path) for path in sorted(root.rglob("*.jpg"))[::500][:20]]
    subprocess.run(
        [sys.executable, "-c", _MAKE_RESNET, str(floats), str(integers), *images],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _seal(floats, precision="float32", precision_cost=None)
    unmeasured = {"images": 1, "auroc_difference": {"value": 0.0}, "sensitivity_difference": {}}
    _seal(integers, precision="int8", precision_cost=unmeasured)
    return floats, integers


def _seal(folder: Path, **changed: Any) -> None:
    import hashlib

    described = json.loads((folder / "bundle.json").read_text())
    for name in ("model.xml", "model.bin", "model.keras"):
        described["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    described |= {"backbone": "resnet50", **changed}
    (folder / "bundle.json").write_text(json.dumps(described))


_MAKE_RESNET = f"""
import sys
from pathlib import Path
import cv2, keras, nncf, numpy as np, openvino
from trainer.networks.heads import build_classifier, with_all_outputs
from trainer.networks.openvino_conversion import convert
floats, integers, images = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
keras.utils.set_random_seed(1)
model = with_all_outputs(build_classifier("resnet50", {SIZE}, "none").scoring)
model.save(floats / "model.keras")
convert(model, floats / "model.xml", {SIZE})
read = openvino.Core().read_model(floats / "model.xml")
inputs = [cv2.resize(cv2.imread(image)[..., ::-1], ({SIZE}, {SIZE}))[None] for image in images]
openvino.save_model(nncf.quantize(read, nncf.Dataset(inputs)), integers / "model.xml")
"""


def _dermq(files: Sequence[Path], root: Path, bundle: Path) -> float:
    with tempfile.TemporaryDirectory(prefix="dermq-home-") as name:
        home = Path(name)

        def manifest(which: str, some: Sequence[Path]) -> Path:
            path = home / which
            path.write_text("path\n" + "".join(f"{file.relative_to(root)}\n" for file in some))
            return path

        processes = available_cpus()
        # Smaller chunks for few images, so that all processes end together.
        chunk = max(16, min(128, len(files) // (8 * processes)))
        with running(home, concurrency=processes, bundle=bundle, chunk_size=str(chunk)) as system:
            system.wait(system.submit(manifest("warm.csv", files[: 6 * chunk * processes]), root))
            seconds, counts = system.wait(system.submit(manifest("all.csv", files), root))
            assert counts.completed == len(files)
            return seconds


def _in_processes(
    target: "Callable[[Sequence[str], Path, Barrier, SimpleQueue[int]], None]", files: Sequence[Path], bundle: Path
) -> float:
    """Seconds of as many processes as there are processors, each with its share of the files."""
    processes = available_cpus()
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(processes + 1), context.SimpleQueue()
    names = [str(file) for file in files]
    children = [
        context.Process(target=target, args=(names[number::processes], bundle, barrier, answers), daemon=True)
        for number in range(processes)
    ]
    for child in children:
        child.start()
    barrier.wait(120)
    started = time.perf_counter()
    scored = sum(answers.get() for _ in children)
    seconds = time.perf_counter() - started
    for child in children:
        child.join()
    assert scored == len(files)
    return seconds


def _bare_loop(files: Sequence[str], bundle: Path, barrier: Barrier, answers: "SimpleQueue[int]") -> None:
    import numpy as np
    import openvino

    from worker.inference.bundle import load_bundle
    from worker.inference.precision import HINTS

    loaded = load_bundle(bundle)
    core = openvino.Core()
    model = core.read_model(bundle / "model.xml")
    model.reshape([1, SIZE, SIZE, 3])
    settings = {
        "INFERENCE_NUM_THREADS": 1,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": HINTS[loaded.manifest.precision],
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    request.infer({0: np.zeros((1, SIZE, SIZE, 3), np.uint8)})
    barrier.wait(120)
    probabilities = []
    for file in files:
        model_input = loaded.preprocessing.load(Path(file).read_bytes())
        outputs = request.infer({0: model_input[None]}, share_inputs=True, share_outputs=True)
        probabilities.append(float(outputs["probability"].ravel()[0]))
    answers.put(len(probabilities))


def _script(script: str, files: Sequence[Path], model: Path) -> float:
    """Run a script in a process of its own, which prints its seconds as the last line."""
    done = subprocess.run(
        [sys.executable, "-c", script, str(model)],
        input="\n".join(map(str, files)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"A contender failed:\n{done.stderr[-2_000:]}")
    return float(done.stdout.split()[-1])


_TF_DATA = f"""
import sys, time
import keras, tensorflow as tf
files = sys.stdin.read().split("\\n")
model = keras.saving.load_model(sys.argv[1], compile=False)

def read(path):
    image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
    return tf.image.resize_with_crop_or_pad(tf.image.resize(image, ({SIZE}, {SIZE} * 4 // 3), "area"), {SIZE}, {SIZE})

def data(some):
    found = tf.data.Dataset.from_tensor_slices(some).map(read, num_parallel_calls=tf.data.AUTOTUNE)
    return found.batch({BATCH}).prefetch(tf.data.AUTOTUNE)

model.predict(data(files[:{BATCH}]), verbose=0)
started = time.perf_counter()
assert len(model.predict(data(files), verbose=0)["probability"]) == len(files)
print(time.perf_counter() - started)
"""
_KERAS_LOOP = f"""
import sys, time
import cv2, keras, numpy as np
files = sys.stdin.read().split("\\n")
model = keras.saving.load_model(sys.argv[1], compile=False)

def read(path):
    return cv2.resize(cv2.imread(path)[..., ::-1], ({SIZE}, {SIZE}), interpolation=cv2.INTER_AREA)

model.predict(np.zeros(({BATCH}, {SIZE}, {SIZE}, 3), np.float32), verbose=0)
started = time.perf_counter()
scored = 0
for start in range(0, len(files), {BATCH}):
    batch = np.stack([read(path) for path in files[start:start + {BATCH}]]).astype(np.float32)
    scored += len(model.predict(batch, verbose=0)["probability"])
assert scored == len(files)
print(time.perf_counter() - started)
"""
_RAY = f"""
import logging, sys, time
from pathlib import Path
import cv2, numpy as np, openvino, ray
files = sys.stdin.read().split("\\n")
bundle = sys.argv[1]
ray.init(logging_level=logging.ERROR, log_to_driver=False)
ray.data.DataContext.get_current().enable_progress_bars = False
processors = int(ray.cluster_resources()["CPU"])

class Scorer:
    def __init__(self):
        core = openvino.Core()
        model = core.read_model(bundle + "/model.xml")
        model.reshape([1, {SIZE}, {SIZE}, 3])
        options = {{"INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False, "INFERENCE_PRECISION_HINT": "f32"}}
        self.request = core.compile_model(model, "CPU", options).create_infer_request()
        cv2.setNumThreads(1)

    def __call__(self, batch):
        found = []
        for path in batch["path"]:
            image = cv2.imdecode(np.frombuffer(Path(path).read_bytes(), np.uint8), cv2.IMREAD_COLOR_RGB)
            image = cv2.resize(image, ({SIZE} * 4 // 3, {SIZE}), interpolation=cv2.INTER_AREA)
            left = (image.shape[1] - {SIZE}) // 2
            found.append(float(self.request.infer({{0: image[:, left:left + {SIZE}][None]}})["probability"].ravel()[0]))
        return {{"path": batch["path"], "probability": np.array(found)}}

def score(some):
    data = ray.data.from_items([{{"path": path}} for path in some], override_num_blocks=8 * processors)
    return data.map_batches(Scorer, batch_size=64, compute=ray.data.ActorPoolStrategy(size=processors)).take_all()

score(files[:64])
started = time.perf_counter()
assert len(score(files)) == len(files)
print(time.perf_counter() - started)
"""
_CELERY_APP = """
import os, time
import celery
app = celery.Celery("tutorial", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
app.conf.worker_prefetch_multiplier = 4
model = None

@app.task(name="predict")
def predict(path):
    global model
    import keras, numpy as np
    if model is None:
        model = keras.saving.load_model(os.environ["MODEL"], compile=False)
    image = keras.utils.img_to_array(keras.utils.load_img(path, target_size=(224, 224)))
    return float(model.predict(image[None], verbose=0)["probability"][0, 0])
"""


def _celery_tasks(files: Sequence[Path], model: Path, made: Path) -> float:
    """As tutorials do it: a task for each image, which loads the model at its first call."""
    from celery import Celery

    from worker.local.broker import new_local_broker

    (made / "tutorial.py").write_text(_CELERY_APP)
    broker = new_local_broker()
    environment = {**os.environ, "BROKER": broker.url, "MODEL": str(model), "PYTHONPATH": str(made)}
    with (made / "tutorial.log").open("wb") as log:
        server = subprocess.Popen([broker.binary, "-"], stdin=subprocess.PIPE, stdout=log, stderr=log)
        assert server.stdin is not None
        server.stdin.write(broker.configuration(made).encode())
        server.stdin.close()
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "tutorial", "worker", f"--concurrency={available_cpus()}"],
            env=environment,
            cwd=made,
            stdout=log,
            stderr=log,
        )
        try:
            app = Celery("tutorial", broker=broker.url, backend=broker.url)
            # Enough that each process has loaded its model.
            warm = [app.send_task("predict", [str(file)]) for file in files[:20]]
            for task in warm:
                task.get(timeout=300)
            started = time.perf_counter()
            tasks = [app.send_task("predict", [str(file)]) for file in files]
            for task in tasks:
                task.get(timeout=600)
            return time.perf_counter() - started
        finally:
            worker.terminate()
            worker.wait(30)
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()
