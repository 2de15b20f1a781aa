"""`dermq bench`: how long each stage of scoring takes on this machine, how fast all of it is, and the best settings."""

import itertools
import logging
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import TypeVar, cast
from uuid import uuid4

import numpy as np
import structlog
from sqlalchemy import Connection

from db.outcomes import Scored, write_outcomes
from db.schema import migrate
from db.session import open_database, transact
from db.status import TriageFlag
from db.submission import NewImage, NewJob, add_chunk, begin_submission, end_submission, record_bundle
from worker.errors import DermqError, ImageFaultError
from worker.images.opencv import cv2
from worker.images.read import FileContent, path_to_text, read_file, sha256_of
from worker.inference.bundle import load_bundle
from worker.inference.quality_gate import Measured
from worker.intake.scan_report import ScanReport
from worker.intake.sources.folder import walk_folder
from worker.scoring.chunk import ChunkLimits, score_chunk
from worker.scoring.loaded_model import LoadedModel
from worker.settings import Settings
from worker.synthetic.lesion import draw_lesion

#: Images that are measured, from the beginning of a folder.
IMAGES = 384
#: Of them, images for the table of stages.
_STAGE_IMAGES = 96
#: Images that are drawn where no folder is given, and their width and height: those of HAM10000.
_DRAWN, _WIDTH, _HEIGHT = 48, 600, 450
#: Begin of the names of scratch folders.
_SCRATCH = "bench-"
#: Names of the stages in their order.
STAGES = ("read", "hash", "decode", "resize", "gates", "infer", "write")
#: Seconds that the processes have to load their models, and to score.
_START_TIMEOUT, _SCORE_TIMEOUT = 120.0, 1_800.0
#: Inferences of each process to measure inference alone.
_INFERENCES = 100

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class StageTimes:
    """Mean milliseconds of each stage for one image, on one processor."""

    milliseconds: dict[str, float]
    images: int
    #: Images that are not scored: broken, or refused by a gate.
    refused: int


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Images per second of a number of processes: from file to row, and of inference alone."""

    processes: int
    end_to_end: float
    inference: float


@contextmanager
def scratch_folder(home: Path) -> Iterator[Path]:
    """An empty folder in dermq's home, so that rows are written to the same disk. It is removed afterwards.

    Raises:
        DermqError: the home cannot be written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in home.glob(f"{_SCRATCH}*"):
            # Of a measurement that was killed. It holds paths of an archive.
            shutil.rmtree(left, ignore_errors=True)
        folder = tempfile.TemporaryDirectory(dir=home, prefix=_SCRATCH)
    except OSError as error:
        raise DermqError(f"The folder {home} cannot be written: {error.strerror}. Set DERMQ_HOME.") from None
    with folder as name:
        yield Path(name)


def find_images(folder: Path | None, scratch: Path) -> tuple[Path, list[NewImage]]:
    """The images to measure with and the folder that they are in. Without a folder they are drawn.

    Raises:
        DermqError: the folder holds no image.
    """
    if folder is None:
        for seed in range(_DRAWN):
            picture = cv2.cvtColor(draw_lesion(seed, width=_WIDTH, height=_HEIGHT), cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(scratch / f"{seed}.jpg"), picture)
        folder = scratch
    images = list(itertools.islice(walk_folder(folder, ScanReport()), IMAGES))
    if not images:
        raise DermqError(f"No image found in {folder}. Give a folder with images, or none to measure with drawn ones.")
    return folder, images


