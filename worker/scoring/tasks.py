"""Thin Celery tasks: load by id, call one function, return."""

import os
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from typing import Any

from celery import Celery, Task
from celery.exceptions import Ignore
from celery.signals import worker_shutting_down
from celery.worker.control import inspect_command

from db.session import open_database
from worker.inference.bundle_reference import bundle_precision, configured_bundle
from worker.log_throttle import LogThrottle
from worker.logging import get_logger
from worker.queue import counters
from worker.queue.app import SCORE_CHUNK, TELL_BUNDLE, make_app
from worker.queue.hints import BROKER_FAULTS
from worker.scoring.ahead import still_hanging
from worker.scoring.chunk import ChunkLimits, ChunkResult, score_chunk
from worker.scoring.loaded_model import ModelCache
from worker.scoring.shutdown import StopFlag, leave_in_time
from worker.settings import Settings

log = get_logger(__name__)

#: Seconds that a read of an abandoned batch has to end.
_PATIENCE = 5.0


def make_worker_app(settings: Settings) -> Celery:
    """Make the application of a worker: `worker.queue.app.make_app` with the task and the worker's signals.

    Call it once in a process, because it connects signals.

    Args:
        settings: give the database, the bundle and the limits.
    """
    app = make_app(settings)
    # Neither connects nor loads before its first use, which is in a child process.
    database = cache(lambda: open_database(settings.resolved_database_url()))
    models = ModelCache(settings.resolved_bundle(), settings.engine)
    # Shared with the processes that are forked from this one.
    stopping, throttle = StopFlag(), LogThrottle()
    worker_shutting_down.connect(stopping.set, weak=False)
    worker_shutting_down.connect(leave_in_time, weak=False)
    limits = ChunkLimits(
        batch_size=settings.batch_size,
        lease_seconds=settings.lease_seconds,
        time_limit=settings.chunk_time_limit,
        max_file_bytes=settings.max_file_bytes,
    )

    def count(result: ChunkResult) -> None:
        """Count what was written, whatever became of the chunk."""
        closed = {"chunks": 1, "repeated_claims": int(result.repeated)} if result.closed else {}
        counters.add(app, {**result.counts, **closed})

    @app.task(name=SCORE_CHUNK, bind=True)  # type: ignore[untyped-decorator] # Celery has no types
    def score_chunk_task(task: Task, chunk_id: int, job_id: int | None = None) -> str:
        """Follow a hint; see `worker.scoring.chunk.score_chunk`. The job's number is for whoever reads the message."""
        try:
            result = score_chunk(
                chunk_id,
                database=database(),
                model_for=models.model_for,
                limits=limits,
                stopping=stopping,
                throttle=throttle,
                on_result=count,
            )
            if result is None:
                # Neither a success nor a failure. Of the states that Flower knows, revoked is the nearest.
                with suppress(*BROKER_FAULTS):
                    task.send_event("task-revoked", retry=False, terminated=False, signum=None, expired=False)
                raise Ignore("nothing to do")
            return str(result)
        finally:
            if still_hanging(_PATIENCE):
                # Its chunk is released. Celery starts another process in place of this one.
                log.error("a read hangs, so this process ends", chunk=chunk_id)
                os._exit(1)

    @inspect_command(name=TELL_BUNDLE)  # type: ignore[untyped-decorator]
    def tell_bundle(worker: Any) -> dict[str, str | int | list[int]]:
        """This worker's bundle, engine and number of processes. Empty when the bundle cannot be read."""
        bundle = configured_bundle(settings)
        if bundle is None:
            return {}
        engine = f"{settings.engine} {version(settings.engine)} {bundle_precision(settings)}"
        return {
            **asdict(bundle),
            "engine": engine,
            "processes": settings.concurrency,
            "pids": list(worker.consumer.pool.info["processes"]),
        }

    return app
