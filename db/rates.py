"""How fast images are scored: lately, by job and by worker; and over the life of a job."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, case, func, or_, select

from db.models import Chunk, ChunkGroup, Image, Job, Prediction
from db.status import ChunkStatus, ImageStatus, JobStatus
from db.types import db_now

#: Seconds that count as lately.
RECENT_SECONDS = 300.0
#: Closed chunks of a job that are read for its rate.
_NEWEST = 200
#: Points of a curve.
_POINTS = 60
#: Shortest span of a point, in seconds.
_SHORTEST_SPAN = 0.5
#: Groups up to which a curve is made from chunks: some 2,000.
_FEW_GROUPS = 8


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one worker did at one chunk: new inferences, without images whose output was reused.

    Args:
        job_id: the job.
        worker: host and process.
        begun: of the claim.
        ended: of the newest outcome.
        images: with a new outcome.
        outcomes: images with an outcome, reused ones too.
    """

    job_id: int
    worker: str
    begun: datetime
    ended: datetime
    images: int
    outcomes: int


def recent_work(connection: Connection, job_ids: Collection[int] | None = None) -> tuple[datetime, list[Work]]:
    """The database's time, and the work of the last `RECENT_SECONDS`: closed chunks, and those that workers have.

    Of each job, the newest `_NEWEST` closed chunks count, so that the cost does not grow with the number of workers. A
    chunk that was claimed several times counts from its last claim.

    Args:
        connection: to the database.
        job_ids: only of these jobs. None: of all.
    """
    now = connection.execute(select(db_now())).scalar_one()
    since = now - timedelta(seconds=RECENT_SECONDS)
    working = or_(Job.status.in_((JobStatus.RUNNING, JobStatus.SUBMITTING)), Job.finished_at >= since)
    jobs = select(Job.id).where(working)
    if job_ids is not None:
        jobs = jobs.where(Job.id.in_(job_ids))
    outcomes = Chunk.scored + Chunk.ungradable + Chunk.failed
    rows: list[Any] = []
    for job_id in list(connection.scalars(jobs)):
        rows += connection.execute(
            select(
                Chunk.job_id,
                Chunk.closed_by.label("worker"),
                Chunk.claimed_at,
                Chunk.last_completed_at,
                (outcomes - Chunk.reused).label("images"),
                outcomes.label("outcomes"),
            )
            .where(Chunk.job_id == job_id, Chunk.last_completed_at >= since, Chunk.status == ChunkStatus.DONE)
            .order_by(Chunk.last_completed_at.desc())
            .limit(_NEWEST)
        )
    held = (
        select(
            Chunk.job_id,
            Chunk.owner.label("worker"),
            Chunk.claimed_at,
            func.max(Image.completed_at).label("last_completed_at"),
            func.sum(case((func.coalesce(Prediction.reused, False), 0), else_=1)).label("images"),
            func.count().label("outcomes"),
        )
        .join(Image, Image.chunk_id == Chunk.id)
        .outerjoin(Prediction, Prediction.image_id == Image.id)
        .where(Chunk.status == ChunkStatus.LEASED, Image.completed_at >= Chunk.claimed_at)
        .group_by(Chunk.id, Chunk.job_id, Chunk.owner, Chunk.claimed_at)
    )
    if job_ids is not None:
        held = held.where(Chunk.job_id.in_(job_ids))
    rows += connection.execute(held)
    return now, [
        Work(
            job_id=row.job_id,
            worker=":".join((row.worker or "").split(":")[:2]),
            begun=row.claimed_at,
            ended=row.last_completed_at,
            images=row.images,
            outcomes=row.outcomes,
        )
        for row in rows
        if row.claimed_at is not None and row.last_completed_at >= since
    ]


def images_per_second(works: Iterable[Work], now: datetime, *, reused: bool = False) -> float | None:
    """Images per second of the time in which somebody worked. None for less than a second of it.

    Args:
        works: of one job or one worker.
        now: the database's time.
        reused: whether images count whose output was reused.

    Times without any work, such as a stop of all workers, do not count; nor does what lies before the last
    `RECENT_SECONDS`.
    """
    since = now - timedelta(seconds=RECENT_SECONDS)
    images, spans = 0.0, []
    for work in works:
        length = (work.ended - work.begun).total_seconds()
        begun = max(work.begun, since)
        inside = (work.ended - begun).total_seconds()
        images += (work.outcomes if reused else work.images) * (inside / length if length > 0 else 1.0)
        spans.append((begun, work.ended))
    seconds, reached = 0.0, since
    for begun, ended in sorted(spans):
        seconds += max(0.0, (ended - max(begun, reached)).total_seconds())
        reached = max(reached, ended)
    return images / seconds if seconds >= 1 else None


