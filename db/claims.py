"""Who works on which chunk: claims, leases, fencing, and the chunks that nobody works on."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, exists, func, or_, select, update

from db.jobs import CLAIMABLE
from db.models import Chunk, Image, Job, ModelBundle
from db.status import ChunkStatus, ImageStatus, JobStatus
from db.types import db_now


class LeaseLostError(Exception):
    """Another worker owns the chunk by now, or the job was stopped: nothing of this attempt may be written."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A chunk in a worker's hands. ``owner`` is unique to the claim, so it fences every later write."""

    chunk_id: int
    job_id: int
    owner: str
    attempt: int

    @property
    def careful(self) -> bool:
        """Whether an earlier attempt ended without a word, so that each image is announced before it is touched."""
        return self.attempt > 1


@dataclass(frozen=True, kw_only=True)
class ChunkJob:
    """What a worker must know of a chunk's job before it claims the chunk."""

    job_id: int
    root: str
    bundle_id: int
    bundle_sha256: str
    policy: str
    threshold: float
    borderline_from: float
    force: bool


@dataclass(frozen=True, kw_only=True)
class WaitingImage:
    """An image of a chunk that has not ended."""

    id: int
    path: str
    size_bytes: int | None
    modified_ns: int | None
    careful_starts: int


def job_of_chunk(connection: Connection, chunk_id: int) -> ChunkJob | None:
    """The job that a claimable chunk belongs to, or None when there is nothing to claim."""
    row = connection.execute(
        select(
            Job.id.label("job_id"),
            Job.root,
            Job.bundle_id,
            ModelBundle.sha256.label("bundle_sha256"),
            Job.policy,
            Job.threshold,
            Job.borderline_from,
            Job.force,
        )
        .join(Chunk, Chunk.job_id == Job.id)
        .join(ModelBundle, ModelBundle.id == Job.bundle_id)
        .where(Chunk.id == chunk_id, _free(), Job.status.in_(CLAIMABLE))
    ).mappings()
    return next((ChunkJob(**values) for values in row), None)


def claim_chunk(connection: Connection, chunk_id: int, owner: str, lease_seconds: float) -> Claim | None:
    """Take a chunk that is waiting or whose lease has run out. Commit before reading a byte.

    Args:
        chunk_id: from a hint; hints may be late, doubled or wrong.
        owner: unique to this claim.
        lease_seconds: how long the chunk is this worker's without a renewal.

    Returns:
        The claim, or None when the chunk is done, someone else's, or its job takes no work.
    """
    claimable = exists().where(Job.id == Chunk.job_id, Job.status.in_(CLAIMABLE))
    row = connection.execute(
        update(Chunk)
        .where(Chunk.id == chunk_id, _free(), claimable)
        .values(
            status=ChunkStatus.LEASED,
            attempt=Chunk.attempt + 1,
            owner=owner,
            lease_expires_at=db_now(lease_seconds),
        )
        .returning(Chunk.job_id, Chunk.attempt)
    ).one_or_none()
    if row is None:
        return None
    connection.execute(
        update(Job).where(Job.id == row.job_id, Job.status == JobStatus.QUEUED).values(status=JobStatus.RUNNING)
    )
    connection.execute(update(Job).where(Job.id == row.job_id, Job.started_at.is_(None)).values(started_at=db_now()))
    return Claim(chunk_id=chunk_id, job_id=row.job_id, owner=owner, attempt=row.attempt)


def renew_lease(connection: Connection, claim: Claim, lease_seconds: float) -> None:
    """Prove ownership and extend the lease; the first statement of every transaction that writes results.

    Raises:
        LeaseLostError: the chunk is not this claim's any more, or its job is paused, cancelled or gone.
    """
    claimable = exists().where(Job.id == Chunk.job_id, Job.status.in_(CLAIMABLE))
    renewed = connection.execute(
        update(Chunk).where(_owned(claim), claimable).values(lease_expires_at=db_now(lease_seconds))
    )
    if renewed.rowcount != 1:
        raise LeaseLostError(f"chunk {claim.chunk_id} is not in the hands of attempt {claim.attempt} any more")


def release_chunk(connection: Connection, claim: Claim, *, blameless: bool) -> None:
    """Hand a chunk back unfinished. Does nothing when it is someone else's by now.

    Args:
        claim: to give up.
        blameless: the worker was asked to stop, so this attempt does not count and the next need not be careful.
    """
    connection.execute(
        update(Chunk)
        .where(_owned(claim))
        .values(
            status=ChunkStatus.WAITING,
            attempt=Chunk.attempt - 1 if blameless else Chunk.attempt,
            owner=None,
            lease_expires_at=None,
            hinted_at=None,
        )
    )


def close_chunk(connection: Connection, claim: Claim) -> bool:
    """Mark a chunk done, if it is this claim's and each of its images has ended.

    Returns:
        Whether it was closed.
    """
    waiting = exists().where(Image.chunk_id == Chunk.id, Image.status == ImageStatus.WAITING)
    closed = connection.execute(
        update(Chunk).where(_owned(claim), ~waiting).values(status=ChunkStatus.DONE, owner=None, lease_expires_at=None)
    )
    return closed.rowcount == 1


