"""What keeping freed memory gives a training step (trainer/training/malloc.py).

    python benchmarks/freed_memory.py [BACKBONE] [SIZE]

Two processes, one that keeps what TensorFlow frees and one that hands it back to the kernel, take turns: each does some
steps of a batch of 32 synthetic images while the other waits. Quote the median ratio, not the rates.
"""

import os
import resource
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

ROUNDS, STEPS, BATCH = 5, 4, 32


def serve(backbone: str, size: int, *, keep: bool) -> None:
    """Do a round of steps for each line on standard input, and print its seconds and page faults."""
    from trainer.training.malloc import keep_freed_memory

    if keep:
        keep_freed_memory()
    from training_step import step_of

    step = step_of(backbone, size, batch_normalisation="frozen", fused=False)
    for _ in sys.stdin:
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(STEPS):
            step()
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        print(time.perf_counter() - start, faults, flush=True)


def main() -> None:
    """Measure and print."""
    backbone = sys.argv[1] if len(sys.argv) > 1 else "efficientnet-lite0"
    size = int(sys.argv[2]) if len(sys.argv) > 2 else 224
    processes = {
        kept: subprocess.Popen(
            [sys.executable, __file__, backbone, str(size), kept],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for kept in ("handed back", "kept")
    }
    seconds: dict[str, list[float]] = {kept: [] for kept in processes}
    faults: dict[str, int] = {}
    for number in range(ROUNDS + 1):
        for kept, process in processes.items():
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            taken, mapped = process.stdout.readline().split()
            if number:  # the first round warms up
                seconds[kept].append(float(taken))
                faults[kept] = int(mapped) // STEPS
    for process in processes.values():
        process.communicate()
    base = seconds["handed back"]
    print(f"{backbone} at {size}, freed memory  images/s   ratio   faults a step   (medians of {ROUNDS} rounds)")
    for kept, times in seconds.items():
        ratio = statistics.median(own / other for own, other in zip(base, times, strict=True))
        print(f"{kept:32} {BATCH * STEPS / statistics.median(times):9.1f} {ratio:7.2f} {faults[kept]:15,}")


if __name__ == "__main__":
    if len(sys.argv) == 4:
        serve(sys.argv[1], int(sys.argv[2]), keep=sys.argv[3] == "kept")
    else:
        main()