def measure_stages(folder: Path, images: Sequence[NewImage], settings: Settings, scratch: Path) -> StageTimes:
    """Score some images step by step in this process and time each step.

    Args:
        folder: of the images.
        images: from `find_images`.
        settings: give bundle, engine and limits.
        scratch: for a database, on the disk of the real one where that is SQLite.
    """
    bundle = load_bundle(settings.resolved_bundle())
    model = LoadedModel.load(bundle, settings.engine)
    model.engine.infer(np.zeros((1, bundle.manifest.input.size, bundle.manifest.input.size, 3), np.uint8))
    spent = dict.fromkeys(STAGES, 0.0)

    def timed(stage: str, work: Callable[[], Result]) -> Result:
        started = time.perf_counter()
        try:
            return work()
        finally:
            spent[stage] += time.perf_counter() - started

    real_root, refused, scored = os.path.realpath(folder), 0, 0
    some = images[:_STAGE_IMAGES]
    for image in some:
        try:
            content = timed("read", lambda image=image: _read(real_root, image, settings))  # type: ignore[misc]
            timed("hash", lambda data=content.data: sha256_of(data))  # type: ignore[misc]
            picture = timed("decode", lambda data=content.data: bundle.preprocessing.decode(data))  # type: ignore[misc]
        except ImageFaultError:
            refused += 1
            continue
        if timed("gates", lambda picture=picture: model.gate.check_size(picture.short_side)) is not None:  # type: ignore[misc]
            refused += 1
            continue
        model_input = timed("resize", lambda picture=picture: bundle.preprocessing(picture.pixels))  # type: ignore[misc]
        measured = timed("gates", lambda a=picture, b=model_input: model.gate.check(a.short_side, b))  # type: ignore[misc]
        if not isinstance(measured, Measured):
            refused += 1
            continue
        wanted = model.gate.detector is not None or model.head is not None
        found = timed("infer", lambda ready=model_input, f=wanted: model.engine.infer(ready[None], features=f))  # type: ignore[misc]
        if found.features is not None:
            seen = found.features[0]
            measured = timed("gates", lambda m=measured, f=seen: model.gate.check_features(m, f))  # type: ignore[misc]
        scored += isinstance(measured, Measured)
        refused += not isinstance(measured, Measured)
    # Both were measured twice.
    spent["read"] -= spent["hash"]
    spent["write"] = _time_writes(scratch, len(some), settings.batch_size)
    return StageTimes(
        milliseconds={stage: 1000 * seconds / len(some) for stage, seconds in spent.items()},
        images=len(some),
        refused=refused,
    )


def measure_throughput(
    folder: Path, images: Sequence[NewImage], settings: Settings, scratch: Path, processes: int
) -> Throughput:
    """Score the images with several processes, as a worker does but without a broker, and infer alone.

    Raises:
        DermqError: a process failed.
    """
    database_url = f"sqlite:///{scratch / f'bench-{processes}.db'}"
    chunks = _record_chunks(database_url, folder, images, settings, processes)
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(processes + 1), context.SimpleQueue()
    children = [
        context.Process(
            target=_score_share, args=(database_url, settings, chunks[number::processes], barrier, answers), daemon=True
        )
        for number in range(processes)
    ]
    for child in children:
        child.start()
    watcher = threading.Thread(target=_abort_when_one_fails, args=(children, barrier), daemon=True)
    watcher.start()
    try:
        # To begin together, to infer alone together, and when all have answered.
        for timeout in (_START_TIMEOUT, _SCORE_TIMEOUT, _SCORE_TIMEOUT):
            barrier.wait(timeout)
        found = [answers.get() for _ in children]
    except threading.BrokenBarrierError:
        raise DermqError(
            f"A process of the measurement with {processes} processes ended early, or took too long. Is there memory "
            "for so many? `dermq check` shows other causes."
        ) from None
    finally:
        for child in children:
            child.join(10)
            child.kill()
    scored = sum(count for count, _, _ in found)
    # The slowest process counts: a job is finished with its last chunk.
    return Throughput(
        processes=processes,
        end_to_end=scored / max(seconds for _, seconds, _ in found),
        inference=sum(rate for _, _, rate in found),
    )


def _abort_when_one_fails(children: "Sequence[SpawnProcess]", barrier: Barrier) -> None:
    """Wake everybody who waits when a process ended that should have gone on."""
    running = {child.sentinel: child for child in children}
    while running:
        for sentinel in wait(list(running)):
            child = running.pop(cast("int", sentinel))
            child.join()
            if child.exitcode:
                barrier.abort()
                return


def _read(real_root: str, image: NewImage, settings: Settings) -> FileContent:
    return read_file(
        real_root,
        image.path,
        size_bytes=image.size_bytes,
        mtime_ns=image.mtime_ns,
        max_bytes=settings.max_file_bytes,
    )