def waiting_images(connection: Connection, chunk_id: int) -> list[WaitingImage]:
    """The images of a chunk that have not ended, in the order of submission."""
    rows = connection.execute(
        select(Image.id, Image.path, Image.size_bytes, Image.modified_ns, Image.careful_starts)
        .where(Image.chunk_id == chunk_id, Image.status == ImageStatus.WAITING)
        .order_by(Image.id)
    ).mappings()
    return [WaitingImage(**row) for row in rows]


def mark_careful_start(connection: Connection, image: WaitingImage) -> None:
    """Leave the breadcrumb: this image is about to be touched in careful mode. Safe to run again."""
    # Not one more than the row has: a commit whose answer was lost is tried again, and would count two deaths.
    connection.execute(update(Image).where(Image.id == image.id).values(careful_starts=image.careful_starts + 1))


def withdraw_careful_start(connection: Connection, image_id: int) -> None:
    """Take the breadcrumb up again: the attempt ended without an outcome, but not by a death."""
    connection.execute(
        update(Image)
        .where(Image.id == image_id, Image.careful_starts > 0)
        .values(careful_starts=Image.careful_starts - 1)
    )


def withdraw_unsure_start(connection: Connection, claim: Claim, image: WaitingImage) -> None:
    """Take up a breadcrumb of which nobody knows whether it was left: the answer to its commit may have been lost.

    Only one more than there were before is this claim's, and only while the chunk is: an older one stands for a death,
    and one of another claim may yet.
    """
    owned = exists().where(_owned(claim))
    connection.execute(
        update(Image)
        .where(Image.id == image.id, Image.careful_starts == image.careful_starts + 1, owned)
        .values(careful_starts=image.careful_starts)
    )


def take_forgotten(
    connection: Connection, *, urgent: bool, hint_after: float, queue_is_empty: bool, limit: int
) -> list[int]:
    """Chunks that need a hint, marked as hinted by this statement, so that two sweepers never take the same one.

    A chunk needs one when it was never hinted, when its lease has run out since its last hint, or when that hint must
    have been lost: it is older than ``hint_after``, and the queue is empty, or a chunk that was hinted so much later
    has been claimed already. Otherwise a waiting chunk may just wait for its turn, and a second message would only make
    the queue longer, for as long as no worker is there.

    Args:
        urgent: of which jobs.
        hint_after: seconds that a hint is given to be found.
        queue_is_empty: what the broker says of the queue of these jobs.
        limit: greatest number of chunks.

    Returns:
        Chunk ids in order; of more than the limit those that were never hinted, then those hinted longest ago.
    """
    stale = Chunk.hinted_at < db_now(-hint_after)
    lost = stale if queue_is_empty else and_(stale, Chunk.hinted_at < _overtaken_before(connection, urgent, hint_after))
    waits = Chunk.status == ChunkStatus.WAITING
    expired = and_(Chunk.status == ChunkStatus.LEASED, Chunk.lease_expires_at < db_now())
    unhinted = or_(Chunk.hinted_at.is_(None), and_(expired, Chunk.hinted_at < Chunk.lease_expires_at))
    chosen = (
        select(Chunk.id)
        .join(Job, Job.id == Chunk.job_id)
        .where(Job.urgent == urgent, Job.status.in_(CLAIMABLE), or_(waits, expired), or_(unhinted, lost))
        # In turn: by number alone, the chunks of a job that no worker can score would keep a younger job's from theirs.
        .order_by(Chunk.hinted_at.asc().nulls_first(), Chunk.id)
        .limit(limit)
        .with_for_update(of=Chunk, skip_locked=True)
    )
    # Materialised first: a planner may run a subquery with LIMIT more than once.
    ids = list(connection.scalars(chosen))
    return mark_hinted(connection, ids)


def _overtaken_before(connection: Connection, urgent: bool, hint_after: float) -> datetime:
    """Hints older than this were overtaken: the queue keeps its order, and one sent later has reached a worker."""
    reached = (
        select(func.max(Chunk.hinted_at))
        .join(Job, Job.id == Chunk.job_id)
        .where(
            Job.urgent == urgent,
            or_(
                Chunk.status == ChunkStatus.DONE,
                and_(Chunk.status == ChunkStatus.LEASED, Chunk.lease_expires_at >= db_now()),
            ),
        )
    )
    newest = connection.execute(reached).scalar_one()
    return newest - timedelta(seconds=hint_after) if newest is not None else datetime.min.replace(tzinfo=UTC)


def mark_hinted(connection: Connection, chunk_ids: Sequence[int]) -> list[int]:
    """Record that messages about these chunks are about to be sent; returns the ids in order."""
    if chunk_ids:
        connection.execute(update(Chunk).where(Chunk.id.in_(chunk_ids)).values(hinted_at=db_now()))
    return sorted(chunk_ids)


def unmark_hinted(connection: Connection, chunk_ids: Sequence[int]) -> None:
    """The messages could not be sent: let the next sweep take these chunks again."""
    connection.execute(update(Chunk).where(Chunk.id.in_(chunk_ids)).values(hinted_at=None))


def _free() -> ColumnElement[bool]:
    return or_(
        Chunk.status == ChunkStatus.WAITING,
        and_(Chunk.status == ChunkStatus.LEASED, Chunk.lease_expires_at < db_now()),
    )


def _owned(claim: Claim) -> ColumnElement[bool]:
    return and_(Chunk.id == claim.chunk_id, Chunk.owner == claim.owner, Chunk.status == ChunkStatus.LEASED)
