"""Which worker has which chunk: claims, leases, fencing, and the chunks that need a hint."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, exists, func, or_, select, update

from db.jobs import is_workable
from db.models import Chunk, Image, Job, ModelBundle
from db.status import ChunkStatus, FailureCode, ImageStatus, JobStatus
from db.totals import unsettle, write_chunk_totals
from db.types import db_now


class LeaseLostError(Exception):
    """Another worker has the chunk, or its job was stopped. This attempt may write nothing more."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A chunk that a worker has claimed. ``owner`` is unique to the claim and fences every later write."""

    chunk_id: int
    job_id: int
    group_id: int
    owner: str
    attempt: int

    @property
    def isolated(self) -> bool:
        """Whether an earlier attempt crashed, so that each image is marked before it is touched."""
        return self.attempt > 1


@dataclass(frozen=True, kw_only=True)
class ChunkJob:
    """What a worker needs to know about the job of its chunk."""

    job_id: int
    root: str
    bundle_id: int
    bundle_sha256: str
    policy: str
    threshold: float
    borderline_threshold: float
    force: bool


@dataclass(frozen=True, kw_only=True)
class WaitingImage:
    """An image of a chunk without an outcome."""

    id: int
    path: str
    size_bytes: int | None
    mtime_ns: int | None
    isolation_starts: int
    #: With what it fails, known at submission.
    failure_code: FailureCode | None = None
    reason: str | None = None


def job_of_claim(connection: Connection, claim: Claim) -> ChunkJob:
    """The job of a claimed chunk."""
    row = connection.execute(
        select(
            Job.id.label("job_id"),
            Job.root,
            Job.bundle_id,
            ModelBundle.sha256.label("bundle_sha256"),
            Job.policy,
            Job.threshold,
            Job.borderline_threshold,
            Job.force,
        )
        .join(ModelBundle, ModelBundle.id == Job.bundle_id)
        .where(Job.id == claim.job_id)
    ).mappings()
    return ChunkJob(**row.one())


def claim_chunk(connection: Connection, chunk_id: int, owner: str, lease_seconds: float) -> Claim | None:
    """Claim a chunk that is waiting or whose lease has expired. Commit before reading any file.

    Args:
        chunk_id: from a hint. Hints may be late, duplicated or wrong.
        owner: unique to this claim.
        lease_seconds: length of the lease without a renewal.

    Returns:
        The claim. None when the chunk is done, another worker has it, or its job is stopped.
    """
    claimable = exists().where(Job.id == Chunk.job_id, is_workable())
    row = connection.execute(
        update(Chunk)
        .where(Chunk.id == chunk_id, is_free(), claimable)
        .values(
            status=ChunkStatus.LEASED,
            attempt=Chunk.attempt + 1,
            owner=owner,
            lease_expires_at=db_now(lease_seconds),
            claimed_at=db_now(),
        )
        .returning(Chunk.job_id, Chunk.group_id, Chunk.attempt)
    ).one_or_none()
    if row is None:
        return None
    connection.execute(
        update(Job).where(Job.id == row.job_id, Job.status == JobStatus.QUEUED).values(status=JobStatus.RUNNING)
    )
    connection.execute(update(Job).where(Job.id == row.job_id, Job.started_at.is_(None)).values(started_at=db_now()))
    # After the job, as its submitter locks them: the other way round, the first claim and the submitter could deadlock.
    unsettle(connection, row.group_id)
    return Claim(chunk_id=chunk_id, job_id=row.job_id, group_id=row.group_id, owner=owner, attempt=row.attempt)


def renew_lease(connection: Connection, claim: Claim, lease_seconds: float) -> None:
    """Check ownership and extend the lease. It is the first statement of every transaction that writes outcomes.

    Raises:
        LeaseLostError: the claim no longer holds, or the job is paused, cancelled or deleted.
    """
    claimable = exists().where(Job.id == Chunk.job_id, is_workable())
    renewed = connection.execute(
        update(Chunk).where(_owned(claim), claimable).values(lease_expires_at=db_now(lease_seconds))
    )
    if renewed.rowcount != 1:
        raise LeaseLostError(f"attempt {claim.attempt} has lost the lease on chunk {claim.chunk_id}")


