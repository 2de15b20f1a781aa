"""Totals of outcomes, kept for each chunk and each group of chunks, so that a look at a job counts no rows.

The totals of a chunk hold unless a worker has the chunk; then the few rows of its images are counted. They are written,
never incremented, by the transaction that closes, releases or reopens the chunk. When all chunks of a group are done,
the group gets the sum of their totals and is settled; a claim unsettles it. So a look at a job reads one row for each
settled group, the chunks of the one or two groups that workers are in, and the rows of the chunks that they have.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, String, cast, exists, func, insert, or_, select, update

from db.models import Chunk, ChunkGroup, Image, OutcomeTotals, Prediction
from db.status import ChunkStatus, FailureCode, ImageStatus, TriageFlag, UngradableReason

#: Chunks of a group. A job of ten million images in chunks of 128 has 306 groups.
GROUP_CHUNKS = 256
#: Bins of equal width from 0 to 1 in the histogram of calibrated probabilities.
HISTOGRAM_BINS = 50
#: Statuses of a chunk that is not done. Named, because "not done" would read every done chunk of the job.
OPEN = (ChunkStatus.WAITING, ChunkStatus.LEASED)
#: Ids in one query: PostgreSQL takes 65,535 bound values, SQLite 32,766.
_IDS_PER_QUERY = 1_000
#: Columns with a number, and columns with numbers by name or bin.
_NUMBERS = ("scored", "ungradable", "failed", "high_risk", "borderline", "lower_priority", "reused")
_DETAILS = ("failure_codes", "ungradable_reasons", "histogram")


@dataclass(kw_only=True)
class Totals:
    """Outcomes of some images. The fields are the columns of `db.models.OutcomeTotals`."""

    scored: int = 0
    ungradable: int = 0
    failed: int = 0
    high_risk: int = 0
    borderline: int = 0
    lower_priority: int = 0
    reused: int = 0
    last_completed_at: datetime | None = None
    failure_codes: dict[FailureCode, int] = field(default_factory=dict)
    ungradable_reasons: dict[UngradableReason, int] = field(default_factory=dict)
    histogram: list[int] = field(default_factory=lambda: [0] * HISTOGRAM_BINS)

    @property
    def completed(self) -> int:
        """Images with an outcome."""
        return self.scored + self.ungradable + self.failed

    def add(self, other: Any) -> None:
        """Add the totals of other images, or a row with all these columns."""
        self.add_numbers(other)
        self.add_codes(other)
        if other.histogram is not None:
            self.histogram = [a + b for a, b in zip(self.histogram, other.histogram, strict=True)]

    def add_numbers(self, row: Any) -> None:
        """Add the numbers alone, and keep the newest time."""
        self.scored += row.scored
        self.ungradable += row.ungradable
        self.failed += row.failed
        self.high_risk += row.high_risk
        self.borderline += row.borderline
        self.lower_priority += row.lower_priority
        self.reused += row.reused
        newest = row.last_completed_at
        if newest is not None and (self.last_completed_at is None or newest > self.last_completed_at):
            self.last_completed_at = newest

    def add_codes(self, row: Any) -> None:
        """Add the failure codes and the ungradable reasons alone."""
        for name, number in (row.failure_codes or {}).items():
            code = FailureCode(name)
            self.failure_codes[code] = self.failure_codes.get(code, 0) + number
        for name, number in (row.ungradable_reasons or {}).items():
            reason = UngradableReason(name)
            self.ungradable_reasons[reason] = self.ungradable_reasons.get(reason, 0) + number

    def count(self, row: Row[Any]) -> None:
        """Count one image: a row of `image_outcomes`."""
        if row.status == ImageStatus.WAITING:
            return
        if self.last_completed_at is None or (row.completed_at or self.last_completed_at) > self.last_completed_at:
            self.last_completed_at = row.completed_at
        if row.status == ImageStatus.SCORED:
            self.scored += 1
            if row.flag is None:
                # Without its prediction. `dermq reconcile` says so.
                return
            self.reused += bool(row.reused)
            self.high_risk += row.flag == TriageFlag.HIGH_RISK
            self.borderline += row.flag == TriageFlag.BORDERLINE
            self.lower_priority += row.flag == TriageFlag.LOWER_PRIORITY
            self.histogram[histogram_bin(row.probability)] += 1
        elif row.status == ImageStatus.UNGRADABLE:
            self.ungradable += 1
            if row.ungradable_reason is not None:
                reason = UngradableReason(row.ungradable_reason)
                self.ungradable_reasons[reason] = self.ungradable_reasons.get(reason, 0) + 1
        else:
            self.failed += 1
            if row.failure_code is not None:
                code = FailureCode(row.failure_code)
                self.failure_codes[code] = self.failure_codes.get(code, 0) + 1

    def values(self) -> dict[str, Any]:
        """Values of the columns."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            **values,
            "failure_codes": {str(code): number for code, number in self.failure_codes.items()} or None,
            "ungradable_reasons": {str(code): number for code, number in self.ungradable_reasons.items()} or None,
            "histogram": self.histogram if any(self.histogram) else None,
        }


