"""Jobs as operators see them, and the step that finishes a job when every chunk is done."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, or_, select, update

from db.audit import append_entry
from db.models import Chunk, Job, ModelBundle
from db.status import AuditAction, JobStatus
from db.submission import submission_expired
from db.totals import OPEN, settle_job
from db.types import db_now

#: Statuses in which a worker may claim a chunk of the job.
CLAIMABLE = (JobStatus.SUBMITTING, JobStatus.QUEUED, JobStatus.RUNNING)


def is_workable() -> ColumnElement[bool]:
    """Condition: workers may claim chunks of the job."""
    return and_(Job.status.in_(CLAIMABLE), Job.resting.is_(False))


#: Statuses in which the last closed chunk finishes the job.
FINISHABLE = (JobStatus.QUEUED, JobStatus.RUNNING)
#: Digits that a job's number does not reach.
_DIGITS = 19


@dataclass(frozen=True, kw_only=True)
class JobView:
    """A job as operators see it."""

    id: int
    status: JobStatus
    urgent: bool
    #: Label that the submitter gave it.
    name: str | None
    submitted_by: str | None
    #: Hours of the day in which it is scored, such as ``20:00-06:00``, in the site's time.
    hours: str | None
    #: Whether it rests until its hours begin.
    resting: bool
    root: str
    manifest: str | None
    bundle_name: str
    bundle_version: str
    bundle_sha256: str
    bundle_id: int
    policy: str
    threshold: float
    borderline_threshold: float
    #: Whether its submission was interrupted: the submitting process is gone and images may be missing.
    interrupted: bool
    #: Number of files that were not submitted, by kind.
    passed_over: dict[str, int] | None
    submitted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


def finish_job_if_done(connection: Connection, job_id: int) -> bool:
    """Finish a job when every chunk is done. Call it in its own transaction, after the one that closes a chunk.

    Two workers that close the last two chunks at once do not see each other's uncommitted rows. Each asks again after
    its own commit, so at least one of them sees both.

    Returns:
        Whether this call finished the job.
    """
    # Lock first: a retry that reopens chunks takes the same lock, and the update below then sees what it committed.
    connection.execute(select(Job.id).where(Job.id == job_id).with_for_update(key_share=True))
    open_chunk = exists().where(Chunk.job_id == job_id, Chunk.status.in_(OPEN))
    finished = connection.execute(
        update(Job)
        .where(Job.id == job_id, Job.status.in_(FINISHABLE), ~open_chunk)
        .values(status=JobStatus.FINISHED, finished_at=db_now())
    )
    if finished.rowcount != 1:
        return False
    settle_job(connection, job_id)
    append_entry(connection, actor="dermq", action=AuditAction.FINISHED, job_id=job_id)
    return True


def unfinished_jobs(connection: Connection) -> list[int]:
    """Jobs that could be finished. The sweeper calls `finish_job_if_done` for each."""
    return list(connection.scalars(select(Job.id).where(Job.status.in_(FINISHABLE)).order_by(Job.id)))


@dataclass(frozen=True, kw_only=True)
class BundleWork:
    """A bundle with open work, and its jobs, oldest first."""

    sha256: str
    name: str
    version: str
    jobs: list[int]


def open_work(connection: Connection) -> list[BundleWork]:
    """Bundles of the jobs that have a chunk to claim or under way."""
    undone = exists().where(Chunk.job_id == Job.id, Chunk.status.in_(OPEN))
    rows = connection.execute(
        select(ModelBundle.sha256, ModelBundle.name, ModelBundle.version, Job.id)
        .join(Job, Job.bundle_id == ModelBundle.id)
        .where(Job.status.in_(CLAIMABLE), undone)
        .order_by(ModelBundle.id, Job.id)
    )
    found: dict[str, BundleWork] = {}
    for sha256, name, version, job_id in rows:
        work = found.setdefault(sha256, BundleWork(sha256=sha256, name=name, version=version, jobs=[]))
        work.jobs.append(job_id)
    return list(found.values())


class JobOrder(StrEnum):
    """Orders of a list of jobs."""

    NEWEST = "newest"
    OLDEST = "oldest"
    NAME = "name"
    STATE = "state"
    PRIORITY = "priority"


_ORDERS: dict[JobOrder, tuple[Any, ...]] = {
    JobOrder.NEWEST: (Job.id.desc(),),
    JobOrder.OLDEST: (Job.id,),
    JobOrder.NAME: (func.lower(func.coalesce(Job.name, "~")), Job.id.desc()),
    JobOrder.STATE: (Job.status, Job.id.desc()),
    JobOrder.PRIORITY: (Job.urgent.desc(), Job.id.desc()),
}


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """Which jobs to list.

    Args:
        statuses: only these. Empty: all.
        ids: only these. None: all.
        text: that occurs in the name, the source or the submitter, or is the number. Empty: all.
        order: of the list.
    """

    statuses: Collection[JobStatus] = ()
    ids: Collection[int] | None = None
    text: str = ""
    order: JobOrder = JobOrder.NEWEST


#: Statuses of jobs that are neither stopped nor paused.
ACTIVE = (JobStatus.SUBMITTING, JobStatus.QUEUED, JobStatus.RUNNING)


def find_jobs(connection: Connection, wanted: JobFilter, *, limit: int, offset: int = 0) -> tuple[list[JobView], int]:
    """A page of the jobs that fit, and the number of all that fit."""
    conditions = _conditions(wanted)
    total = connection.execute(select(func.count()).select_from(Job).where(*conditions)).scalar_one()
    query = _views().where(*conditions).order_by(*_ORDERS[wanted.order]).limit(limit).offset(offset)
    return _read(connection, query), total


def count_by_status(connection: Connection) -> dict[JobStatus, int]:
    """The number of jobs by status."""
    return {
        JobStatus(status): number
        for status, number in connection.execute(select(Job.status, func.count()).group_by(Job.status))
    }


def view_jobs(
    connection: Connection, *, job_id: int | None = None, limit: int | None = 20, active: bool = False
) -> list[JobView]:
    """The newest jobs, newest first; or only the given job, or only those that are neither stopped nor paused."""
    query = _views().order_by(Job.id.desc()).limit(limit)
    if job_id is not None:
        query = query.where(Job.id == job_id)
    if active:
        query = query.where(Job.status.in_(ACTIVE))
    return _read(connection, query)


def _conditions(wanted: JobFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.statuses:
        conditions.append(Job.status.in_(wanted.statuses))
    if wanted.ids is not None:
        conditions.append(Job.id.in_(wanted.ids))
    if text := wanted.text.strip():
        found = [
            column.icontains(text, autoescape=True) for column in (Job.name, Job.root, Job.manifest, Job.submitted_by)
        ]
        if text.isascii() and text.isdigit() and len(text) < _DIGITS:
            found.append(Job.id == int(text))
        conditions.append(or_(*found))
    return conditions


def _read(connection: Connection, query: Select[*tuple[Any, ...]]) -> list[JobView]:
    # SQLite has no booleans, only 0 and 1.
    return [JobView(**{**row, "interrupted": bool(row["interrupted"])}) for row in connection.execute(query).mappings()]


def _views() -> Select[*tuple[Any, ...]]:
    return select(
        Job.id,
        Job.status,
        Job.urgent,
        Job.name,
        Job.submitted_by,
        Job.hours,
        Job.resting,
        Job.root,
        Job.manifest,
        Job.passed_over,
        ModelBundle.name.label("bundle_name"),
        ModelBundle.version.label("bundle_version"),
        ModelBundle.sha256.label("bundle_sha256"),
        Job.bundle_id,
        Job.policy,
        Job.threshold,
        Job.borderline_threshold,
        submission_expired().label("interrupted"),
        Job.submitted_at,
        Job.started_at,
        Job.finished_at,
    ).join(ModelBundle, ModelBundle.id == Job.bundle_id)