def _time_writes(scratch: Path, images: int, batch_size: int) -> float:
    """Seconds to write outcomes of some images."""
    url = f"sqlite:///{scratch / 'bench-write.db'}"
    database = open_database(url)
    migrate(database)

    def begin(connection: Connection) -> tuple[int, int]:
        bundle_id, job_id = _new_job(connection, "/", "0" * 64)
        new = [NewImage(path=f"{number}.jpg", size_bytes=None, mtime_ns=None) for number in range(images)]
        add_chunk(connection, job_id, new)
        return bundle_id, job_id

    bundle_id, job_id = transact(database, begin)
    outcomes = [
        Scored(
            image_id=number + 1,
            image_sha256=f"{number:064d}",
            raw_probability=0.5,
            probability=0.5,
            flag=TriageFlag.LOWER_PRIORITY,
        )
        for number in range(images)
    ]
    started = time.perf_counter()
    for start in range(0, images, batch_size):
        part = outcomes[start : start + batch_size]
        transact(
            database,
            lambda c, part=part: write_outcomes(c, part, job_id=job_id, bundle_id=bundle_id, engine="bench"),  # type: ignore[misc]
        )
    seconds = time.perf_counter() - started
    database.dispose()
    return seconds


def _new_job(connection: Connection, root: str, bundle_sha256: str) -> tuple[int, int]:
    bundle_id = record_bundle(connection, sha256=bundle_sha256, name="bench", version="1")
    submitter = uuid4().hex
    job = NewJob(
        root=root,
        manifest=None,
        urgent=False,
        bundle_id=bundle_id,
        policy="bench",
        threshold=0.5,
        borderline_threshold=0.4,
        # Otherwise repeated images would not be scored again.
        force=True,
    )
    job_id = begin_submission(connection, job, submitter, 3600)
    end_submission(connection, job_id, submitter)
    return bundle_id, job_id


def _record_chunks(
    database_url: str, folder: Path, images: Sequence[NewImage], settings: Settings, processes: int
) -> list[int]:
    """Record the images, several times when they are few, and return the chunks."""
    database = open_database(database_url)
    migrate(database)
    bundle = load_bundle(settings.resolved_bundle())
    # Small enough that each process has several.
    size = max(1, min(settings.chunk_size, len(images) // (2 * processes)))
    chunks: list[int] = []

    def record(connection: Connection) -> list[int]:
        # A job holds each path once.
        _, job_id = _new_job(connection, path_to_text(str(folder)), bundle.sha256)
        parts = [images[start : start + size] for start in range(0, len(images), size)]
        return [add_chunk(connection, job_id, part) for part in parts]

    for _ in range(max(1, IMAGES // len(images))):
        chunks += transact(database, record)
    database.dispose()
    return chunks


def _score_share(
    database_url: str,
    settings: Settings,
    chunks: Sequence[int],
    barrier: Barrier,
    answers: "SimpleQueue[tuple[int, float, float]]",
) -> None:
    """One process: score chunks, then infer alone. Answers images, their seconds, and inferences per second."""
    # Without the lines for each chunk.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    bundle = load_bundle(settings.resolved_bundle())
    model = LoadedModel.load(bundle, settings.engine)
    blank = np.zeros((1, bundle.manifest.input.size, bundle.manifest.input.size, 3), np.uint8)
    model.engine.infer(blank)
    database = open_database(database_url)
    limits = ChunkLimits(
        batch_size=settings.batch_size,
        lease_seconds=600.0,
        time_limit=600.0,
        max_file_bytes=settings.max_file_bytes,
    )
    barrier.wait(_START_TIMEOUT)
    started = time.perf_counter()
    results = [score_chunk(chunk, database=database, model_for=lambda _: model, limits=limits) for chunk in chunks]
    count = sum(result.images for result in results if result is not None)
    seconds = time.perf_counter() - started
    barrier.wait(_SCORE_TIMEOUT)
    started = time.perf_counter()
    for _ in range(_INFERENCES):
        model.engine.infer(blank)
    answers.put((count, seconds, _INFERENCES / (time.perf_counter() - started)))
    barrier.wait(_SCORE_TIMEOUT)