def histogram_bin(probability: float) -> int:
    """Index of the bin that holds a probability. The last bin includes 1."""
    return min(int(probability * HISTOGRAM_BINS), HISTOGRAM_BINS - 1)


def group_for_chunk(connection: Connection, job_id: int, images: int) -> int:
    """Id of the group for the next chunk of a job, which then counts the chunk. The submitter alone adds chunks."""
    # A new chunk has no outcome, so a settled group stays true.
    newest = select(func.max(ChunkGroup.id)).where(ChunkGroup.job_id == job_id).scalar_subquery()
    room = (
        update(ChunkGroup)
        .where(ChunkGroup.id == newest, ChunkGroup.chunks < GROUP_CHUNKS)
        .values(chunks=ChunkGroup.chunks + 1, images=ChunkGroup.images + images)
        .returning(ChunkGroup.id)
    )
    group_id = connection.execute(room).scalar_one_or_none()
    if group_id is not None:
        return group_id
    return connection.execute(
        insert(ChunkGroup).values(job_id=job_id, chunks=1, images=images, settled=True).returning(ChunkGroup.id)
    ).scalar_one()


def image_outcomes(connection: Connection, chunk_ids: Sequence[int]) -> Iterable[Row[Any]]:
    """The images of chunks with what `Totals.count` counts."""
    query = (
        select(
            Image.chunk_id,
            Image.job_id,
            Image.status,
            Image.failure_code,
            Image.ungradable_reason,
            Image.completed_at,
            Prediction.flag,
            Prediction.reused,
            Prediction.probability,
        )
        .outerjoin(Prediction, Prediction.image_id == Image.id)
        .where(Image.chunk_id.in_(chunk_ids))
    )
    return connection.execute(query)


def write_chunk_totals(connection: Connection, chunk_ids: Sequence[int]) -> None:
    """Count the images of chunks that no worker has, or that the caller holds, and write their totals."""
    for start in range(0, len(chunk_ids), _IDS_PER_QUERY):
        part = chunk_ids[start : start + _IDS_PER_QUERY]
        found = {chunk_id: Totals() for chunk_id in part}
        for row in image_outcomes(connection, part):
            found[row.chunk_id].count(row)
        for chunk_id, totals in found.items():
            connection.execute(update(Chunk).where(Chunk.id == chunk_id).values(**totals.values()))


def unsettle(connection: Connection, group_id: int) -> None:
    """Let the totals of the group's chunks count, because a worker has claimed one of them."""
    connection.execute(
        update(ChunkGroup).where(ChunkGroup.id == group_id, ChunkGroup.settled.is_(True)).values(settled=False)
    )


def settle_if_done(connection: Connection, group_id: int) -> None:
    """Settle a group when all its chunks are done. Call it after the transaction that closes a chunk.

    Two workers that close the last two chunks at once do not see each other's uncommitted rows. Each asks again after
    its own commit, so at least one of them sees both.
    """
    open_chunk = select(exists().where(Chunk.group_id == group_id, Chunk.status.in_(OPEN)))
    if connection.execute(open_chunk).scalar_one():
        return
    # A retry that reopens chunks takes the same lock. So look again, in a statement that begins when it is held.
    locked = select(ChunkGroup.settled).where(ChunkGroup.id == group_id).with_for_update()
    settled = connection.execute(locked).scalar_one_or_none()
    if settled is False and not connection.execute(open_chunk).scalar_one():
        _settle(connection, group_id)


def settle_job(connection: Connection, job_id: int) -> None:
    """Settle every group of a job that has no chunk to do. The caller holds a lock on the job's row."""
    unsettled = select(ChunkGroup.id).where(ChunkGroup.job_id == job_id, ChunkGroup.settled.is_(False))
    for group_id in list(connection.scalars(unsettled)):
        _settle(connection, group_id)