@dataclass(frozen=True, kw_only=True)
class RecentRate:
    """Images per second lately: newly scored ones, and all, which tells how long the rest will take."""

    new: float
    all: float


def rates_of_jobs(now: datetime, works: Iterable[Work]) -> dict[int, RecentRate]:
    """The recent rate of each job with work."""
    groups: dict[int, list[Work]] = defaultdict(list)
    for work in works:
        groups[work.job_id].append(work)
    return {job_id: rate for job_id, own in groups.items() if (rate := _rate(own, now)) is not None}


def rates_of_workers(now: datetime, works: Iterable[Work]) -> dict[str, RecentRate]:
    """The recent rate of each worker with work: of a host and process."""
    groups: dict[str, list[Work]] = defaultdict(list)
    for work in works:
        groups[work.worker].append(work)
    return {worker: rate for worker, own in groups.items() if (rate := _rate(own, now)) is not None}


def _rate(works: Sequence[Work], now: datetime) -> RecentRate | None:
    new, every = (images_per_second(works, now, reused=reused) for reused in (False, True))
    return None if new is None or every is None else RecentRate(new=new, all=every)


@dataclass(frozen=True, kw_only=True)
class RatePoint:
    """Images per second in a span of a job's life.

    Args:
        at: end of the span.
        images_per_second: images with an outcome, reused ones too, by the length of the span.
    """

    at: datetime
    images_per_second: float


def rate_over_time(connection: Connection, job_id: int) -> list[RatePoint]:
    """The rate of a job from its first claim to its newest outcome, in at most `_POINTS` equal spans.

    Empty before an outcome.
    The outcomes of a chunk count as spread over the time from its claim to its newest outcome; for a job of many
    chunks, those of a group of chunks over the time since the group before.
    """
    started = connection.execute(select(Job.started_at).where(Job.id == job_id)).scalar_one_or_none()
    if started is None:
        return []
    groups = connection.execute(select(func.count()).where(ChunkGroup.job_id == job_id)).scalar_one()
    parts = _parts_of_chunks(connection, job_id) if groups <= _FEW_GROUPS else _parts_of_groups(connection, job_id)
    return _curve([part for part in parts if part[1] > started], started)


def _parts_of_chunks(connection: Connection, job_id: int) -> list[tuple[datetime | None, datetime, int]]:
    rows = connection.execute(
        select(Chunk.claimed_at, Chunk.last_completed_at, Chunk.scored + Chunk.ungradable + Chunk.failed).where(
            Chunk.job_id == job_id, Chunk.last_completed_at.is_not(None), Chunk.status != ChunkStatus.LEASED
        )
    )
    held = connection.execute(
        select(Chunk.claimed_at, func.max(Image.completed_at), func.count())
        .join(Image, Image.chunk_id == Chunk.id)
        .where(Chunk.job_id == job_id, Chunk.status == ChunkStatus.LEASED, Image.status != ImageStatus.WAITING)
        .group_by(Chunk.id, Chunk.claimed_at)
    )
    found: list[tuple[datetime | None, datetime, int]] = []
    for begun, ended, images in [*rows, *held]:
        if ended is not None:
            found.append((begun, ended, images))
    return found


def _parts_of_groups(connection: Connection, job_id: int) -> list[tuple[datetime | None, datetime, int]]:
    outcomes = ChunkGroup.scored + ChunkGroup.ungradable + ChunkGroup.failed
    rows = connection.execute(
        select(ChunkGroup.last_completed_at, outcomes)
        .where(ChunkGroup.job_id == job_id, ChunkGroup.settled.is_(True), ChunkGroup.last_completed_at.is_not(None))
        .order_by(ChunkGroup.last_completed_at)
    ).all()
    found: list[tuple[datetime | None, datetime, int]] = []
    before: datetime | None = None
    for ended, images in rows:
        if ended is not None:
            found.append((before, ended, images))
        before = ended
    return found


def _curve(parts: Sequence[tuple[datetime | None, datetime, int]], started: datetime) -> list[RatePoint]:
    if not parts:
        return []
    last = max(ended for _, ended, _ in parts)
    length = (last - started).total_seconds()
    points = max(1, min(_POINTS, int(length / _SHORTEST_SPAN)))
    width = max(length / points, 0.01)
    images = [0.0] * points
    for begun, ended, number in parts:
        first = max(0.0, (max(begun or started, started) - started).total_seconds() / width)
        end = min(float(points), (ended - started).total_seconds() / width)
        if end - first < 1e-9:
            images[min(int(end), points - 1)] += number
            continue
        for index in range(int(first), min(int(end) + 1, points)):
            inside = min(end, index + 1) - max(first, index)
            images[index] += number * max(0.0, inside) / (end - first)
    return [
        RatePoint(at=started + timedelta(seconds=width * (index + 1)), images_per_second=value / width)
        for index, value in enumerate(images)
    ]
