"""The sweeper: finds chunks that nobody works on and no hint will reach, and sends hints for them."""

import threading

from celery import Celery
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from db.claims import take_forgotten, unmark_hinted
from db.jobs import finish_job_if_done, unfinished_jobs
from db.session import read, transact
from worker.errors import BrokerError, DermqError
from worker.log_throttle import Complaint
from worker.logging import get_logger
from worker.queue.hints import note_sweep, queue_length, send_hints
from worker.settings import Settings

log = get_logger(__name__)

#: Chunks that one sweep hints at most.
_SWEEP_LIMIT = 2_000
#: Seconds at least that a sweep is taken for a sign that the sweeper lives.
_SIGN_OF_LIFE_SECONDS = 30.0


def sweep(database: Engine, app: Celery, *, hint_after: float) -> list[int]:
    """Sweep once: hint forgotten chunks, and finish jobs whose last worker died between closing and finishing.

    Several sweepers may run: a chunk is taken by the statement that marks it.

    Args:
        database: from `db.session.open_database`.
        app: the Celery application.
        hint_after: seconds that a hint is given to be found.

    Returns:
        The chunks that were hinted.

    Raises:
        BrokerError: the broker cannot be reached; the chunks are marked as not hinted.
    """
    for job_id in read(database, unfinished_jobs):
        transact(database, lambda connection, job_id=job_id: finish_job_if_done(connection, job_id))  # type: ignore[misc]
    hinted: list[int] = []
    for urgent in (True, False):
        empty = queue_length(app, urgent=urgent) == 0
        chunk_ids = transact(
            database,
            lambda connection, urgent=urgent, empty=empty: take_forgotten(  # type: ignore[misc]
                connection, urgent=urgent, hint_after=hint_after, queue_is_empty=empty, limit=_SWEEP_LIMIT
            ),
        )
        if not chunk_ids:
            continue
        try:
            send_hints(app, chunk_ids, urgent=urgent)
        except BrokerError:
            transact(database, lambda connection, ids=chunk_ids: unmark_hinted(connection, ids))  # type: ignore[misc]
            raise
        hinted += chunk_ids
    return hinted


def run_sweeper(database: Engine, app: Celery, settings: Settings, stop: threading.Event) -> None:
    """Sweep until told to stop, through any outage of the broker and the database.

    Args:
        stop: set it to end after the sweep in hand.
    """
    complaint = Complaint()
    while not stop.wait(settings.sweep_seconds):
        try:
            if hinted := sweep(database, app, hint_after=settings.hint_seconds):
                log.info("forgotten chunks hinted", chunks=len(hinted))
            note_sweep(app, good_for=max(_SIGN_OF_LIFE_SECONDS, 3 * settings.sweep_seconds))
            complaint.withdraw()
        except (BrokerError, SQLAlchemyError) as error:
            if complaint.due():
                log.warning("cannot sweep now, trying on", reason=_reason(error, settings))


def _reason(error: BrokerError | SQLAlchemyError, settings: Settings) -> str:
    if isinstance(error, SQLAlchemyError):
        # Here, because it loads what decodes images, and a sweeper does without it.
        from worker.monitor.health import require_database

        try:
            require_database(settings)
        except DermqError as unwell:
            # It says what to do where there is no database yet, or one of another schema.
            return str(unwell)
    return str(getattr(error, "orig", None) or error).strip()