def refresh_groups(connection: Connection, chunk_ids: Sequence[int]) -> None:
    """Write the totals of the settled groups of these chunks anew, after the totals of the chunks have changed."""
    for start in range(0, len(chunk_ids), _IDS_PER_QUERY):
        part = select(Chunk.group_id).where(Chunk.id.in_(chunk_ids[start : start + _IDS_PER_QUERY]))
        # The others, too: a worker that settles one at this moment must see the chunks that are reopened here.
        locked = (
            select(ChunkGroup.id, ChunkGroup.settled)
            .where(ChunkGroup.id.in_(part))
            .order_by(ChunkGroup.id)
            .with_for_update()
        )
        for group_id, settled in connection.execute(locked).all():
            if settled:
                _settle(connection, group_id)


def _settle(connection: Connection, group_id: int) -> None:
    totals = Totals()
    for row in connection.execute(select(*_columns(Chunk, _DETAILS)).where(Chunk.group_id == group_id)):
        totals.add(row)
    connection.execute(update(ChunkGroup).where(ChunkGroup.id == group_id).values(**totals.values(), settled=True))


@dataclass(kw_only=True)
class JobTotals(Totals):
    """Outcomes of a job's images, and their number."""

    submitted: int = 0


def totals_of_jobs(connection: Connection, job_ids: Collection[int], *, details: bool = False) -> dict[int, JobTotals]:
    """Totals of jobs in at most four queries, whatever their number and size.

    Args:
        job_ids: the jobs.
        details: also failure codes and ungradable reasons.

    Returns:
        The totals by job. A job without images has totals of zero.
    """
    found = {job_id: JobTotals() for job_id in job_ids}
    chosen = ChunkGroup.job_id.in_(found)
    images = select(ChunkGroup.job_id, func.sum(ChunkGroup.images)).where(chosen).group_by(ChunkGroup.job_id)
    for job_id, number in connection.execute(images):
        found[job_id].submitted = int(number)
    for table, conditions in _holding(job_ids):
        sums = (func.sum(getattr(table, name)).label(name) for name in _NUMBERS)
        newest = func.max(table.last_completed_at).label("last_completed_at")
        for row in connection.execute(select(table.job_id, *sums, newest).where(*conditions).group_by(table.job_id)):
            found[row.job_id].add_numbers(row)
        if details:
            codes = (table.failure_codes, table.ungradable_reasons)
            some = or_(*(column.is_not(None) for column in codes))
            for row in connection.execute(select(table.job_id, *codes).where(*conditions, some)):
                found[row.job_id].add_codes(row)
    for row in _leased_outcomes(connection, job_ids):
        found[row.job_id].count(row)
    return found


def score_histogram(connection: Connection, job_id: int) -> list[int]:
    """Scored images of a job by calibrated probability, in `HISTOGRAM_BINS` bins of equal width from 0 to 1."""
    rows = [[0] * HISTOGRAM_BINS]
    for table, conditions in _holding([job_id]):
        # As text: parsing by the column's type takes four times as long.
        written = cast(table.histogram, String)
        rows += map(json.loads, connection.scalars(select(written).where(*conditions, table.histogram.is_not(None))))
    leased = Totals()
    for row in _leased_outcomes(connection, [job_id]):
        leased.count(row)
    return [sum(column) for column in zip(*rows, leased.histogram, strict=True)]


def _holding(
    job_ids: Collection[int],
) -> tuple[tuple[type[ChunkGroup] | type[Chunk], tuple[ColumnElement[bool], ...]], ...]:
    """The rows whose totals hold: settled groups, and the chunks of the others that no worker has."""
    chosen = ChunkGroup.job_id.in_(job_ids)
    unsettled = select(ChunkGroup.id).where(chosen, ChunkGroup.settled.is_(False))
    # Named, so that a planner does not look for "not leased" among all chunks of the job.
    unleased = Chunk.status.in_((ChunkStatus.WAITING, ChunkStatus.DONE))
    return (ChunkGroup, (chosen, ChunkGroup.settled.is_(True))), (Chunk, (Chunk.group_id.in_(unsettled), unleased))


def _leased_outcomes(connection: Connection, job_ids: Collection[int]) -> Iterable[Row[Any]]:
    leased = select(Chunk.id).where(Chunk.job_id.in_(job_ids), Chunk.status == ChunkStatus.LEASED)
    chunks = list(connection.scalars(leased))
    return image_outcomes(connection, chunks) if chunks else ()


def _columns(table: type[OutcomeTotals], more: Sequence[str]) -> list[Any]:
    return [getattr(table, name) for name in (*_NUMBERS, "last_completed_at", *more)]
