"""Thin Celery tasks: load by id, call one function, return."""

from dataclasses import asdict
from functools import cache

from celery import Celery
from celery.signals import worker_shutting_down
from celery.worker.control import inspect_command

from db.session import open_database
from worker.inference.bundle_reference import bundle_here
from worker.log_throttle import Complaint
from worker.queue.app import SCORE_CHUNK, TELL_BUNDLE
from worker.scoring.chunk import ChunkLimits, score_chunk
from worker.scoring.loaded_model import ScorerCache
from worker.scoring.shutdown import StopFlag, leave_in_time
from worker.settings import Settings


def register_tasks(app: Celery, settings: Settings) -> None:
    """Register the tasks with an application, and what its worker answers when it is asked for its bundle.

    Args:
        app: the application.
        settings: for the database, the bundle and the limits.
    """
    # Neither connects nor loads before its first use, which is in a child process.
    database = cache(lambda: open_database(settings.resolved_database_url()))
    scorers = ScorerCache(settings.resolved_bundle(), settings.engine)
    # Both are shared with the processes that are forked from here.
    stopping, complaint = StopFlag(), Complaint()
    worker_shutting_down.connect(stopping.set, weak=False)
    worker_shutting_down.connect(leave_in_time, weak=False)
    limits = ChunkLimits(
        batch_size=settings.batch_size,
        lease_seconds=settings.lease_seconds,
        time_limit=settings.chunk_time_limit,
        max_file_bytes=settings.max_file_bytes,
    )

    @app.task(name=SCORE_CHUNK)  # type: ignore[untyped-decorator] # Celery has no types
    def score_chunk_task(chunk_id: int) -> int | None:
        """Score the chunk of this number; see `worker.scoring.chunk.score_chunk`."""
        return score_chunk(
            chunk_id,
            database=database(),
            scorer_for=scorers.scorer_for,
            limits=limits,
            stopping=stopping,
            complaint=complaint,
        )

    @inspect_command(name=TELL_BUNDLE)  # type: ignore[untyped-decorator]
    def tell_bundle(_worker: object) -> dict[str, str]:
        """Name, version and SHA-256 of this worker's bundle; empty when it cannot be read."""
        bundle = bundle_here(settings)
        return {} if bundle is None else asdict(bundle)
