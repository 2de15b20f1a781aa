"""The sweeper: finds chunks that no worker has and no hint will reach, and sends hints for them."""

import threading

from celery import Celery
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from db.claims import claim_unhinted_chunks, jobs_of_chunks, unmark_hinted
from db.hours import rest_and_wake
from db.jobs import finish_job_if_done, unfinished_jobs
from db.session import read, transact
from worker.database_check import check_database
from worker.errors import BrokerError, DatabaseError
from worker.log_throttle import LogThrottle
from worker.logging import get_logger
from worker.queue import counters
from worker.queue.hints import queue_length, record_sweep, send_hints
from worker.settings import Settings

log = get_logger(__name__)

#: Greatest number of chunks that one sweep sends hints for, in each queue.
_SWEEP_LIMIT = 2_000
#: Least number of seconds for which a sweep counts as a sign of life.
_SIGN_OF_LIFE_SECONDS = 30.0


def sweep(database: Engine, app: Celery, *, hint_after: float) -> list[int]:
    """Sweep once: send missing hints, and finish jobs whose last worker died after it closed the last chunk.

    Several sweepers may run: the statement that marks a chunk as hinted gives it to one of them.

    Args:
        database: from `db.session.open_database`.
        app: the Celery application.
        hint_after: seconds until an unanswered hint counts as lost.

    Returns:
        The chunks that hints were sent for.

    Raises:
        BrokerError: the broker cannot be reached. The chunks are marked as not hinted again.
    """
    for job_id in read(database, unfinished_jobs):
        transact(database, lambda connection, job_id=job_id: finish_job_if_done(connection, job_id))  # type: ignore[misc]
    hinted: list[int] = []
    for urgent in (True, False):
        empty = queue_length(app, urgent=urgent) == 0
        chunk_ids = transact(
            database,
            lambda connection, urgent=urgent, empty=empty: claim_unhinted_chunks(  # type: ignore[misc]
                connection, urgent=urgent, hint_after=hint_after, queue_is_empty=empty, limit=_SWEEP_LIMIT
            ),
        )
        if not chunk_ids:
            continue
        chunks = read(database, lambda connection, ids=chunk_ids: jobs_of_chunks(connection, ids))  # type: ignore[misc]
        try:
            send_hints(app, chunks, urgent=urgent)
        except BrokerError:
            transact(database, lambda connection, ids=chunk_ids: unmark_hinted(connection, ids))  # type: ignore[misc]
            raise
        hinted += chunk_ids
    return hinted


def run_sweeper(database: Engine, app: Celery, settings: Settings, stop: threading.Event) -> None:
    """Sweep until told to stop. An unavailable broker or database does not end it.

    Args:
        stop: set it to end after the current sweep.
    """
    throttle = LogThrottle()
    while not stop.wait(settings.sweep_interval):
        try:
            now = settings.local_time().time()
            transact(database, lambda connection, now=now: rest_and_wake(connection, now))  # type: ignore[misc]
            if hinted := sweep(database, app, hint_after=settings.hint_timeout):
                log.info("missing hints sent", chunks=len(hinted))
            counters.add(app, {"sweeps": 1, "swept_hints": len(hinted)})
            record_sweep(app, good_for=max(_SIGN_OF_LIFE_SECONDS, 3 * settings.sweep_interval))
            throttle.reset()
        except (BrokerError, SQLAlchemyError) as error:
            if throttle.allow():
                log.warning("cannot sweep, trying again", reason=_reason(error, settings))


def _reason(error: BrokerError | SQLAlchemyError, settings: Settings) -> str:
    if isinstance(error, SQLAlchemyError):
        try:
            check_database(settings)
        except DatabaseError as problem:
            # It says what to do when there is no database yet, or one with another schema.
            return str(problem)
    return str(getattr(error, "orig", None) or error).strip()
