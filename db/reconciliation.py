"""Reconciliation: checks that every image of a job was counted exactly once, and that rows and totals agree.

It reads the job chunk by chunk, on one snapshot, so that memory does not grow with the job.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Integer, Row, and_, case, cast, func, or_, select

from db.audit import entries_of
from db.jobs import JobView, view_jobs
from db.models import Chunk, ChunkGroup, Image, Prediction
from db.status import AuditAction, ChunkStatus, ImageStatus, JobStatus, TriageFlag
from db.totals import HISTOGRAM_BINS, OPEN, Totals

#: Ids named in a message. The others are counted.
_NAMED = 10
#: Chunks that are read at a time.
_CHUNKS_PER_QUERY = 512
#: Columns of totals that are compared with the rows. Not the time: a retry leaves that of an image it reopened.
_COMPARED = (
    *("scored", "ungradable", "failed", "high_risk", "borderline", "lower_priority", "reused"),
    *("failure_codes", "ungradable_reasons", "histogram"),
)


def find_inconsistencies(
    connection: Connection, job_id: int, on_progress: Callable[[int], None] = lambda images: None
) -> list[str]:
    """Check a job's rows.

    Args:
        job_id: any job.
        on_progress: called with the number of images that were read so far.

    Returns:
        A sentence for each inconsistency, with ids. Empty when the rows are consistent. Waiting images of a job that
        still runs are no inconsistency.
    """
    (job,) = view_jobs(connection, job_id=job_id)
    found: list[str] = []
    if job.interrupted:
        found.append("its submission was interrupted, so images may be missing. Run the same `dermq submit` again")
    checks = _image_checks(job)
    wrong: Counter[str] = Counter()
    chunks = _Chunks()
    images = last = 0
    while page := _page(connection, job_id, last):
        last = page[-1].id
        ids = [chunk.id for chunk in page]
        rows = {row.chunk_id: row for row in connection.execute(_counted(ids, checks))}
        codes, bins = _codes(connection, ids), _bins(connection, ids)
        for chunk in page:
            row = rows.get(chunk.id)
            for number, what in enumerate(checks):
                wrong[what] += int(getattr(row, f"check_{number}")) if row is not None else 0
            chunks.add(chunk, _totals(row, codes[chunk.id], bins[chunk.id]), held=row.images if row is not None else 0)
            images += row.images if row is not None else 0
        on_progress(images)
    wrong["are in a chunk of another job"] = _strays(connection, job_id)
    checks["are in a chunk of another job"] = Chunk.job_id != job_id
    found += [
        f"{number} images {what}: {_named(connection, job_id, checks[what], number)}"
        for what, number in wrong.items()
        if number
    ]
    found += chunks.faults(finished=job.status is JobStatus.FINISHED)
    found += _wrong_groups(connection, job_id, chunks.by_group)
    return found + _differences_from_audit_log(connection, job, present=images, in_chunks=chunks.size)


class _Chunks:
    """The chunks of a job: what is wrong with them, and the sum of their totals by group."""

    def __init__(self) -> None:
        self.size = 0
        self.by_group: dict[int, tuple[list[int], Totals]] = defaultdict(lambda: ([0, 0], Totals()))
        self._faults: dict[str, list[int]] = defaultdict(list)

    def add(self, chunk: Row[Any], counted: Totals, *, held: int) -> None:
        """Compare a chunk with the count of its images."""
        self.size += chunk.size
        if held != chunk.size:
            self._faults["do not hold the number of images that they were made with"].append(chunk.id)
        # While a worker has the chunk, its images are counted instead.
        if chunk.status != ChunkStatus.LEASED and _differs(chunk, counted):
            self._faults["have totals that differ from their images"].append(chunk.id)
        if chunk.status in OPEN:
            self._faults["are not done, but the job is finished"].append(chunk.id)
        numbers, totals = self.by_group[chunk.group_id]
        numbers[0] += 1
        numbers[1] += chunk.size
        totals.add(chunk)

    def faults(self, *, finished: bool) -> list[str]:
        """A sentence for each kind of fault."""
        return [
            f"{len(ids)} chunks {what}: {', '.join(map(str, ids[:_NAMED]))}{_rest(len(ids))}"
            for what, ids in self._faults.items()
            if finished or "finished" not in what
        ]


def _page(connection: Connection, job_id: int, last: int) -> Sequence[Row[Any]]:
    columns = (Chunk.id, Chunk.group_id, Chunk.status, Chunk.size, Chunk.last_completed_at)
    query = (
        select(*columns, *(getattr(Chunk, name) for name in _COMPARED))
        .where(Chunk.job_id == job_id, Chunk.id > last)
        .order_by(Chunk.id)
        .limit(_CHUNKS_PER_QUERY)
    )
    return connection.execute(query).all()


def _image_checks(job: JobView) -> dict[str, ColumnElement[bool]]:
    """Conditions that no image with its prediction may meet, by what is wrong then."""
    predicted = Prediction.id.is_not(None)
    scored = Image.status == ImageStatus.SCORED
    checks = {
        "are scored without a prediction": and_(scored, ~predicted),
        "have a prediction without being scored": and_(~scored, predicted),
        "failed without a code": and_(Image.status == ImageStatus.FAILED, Image.failure_code.is_(None)),
        "are ungradable without a reason": and_(
            Image.status == ImageStatus.UNGRADABLE, Image.ungradable_reason.is_(None)
        ),
        "are in a chunk of this job and belong to another": Image.job_id != job.id,
        "have a prediction that belongs to another job": and_(predicted, _differ(Prediction.job_id, Image.job_id)),
        "were scored with another bundle than the job's": and_(predicted, Prediction.bundle_id != job.bundle_id),
        "have an outcome without a time": and_(Image.status != ImageStatus.WAITING, Image.completed_at.is_(None)),
        "are scored and have a failure code": and_(scored, Image.failure_code.is_not(None)),
        "have a flag that does not follow from their probability": and_(predicted, Prediction.flag != _flag_of(job)),
        "have a prediction without a SHA-256": and_(predicted, func.length(Prediction.image_sha256) != 64),
        "are waiting in a chunk that is done": and_(
            Image.status == ImageStatus.WAITING, Chunk.status == ChunkStatus.DONE
        ),
    }
    if job.status is JobStatus.FINISHED:
        checks["of a finished job have no outcome"] = Image.status == ImageStatus.WAITING
    return checks


def _differ(one: Any, other: Any) -> ColumnElement[bool]:
    return or_(one.is_(None), one != other)


def _flag_of(job: JobView) -> ColumnElement[TriageFlag]:
    return case(
        (Prediction.probability >= job.threshold, TriageFlag.HIGH_RISK),
        (Prediction.probability >= job.borderline_threshold, TriageFlag.BORDERLINE),
        else_=TriageFlag.LOWER_PRIORITY,
    )


def _joined(*columns: Any) -> Any:
    return (
        select(*columns)
        .select_from(Image)
        .join(Chunk, Chunk.id == Image.chunk_id)
        .outerjoin(Prediction, Prediction.image_id == Image.id)
    )


def _number(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.sum(case((condition, 1), else_=0))


def _counted(chunk_ids: Sequence[int], checks: dict[str, ColumnElement[bool]]) -> Any:
    """Numbers of images by chunk: by status, by flag, and those that meet a check."""
    statuses = [
        _number(Image.status == status).label(status.value) for status in ImageStatus if status != ImageStatus.WAITING
    ]
    scored = Image.status == ImageStatus.SCORED
    flags = [
        _number(and_(scored, Prediction.flag == flag)).label(flag.value)
        for flag in TriageFlag
        if flag != TriageFlag.UNGRADABLE
    ]
    reused = _number(and_(scored, Prediction.reused)).label("reused")
    met = [_number(condition).label(f"check_{number}") for number, condition in enumerate(checks.values())]
    columns = (Image.chunk_id, func.count().label("images"), *statuses, *flags, reused, *met)
    return _joined(*columns).where(Image.chunk_id.in_(chunk_ids)).group_by(Image.chunk_id)


def _codes(connection: Connection, chunk_ids: Sequence[int]) -> dict[int, list[Any]]:
    """Numbers of failed and ungradable images by chunk and code."""
    query = (
        select(Image.chunk_id, Image.status, Image.failure_code, Image.ungradable_reason, func.count().label("number"))
        .where(Image.chunk_id.in_(chunk_ids), Image.status.in_((ImageStatus.FAILED, ImageStatus.UNGRADABLE)))
        .group_by(Image.chunk_id, Image.status, Image.failure_code, Image.ungradable_reason)
    )
    found: dict[int, list[Any]] = defaultdict(list)
    for row in connection.execute(query):
        found[row.chunk_id].append(row)
    return found


def _bins(connection: Connection, chunk_ids: Sequence[int]) -> dict[int, list[int]]:
    """Numbers of scored images by chunk and bin of the calibrated probability."""
    scaled = Prediction.probability * HISTOGRAM_BINS
    # SQLite's cast cuts off, PostgreSQL's rounds.
    number = cast(func.floor(scaled) if connection.dialect.name == "postgresql" else scaled, Integer)
    query = (
        select(Image.chunk_id, number.label("bin"), func.count().label("number"))
        .join(Prediction, Prediction.image_id == Image.id)
        .where(Image.chunk_id.in_(chunk_ids), Image.status == ImageStatus.SCORED)
        .group_by(Image.chunk_id, number)
    )
    found: dict[int, list[int]] = defaultdict(lambda: [0] * HISTOGRAM_BINS)
    for row in connection.execute(query):
        found[row.chunk_id][min(row.bin, HISTOGRAM_BINS - 1)] += row.number
    return found


def _totals(row: Row[Any] | None, codes: Sequence[Row[Any]], histogram: list[int]) -> Totals:
    """The totals that a chunk should have."""
    if row is None:
        return Totals()
    totals = Totals(
        scored=int(row.scored),
        ungradable=int(row.ungradable),
        failed=int(row.failed),
        high_risk=int(row.high_risk),
        borderline=int(row.borderline),
        lower_priority=int(row.lower_priority),
        reused=int(row.reused),
        histogram=histogram,
    )
    for code in codes:
        if code.status == ImageStatus.FAILED and code.failure_code is not None:
            totals.failure_codes[code.failure_code] = totals.failure_codes.get(code.failure_code, 0) + code.number
        elif code.status == ImageStatus.UNGRADABLE and code.ungradable_reason is not None:
            reasons = totals.ungradable_reasons
            reasons[code.ungradable_reason] = reasons.get(code.ungradable_reason, 0) + code.number
    return totals


def _differs(row: Row[Any], totals: Totals) -> bool:
    values = totals.values()
    return any(getattr(row, name) != values[name] for name in _COMPARED)


def _wrong_groups(connection: Connection, job_id: int, by_group: dict[int, tuple[list[int], Totals]]) -> list[str]:
    """Groups of chunks whose numbers or, once settled, totals differ from those of their chunks."""
    columns = (ChunkGroup.id, ChunkGroup.chunks, ChunkGroup.images, ChunkGroup.settled)
    query = select(*columns, *(getattr(ChunkGroup, name) for name in _COMPARED)).where(ChunkGroup.job_id == job_id)
    leased = select(Chunk.group_id).where(Chunk.job_id == job_id, Chunk.status == ChunkStatus.LEASED)
    with_worker = set(connection.scalars(leased))
    found: dict[str, list[int | None]] = defaultdict(list)
    seen = set()
    for group in connection.execute(query):
        seen.add(group.id)
        (chunks, images), totals = by_group[group.id]
        if (group.chunks, group.images) != (chunks, images) or (group.settled and _differs(group, totals)):
            found["groups of chunks have totals that differ from their chunks"].append(group.id)
        if group.settled and group.id in with_worker:
            found["groups of chunks count images of a chunk that a worker has"].append(group.id)
    # Their images would be in no count.
    found["groups of chunks belong to no job or to another one"] = [number for number in by_group if number not in seen]
    return [
        f"{len(wrong)} {what}: {', '.join(map(str, wrong[:_NAMED]))}{_rest(len(wrong))}"
        for what, wrong in found.items()
        if wrong
    ]


def _strays(connection: Connection, job_id: int) -> int:
    query = (
        select(func.count())
        .select_from(Image)
        .join(Chunk, Chunk.id == Image.chunk_id)
        .where(Image.job_id == job_id, Chunk.job_id != job_id)
    )
    return connection.execute(query).scalar_one()


def _named(connection: Connection, job_id: int, condition: ColumnElement[bool], number: int) -> str:
    """The first ids of the images that meet a condition."""
    mine = or_(Image.job_id == job_id, Chunk.job_id == job_id)
    ids = connection.scalars(_joined(Image.id).where(mine, condition).order_by(Image.id).limit(_NAMED))
    return ", ".join(map(str, ids)) + _rest(number)


def _rest(number: int) -> str:
    return f" and {number - _NAMED} more" if number > _NAMED else ""


def _differences_from_audit_log(connection: Connection, job: JobView, *, present: int, in_chunks: int) -> list[str]:
    """Whether the job holds as many images as the audit log says were submitted. Deleted rows show nowhere else."""
    found = [] if present == in_chunks else [f"the chunks were made with {in_chunks} images, the job holds {present}"]
    submissions = [entry for entry in entries_of(connection, job.id) if entry.action == AuditAction.SUBMITTED]
    for entry in submissions:
        submitted = json.loads(entry.detail)["images"]
        if submitted != present:
            found.append(f"the audit log says that {submitted:,} images were submitted, the job holds {present:,}")
    # A job that is cancelled during its submission was never submitted.
    unsubmitted = (JobStatus.SUBMITTING, JobStatus.CANCELLED, JobStatus.DELETING)
    if not submissions and job.status not in unsubmitted:
        found.append("the audit log has no entry for its submission")
    return found
