"""Whose turn it is: a hint wakes a worker, which then takes a chunk of the job that has the fewest workers.

So jobs that were submitted one after the other share the workers. The chunk that the hint names is only where the
search begins.
"""

import secrets
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection, exists, func, select, update

from db.claims import Claim, claim_chunk, is_free
from db.jobs import is_workable
from db.models import Chunk, Job, ModelBundle
from db.status import ChunkStatus
from db.types import db_now


@dataclass(frozen=True, kw_only=True)
class _Hinted:
    """The chunk that a hint names."""

    chunk_id: int
    job_id: int
    urgent: bool
    bundle_id: int
    hinted_at: datetime | None
    free: bool
    waiting: bool


def bundle_for_hint(connection: Connection, chunk_id: int) -> str | None:
    """SHA-256 of the bundle that a worker needs to follow a hint. None when there is nothing to do."""
    hinted = _hinted(connection, chunk_id)
    if hinted is None or not (hinted.free or _jobs_by_workers(connection, hinted)):
        return None
    return connection.execute(select(ModelBundle.sha256).where(ModelBundle.id == hinted.bundle_id)).scalar_one()


def take_turn(connection: Connection, chunk_id: int, owner: str, lease_seconds: float) -> Claim | None:
    """Claim the hinted chunk, or one of a job of the same urgency and bundle that has fewer workers.

    Among jobs with equally few, chance decides. The time of the consumed hint goes to the chunk that is taken, and the
    hinted one gets that chunk's, whose message is still under way.

    Args:
        chunk_id: from a hint. Hints may be late, duplicated or wrong.
        owner: unique to this claim.
        lease_seconds: length of the lease without a renewal.

    Returns:
        The claim. None when no chunk is free.
    """
    # Two workers that take each other's hinted chunk would wait for one another. Whoever does not get it at once leaves
    # it alone.
    hinted = _hinted(connection, chunk_id, lock=True)
    if hinted is None:
        found = _hinted(connection, chunk_id)
        if found is None:
            return None
        hinted = replace(found, free=False, waiting=False)
    if hinted.free and not hinted.waiting:
        # Its worker is dead, and no other message will come for it.
        return claim_chunk(connection, chunk_id, owner, lease_seconds)
    workers = _jobs_by_workers(connection, hinted)
    while workers:
        fewest = min(workers.values())
        job_id = secrets.choice([each for each, number in workers.items() if number == fewest])
        if job_id == hinted.job_id and hinted.free:
            return claim_chunk(connection, chunk_id, owner, lease_seconds)
        other = connection.execute(
            select(Chunk.id, Chunk.hinted_at)
            .where(Chunk.job_id == job_id, Chunk.status == ChunkStatus.WAITING)
            .order_by(Chunk.hinted_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        ).one_or_none()
        claim = None if other is None else claim_chunk(connection, other.id, owner, lease_seconds)
        if other is not None and claim is not None:
            _set_hint(connection, other.id, hinted.hinted_at)
            if hinted.waiting:
                _set_hint(connection, chunk_id, other.hinted_at)
            return claim
        # Other workers have just taken its last chunks.
        del workers[job_id]
    return None


def _hinted(connection: Connection, chunk_id: int, *, lock: bool = False) -> _Hinted | None:
    """The chunk that a hint names. None when there is none, or it was to be locked and another worker has the lock."""
    query = (
        select(
            Chunk.id.label("chunk_id"),
            Job.id.label("job_id"),
            Job.urgent,
            Job.bundle_id,
            Chunk.hinted_at,
            (is_free() & is_workable()).label("free"),
            (Chunk.status == ChunkStatus.WAITING).label("waiting"),
        )
        .join(Job, Job.id == Chunk.job_id)
        .where(Chunk.id == chunk_id)
    )
    if lock:
        query = query.with_for_update(of=Chunk, skip_locked=True)
    return next((_Hinted(**values) for values in connection.execute(query).mappings()), None)


def _jobs_by_workers(connection: Connection, hinted: _Hinted) -> dict[int, int]:
    """The jobs that a worker could take a chunk of, with the number of live workers of each."""
    leased = (
        select(func.count())
        .where(Chunk.job_id == Job.id, Chunk.status == ChunkStatus.LEASED, Chunk.lease_expires_at >= db_now())
        .correlate(Job)
        .scalar_subquery()
    )
    waiting = exists().where(Chunk.job_id == Job.id, Chunk.status == ChunkStatus.WAITING)
    rows = connection.execute(
        select(Job.id, leased).where(
            Job.urgent == hinted.urgent, Job.bundle_id == hinted.bundle_id, is_workable(), waiting
        )
    )
    found = {job_id: int(number) for job_id, number in rows}
    if hinted.free:
        # It may be the last one, of a worker whose lease has ended.
        found.setdefault(hinted.job_id, 0)
    return found


def _set_hint(connection: Connection, chunk_id: int, at: datetime | None) -> None:
    connection.execute(update(Chunk).where(Chunk.id == chunk_id).values(hinted_at=at))
