"""The chunks of a job as operators see them: how many wait, who has one, which were retried or slow."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, func, select

from db.models import Chunk
from db.status import ChunkStatus
from db.types import db_now

#: Chunks of each list.
_LISTED = 20
#: Newest closed chunks among which the slowest are looked for, so that the cost does not grow with the job.
_NEWEST = 200


@dataclass(frozen=True, kw_only=True)
class ChunkView:
    """A chunk.

    Args:
        id: of the chunk.
        images: images that it was made with.
        attempt: number of claims.
        worker: host and process that has it or closed it. Empty when none did.
        lease_seconds_left: of a chunk that a worker has. Negative when the lease has ended.
        seconds: from the last claim to the newest outcome. None before an outcome.
    """

    id: int
    images: int
    attempt: int
    worker: str
    lease_seconds_left: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class JobChunks:
    """The chunks of a job: their number by status, and short lists of those that an operator asks for."""

    by_status: dict[ChunkStatus, int] = field(default_factory=dict)
    held: list[ChunkView] = field(default_factory=list)
    retried: list[ChunkView] = field(default_factory=list)
    slowest: list[ChunkView] = field(default_factory=list)


def chunks_of_job(connection: Connection, job_id: int) -> JobChunks:
    """The chunks of a job. ``slowest`` are the slowest of those closed last."""
    counted = select(Chunk.status, func.count()).where(Chunk.job_id == job_id).group_by(Chunk.status)
    held = _views(job_id).where(Chunk.status == ChunkStatus.LEASED).order_by(Chunk.id)
    retried = _views(job_id).where(Chunk.attempt > 1).order_by(Chunk.id.desc())
    newest = (
        _views(job_id)
        .where(Chunk.last_completed_at.is_not(None), Chunk.status == ChunkStatus.DONE)
        .order_by(Chunk.last_completed_at.desc())
        .limit(_NEWEST)
    )
    slowest = [view for view in _read(connection, newest) if view.seconds is not None]
    return JobChunks(
        by_status={ChunkStatus(status): number for status, number in connection.execute(counted)},
        held=_read(connection, held.limit(_LISTED)),
        retried=_read(connection, retried.limit(_LISTED)),
        slowest=sorted(slowest, key=lambda view: -(view.seconds or 0.0))[:5],
    )


def _views(job_id: int) -> Select[*tuple[Any, ...]]:
    return select(
        Chunk.id,
        Chunk.size,
        Chunk.attempt,
        Chunk.status,
        Chunk.owner,
        Chunk.closed_by,
        Chunk.lease_expires_at,
        Chunk.claimed_at,
        Chunk.last_completed_at,
        db_now().label("now"),
    ).where(Chunk.job_id == job_id)


def _read(connection: Connection, query: Select[*tuple[Any, ...]]) -> list[ChunkView]:
    return [
        ChunkView(
            id=row.id,
            images=row.size,
            attempt=row.attempt,
            worker=":".join((row.owner or row.closed_by or "").split(":")[:2]),
            lease_seconds_left=_seconds(row.now, row.lease_expires_at),
            seconds=_seconds(row.claimed_at, row.last_completed_at),
        )
        for row in connection.execute(query)
    ]


def _seconds(begun: datetime | None, ended: datetime | None) -> float | None:
    return None if begun is None or ended is None else (ended - begun).total_seconds()