def release_chunk(connection: Connection, claim: Claim, *, count_attempt: bool) -> None:
    """Release a chunk that is not done, with the totals of its images. Does nothing when the claim no longer holds.

    Args:
        claim: to release.
        count_attempt: False when the worker was asked to stop or the database was away: then the attempt does not
            count, and the next one need not run in isolation mode.
    """
    released = connection.execute(
        update(Chunk)
        .where(_owned(claim))
        .values(
            status=ChunkStatus.WAITING,
            attempt=Chunk.attempt if count_attempt else Chunk.attempt - 1,
            owner=None,
            lease_expires_at=None,
            hinted_at=None,
        )
    )
    if released.rowcount == 1:
        write_chunk_totals(connection, [claim.chunk_id])


def close_chunk(connection: Connection, claim: Claim) -> bool:
    """Mark a chunk done and write its totals, if the claim holds and each of its images has an outcome.

    Returns:
        Whether it was closed.
    """
    waiting = exists().where(Image.chunk_id == Chunk.id, Image.status == ImageStatus.WAITING)
    closed = connection.execute(
        update(Chunk)
        .where(_owned(claim), ~waiting)
        .values(
            status=ChunkStatus.DONE,
            owner=None,
            lease_expires_at=None,
            closed_by=claim.owner.rpartition(":")[0] or claim.owner,
        )
    )
    if closed.rowcount != 1:
        return False
    write_chunk_totals(connection, [claim.chunk_id])
    return True


def waiting_images(connection: Connection, chunk_id: int) -> list[WaitingImage]:
    """The images of a chunk without an outcome, in the order of submission."""
    rows = connection.execute(
        select(
            Image.id,
            Image.path,
            Image.size_bytes,
            Image.mtime_ns,
            Image.isolation_starts,
            Image.failure_code,
            Image.reason,
        )
        .where(Image.chunk_id == chunk_id, Image.status == ImageStatus.WAITING)
        .order_by(Image.id)
    ).mappings()
    return [WaitingImage(**row) for row in rows]


def mark_isolation_start(connection: Connection, image: WaitingImage) -> None:
    """Record that isolation mode starts with this image. Safe to run again."""
    # Not "the column plus one": a commit whose reply was lost is tried again, and would count two crashes.
    connection.execute(update(Image).where(Image.id == image.id).values(isolation_starts=image.isolation_starts + 1))


def withdraw_isolation_start(connection: Connection, image_id: int) -> None:
    """Take the start back: the attempt ended without an outcome, but not in a crash."""
    connection.execute(
        update(Image)
        .where(Image.id == image_id, Image.isolation_starts > 0)
        .values(isolation_starts=Image.isolation_starts - 1)
    )


def withdraw_uncertain_start(connection: Connection, claim: Claim, image: WaitingImage) -> None:
    """Take back a start of which it is unknown whether it was committed, because the reply was lost.

    It is taken back only while this claim holds and the count is exactly one more than before: an older start stands
    for a crash.
    """
    owned = exists().where(_owned(claim))
    connection.execute(
        update(Image)
        .where(Image.id == image.id, Image.isolation_starts == image.isolation_starts + 1, owned)
        .values(isolation_starts=image.isolation_starts)
    )


