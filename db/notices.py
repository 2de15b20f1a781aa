"""Which news of a job has been told to the outside; `worker.monitor.notify` tells it."""

from sqlalchemy import Connection, or_, select, update

from db.jobs import ACTIVE
from db.models import Job
from db.status import JobStatus
from db.types import db_now

#: What is kept for a job whose end has been told.
FINISHED = "finished"
#: Hours after which the end of a job is no news any more, such as when somebody asks for news the first time.
_STALE_HOURS = 24


def untold_ends(connection: Connection) -> list[int]:
    """Jobs that finished lately and whose end has not been told."""
    untold = or_(Job.notice.is_(None), Job.notice != FINISHED)
    recent = Job.finished_at > db_now(-_STALE_HOURS * 3600)
    query = select(Job.id).where(Job.status == JobStatus.FINISHED, untold, recent).order_by(Job.id)
    return list(connection.scalars(query))


def notices(connection: Connection) -> dict[int, str]:
    """What was told last, of the open jobs of which anything was."""
    rows = connection.execute(select(Job.id, Job.notice).where(Job.status.in_(ACTIVE), Job.notice.is_not(None)))
    return {job_id: str(notice) for job_id, notice in rows}


def keep_notice(connection: Connection, job_id: int, notice: str | None) -> None:
    """Keep what was told last."""
    connection.execute(update(Job).where(Job.id == job_id).values(notice=notice))