def claim_unhinted_chunks(
    connection: Connection, *, urgent: bool, hint_after: float, queue_is_empty: bool, limit: int
) -> list[int]:
    """Mark the chunks that need a hint as hinted, so that two sweepers never take the same chunk.

    A chunk needs a hint in three cases: it was never hinted; its lease has expired since the last hint; or the last
    hint is lost. A hint is lost when it is older than ``hint_after`` and the queue is empty, or a chunk that was hinted
    that much later has been claimed. In all other cases the chunk waits for its turn, and a second message would only
    make the queue longer.

    Args:
        urgent: for urgent jobs, or for the others.
        hint_after: seconds until an unanswered hint counts as lost.
        queue_is_empty: whether the broker's queue for these jobs is empty.
        limit: greatest number of chunks.

    Returns:
        Chunk ids in ascending order. Above the limit, chunks that were never hinted come first, then the oldest hints.
    """
    stale = Chunk.hinted_at < db_now(-hint_after)
    lost = stale if queue_is_empty else and_(stale, Chunk.hinted_at < _lost_before(connection, urgent, hint_after))
    waits = Chunk.status == ChunkStatus.WAITING
    expired = and_(Chunk.status == ChunkStatus.LEASED, Chunk.lease_expires_at < db_now())
    unhinted = or_(Chunk.hinted_at.is_(None), and_(expired, Chunk.hinted_at < Chunk.lease_expires_at))
    chosen = (
        select(Chunk.id)
        .join(Job, Job.id == Chunk.job_id)
        .where(Job.urgent == urgent, is_workable(), or_(waits, expired), or_(unhinted, lost))
        # By age of the hint: by id alone, a job that no worker can score would block the jobs after it.
        .order_by(Chunk.hinted_at.asc().nulls_first(), Chunk.id)
        .limit(limit)
        .with_for_update(of=Chunk, skip_locked=True)
    )
    # Fetch the ids first: a planner may run a subquery with LIMIT more than once.
    ids = list(connection.scalars(chosen))
    return mark_hinted(connection, ids)


def _lost_before(connection: Connection, urgent: bool, hint_after: float) -> datetime:
    """Hints older than this are lost: the queue keeps its order, and a later hint has reached a worker.

    Only jobs that can be claimed are asked, so that the cost does not grow with the history. For each, both subqueries
    read the end of an index.
    """
    done, leased = (
        select(func.max(Chunk.hinted_at))
        .where(Chunk.job_id == Job.id, Chunk.status == status, *conditions)
        .correlate(Job)
        .scalar_subquery()
        for status, conditions in (
            (ChunkStatus.DONE, ()),
            (ChunkStatus.LEASED, (Chunk.lease_expires_at >= db_now(),)),
        )
    )
    reached = select(done, leased).where(Job.urgent == urgent, is_workable())
    newest = max((at for row in connection.execute(reached) for at in row if at is not None), default=None)
    return newest - timedelta(seconds=hint_after) if newest is not None else datetime.min.replace(tzinfo=UTC)


def mark_hinted(connection: Connection, chunk_ids: Sequence[int]) -> list[int]:
    """Record that hints for these chunks are about to be sent. Returns the ids in ascending order."""
    if chunk_ids:
        connection.execute(update(Chunk).where(Chunk.id.in_(chunk_ids)).values(hinted_at=db_now()))
    return sorted(chunk_ids)


def jobs_of_chunks(connection: Connection, chunk_ids: Sequence[int]) -> dict[int, int]:
    """The job of each chunk."""
    rows = connection.execute(select(Chunk.id, Chunk.job_id).where(Chunk.id.in_(chunk_ids)).order_by(Chunk.id))
    return dict(rows.tuples().all())


def unmark_hinted(connection: Connection, chunk_ids: Sequence[int]) -> None:
    """Record that the hints were not sent, so that the next sweep takes these chunks again."""
    connection.execute(update(Chunk).where(Chunk.id.in_(chunk_ids)).values(hinted_at=None))


def is_free() -> ColumnElement[bool]:
    """Condition: no worker has the chunk, or its lease has expired."""
    return or_(
        Chunk.status == ChunkStatus.WAITING,
        and_(Chunk.status == ChunkStatus.LEASED, Chunk.lease_expires_at < db_now()),
    )


def _owned(claim: Claim) -> ColumnElement[bool]:
    return and_(Chunk.id == claim.chunk_id, Chunk.owner == claim.owner, Chunk.status == ChunkStatus.LEASED)
