"""What the database costs with jobs of N images: does a look at a job, or a chunk of it, cost more in a large one?

    python benchmarks/scale.py 10000 1000000          SQLite
    python benchmarks/scale.py 1000000 --postgres     a PostgreSQL server of its own

Rows are made up by SQL; nothing is inferred. Each line begins with the name of a step and its milliseconds: the median
of its runs. With several N, they run in turn, and the last number is the ratio of the last to the first. The job is
reconciled first, which shows that the made-up rows are such as dermq writes.
"""

import argparse
import contextlib
import io
import resource
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from running import postgres_url
from sqlalchemy import Connection, Engine, func, insert, select, text, update

from db.audit import append_entry
from db.chunks import chunks_of_job
from db.claims import Claim, claim_chunk, claim_unhinted_chunks, close_chunk, renew_lease, waiting_images
from db.deletion import _delete_part, begin_deletion
from db.job_control import cancel_job
from db.jobs import JobFilter, finish_job_if_done, view_jobs
from db.models import Chunk, ChunkGroup, Image
from db.outcomes import Scored, stored_inferences, write_outcomes
from db.progress import count_images, count_jobs
from db.rates import rate_over_time
from db.reconciliation import find_inconsistencies
from db.schema import migrate
from db.session import open_database, read, transact
from db.status import AuditAction, ChunkStatus, TriageFlag
from db.submission import NewJob, begin_submission, end_submission, record_bundle
from db.totals import group_for_chunk, score_histogram, settle_if_done, settle_job, write_chunk_totals
from db.turns import bundle_for_hint
from db.worklist import outcomes_by_image, outcomes_ranked, unscored_page, worklist_page
from worker.monitor.job_status import describe_jobs, list_jobs, report_job
from worker.output.csv import write_csv

#: Images in a chunk and in a batch: the defaults of the settings.
CHUNK, BATCH = 128, 64
#: Chunks that are left waiting, for the steps that score.
OPEN_CHUNKS = 40
#: Images whose bytes are all the same, for the search for earlier inferences.
COPIES = 20_000
#: Jobs of a list, and images of each but the first.
JOBS, SMALL = 1_000, 200
THRESHOLD, BORDERLINE = 0.5, 0.4
#: Most rows that an SQL statement makes.
_ROWS = 500_000


@dataclass(kw_only=True)
class _Subject:
    """A filled database."""

    database: Engine
    folder: Path
    job: int
    images: int


#: Milliseconds by the name of a step.
Times = dict[str, list[float]]


def main() -> None:
    """Fill a database for each N, time the steps on all of them in turn, print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=int, nargs="+", metavar="N", help="images of the large job, 10,000 or more")
    parser.add_argument("--postgres", action="store_true", help="a PostgreSQL server instead of SQLite")
    arguments = parser.parse_args()
    if min(arguments.images) < 10_000:
        parser.error(f"{min(arguments.images)} images are too few: give 10000 or more")
    with contextlib.ExitStack() as stack:
        subjects = []
        for images in arguments.images:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dermq-scale-")))
            url = stack.enter_context(postgres_url(arguments.postgres)) or f"sqlite:///{folder / 'dermq.db'}"
            subjects.append(prepare(url, images, folder))
        times: list[Times] = [defaultdict(list) for _ in subjects]
        for step, runs in _STEPS:
            # In turn, so that a slow minute of the machine meets all of them.
            for _ in range(runs):
                for subject, found in zip(subjects, times, strict=True):
                    for name, milliseconds in step(subject).items():
                        found[name].append(milliseconds)
        sizes = [_bytes(subject) / (subject.images + JOBS * SMALL) for subject in subjects]
        for subject in subjects:
            subject.database.dispose()
    kind = "PostgreSQL" if arguments.postgres else "SQLite"
    print(f"{kind}, jobs of {' and '.join(f'{images:,}' for images in arguments.images)} images")
    for name, note in NOTES.items():
        medians = [statistics.median(found[name]) for found in times]
        shown = "  ".join(f"{each:10.2f} ms" for each in medians)
        ratio = f"  x {medians[-1] / medians[0]:5.2f}" if len(medians) > 1 else ""
        print(f"{name:<10}{shown}{ratio}  {note}")
    print(f"bytes     {'  '.join(f'{size:10,.0f}   ' for size in sizes)}  an image, with all indexes")
    print(f"memory    {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:10,.0f} MB at most")


def prepare(url: str, images: int, folder: Path) -> _Subject:
    database = open_database(url)
    migrate(database)
    started = time.perf_counter()
    job = _fill(database, images)
    _small_jobs(database)
    print(f"# {images:,} images made up in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return _Subject(database=database, folder=folder, job=job, images=images)


def _new_job(connection: Connection, images: int) -> int:
    bundle = record_bundle(connection, sha256="b" * 64, name="synthetic", version="1")
    new = NewJob(
        root="/archive",
        manifest=None,
        urgent=False,
        bundle_id=bundle,
        policy="youden",
        threshold=THRESHOLD,
        borderline_threshold=BORDERLINE,
    )
    submitter = uuid4().hex
    job = begin_submission(connection, new, submitter, 3600)
    end_submission(connection, job, submitter)
    append_entry(connection, actor="benchmark", action=AuditAction.SUBMITTED, job_id=job, detail={"images": images})
    return job


def _fill(database: Engine, images: int) -> int:
    """A job whose images are scored, but for 1 in 500 that failed and the last chunks, which wait."""
    job = transact(database, lambda c: _new_job(c, images))
    chunks = -(-images // CHUNK)
    done = chunks - OPEN_CHUNKS
    first = transact(database, lambda c: _fill_chunks(c, job, chunks, images))
    numbers = _numbers(":first")
    for start in range(0, images, _ROWS):
        bounds = {
            "first": start,
            "last": min(start + _ROWS, images),
            "job": job,
            "chunk": first,
            "done": done * CHUNK,
            "copies": min(COPIES, images // 2),
        }
        transact(database, lambda c, bounds=bounds: c.execute(text(numbers + _IMAGES), bounds))  # type: ignore[misc]
        transact(database, lambda c, bounds=bounds: c.execute(text(numbers + _PREDICTIONS), bounds))  # type: ignore[misc]
    ids = list(range(first, first + done))
    for start in range(0, done, 500):
        part = ids[start : start + 500]
        transact(database, lambda c, part=part: write_chunk_totals(c, part))  # type: ignore[misc]
    groups = read(database, lambda c: list(c.scalars(select(ChunkGroup.id).where(ChunkGroup.job_id == job))))
    for group in groups:
        transact(database, lambda c, group=group: settle_if_done(c, group))  # type: ignore[misc]
    if database.dialect.name == "postgresql":
        with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")
    return job


def _numbers(first: str) -> str:
    """Begin of a statement that reads the numbers up to ``:last`` from ``n``."""
    return f"WITH RECURSIVE n(i) AS (SELECT CAST({first} AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :last) "


def _fill_chunks(connection: Connection, job: int, chunks: int, images: int) -> int:
    """Chunks in groups, all but the last ones done. Returns the id of the first."""

    rows = []
    for number in range(chunks):
        size = min(CHUNK, images - number * CHUNK)
        waiting = number >= chunks - OPEN_CHUNKS
        rows.append(
            {
                "job_id": job,
                "group_id": group_for_chunk(connection, job, size),
                "status": ChunkStatus.WAITING if waiting else ChunkStatus.DONE,
                "size": size,
                "attempt": 0 if waiting else 1,
            }
        )
    connection.execute(insert(Chunk), rows)
    connection.execute(update(Chunk).where(Chunk.job_id == job).values(hinted_at=func.current_timestamp()))
    connection.execute(update(ChunkGroup).where(ChunkGroup.job_id == job).values(settled=False))
    return connection.execute(select(func.min(Chunk.id)).where(Chunk.job_id == job)).scalar_one()


#: Probabilities that look like chance and are the same in each run.
_CHANCE = "((i * 7919 + 104729) % 1000003) / 1000003.0"
_FAILS = "(i % 500 = 7)"
_DONE = "(i < :done)"
_IMAGES = f"""
INSERT INTO image (job_id, chunk_id, path, size_bytes, mtime_ns, status, failure_code, reason, isolation_starts,
  completed_at)
SELECT CAST(:job AS BIGINT), CAST(:chunk AS BIGINT) + i / {CHUNK},
  'ward/2019/ISIC_' || CAST(i AS VARCHAR(20)) || '.jpg', 250000, 1700000000000000000,
  CASE WHEN NOT {_DONE} THEN 'waiting' WHEN {_FAILS} THEN 'failed' ELSE 'scored' END,
  CASE WHEN {_DONE} AND {_FAILS} THEN 'truncated' END, CASE WHEN {_DONE} AND {_FAILS} THEN 'it ends too early' END, 0,
  CASE WHEN {_DONE} THEN CURRENT_TIMESTAMP END
FROM n
"""
_PREDICTIONS = f"""
INSERT INTO prediction (image_id, job_id, image_sha256, bundle_id, engine, raw_probability, probability, flag, reused,
  scored_at)
SELECT image.id, CAST(:job AS BIGINT),
  CASE WHEN i < :copies THEN '{"a" * 64}' ELSE '{"0" * 52}' || CAST(100000000000 + i AS VARCHAR(12)) END, 1,
  'benchmark', {_CHANCE}, {_CHANCE},
  CASE WHEN {_CHANCE} >= {THRESHOLD} THEN 'high_risk' WHEN {_CHANCE} >= {BORDERLINE} THEN 'borderline'
    ELSE 'lower_priority' END, false, CURRENT_TIMESTAMP
FROM n JOIN image ON image.job_id = :job AND image.path = 'ward/2019/ISIC_' || CAST(i AS VARCHAR(20)) || '.jpg'
WHERE {_DONE} AND NOT {_FAILS}
"""


def _small_jobs(database: Engine) -> None:
    """Finished jobs beside the large one."""
    numbers = _numbers("0")
    chunks = -(-SMALL // CHUNK)

    def make(connection: Connection) -> None:
        for _ in range(25):
            job = _new_job(connection, SMALL)
            first = _fill_chunks(connection, job, chunks, SMALL)
            connection.execute(update(Chunk).where(Chunk.job_id == job).values(status=ChunkStatus.DONE))
            bounds = {"last": SMALL, "job": job, "chunk": first, "done": SMALL, "copies": 0}
            connection.execute(text(numbers + _IMAGES), bounds)
            connection.execute(text(numbers + _PREDICTIONS), bounds)
            write_chunk_totals(connection, range(first, first + chunks))
            settle_job(connection, job)
            finish_job_if_done(connection, job)

    for _ in range(JOBS // 25):
        transact(database, make)


def _timed(work: Callable[[], object]) -> float:
    """Milliseconds."""
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)


def _reconcile(subject: _Subject) -> dict[str, float]:
    wrong: list[str] = []
    took = _timed(lambda: wrong.extend(read(subject.database, lambda c: find_inconsistencies(c, subject.job))))
    if wrong:
        raise SystemExit(f"The made-up rows are wrong: {wrong}")
    return {"reconcile": 1000 * took / subject.images}


def _score_chunk(subject: _Subject) -> dict[str, float]:
    """What a worker does with a chunk, but for the images."""
    database, job = subject.database, subject.job
    waiting = select(Chunk.id).where(Chunk.job_id == job, Chunk.status == ChunkStatus.WAITING).limit(1)
    chunk = read(database, lambda c: c.scalars(waiting).one())
    claims: list[Claim | None] = []
    claimed = _timed(lambda: claims.append(transact(database, lambda c: claim_chunk(c, chunk, uuid4().hex, 600))))
    claim = claims[0]
    assert claim is not None
    images = read(database, lambda c: waiting_images(c, chunk))
    writes = []
    for start in range(0, len(images), BATCH):
        outcomes = [
            Scored(
                image_id=image.id,
                image_sha256=f"{image.id:064d}",
                raw_probability=0.25,
                probability=0.25,
                flag=TriageFlag.LOWER_PRIORITY,
            )
            for image in images[start : start + BATCH]
        ]

        def write(connection: Connection, outcomes: list[Scored] = outcomes) -> None:
            renew_lease(connection, claim, 600)
            write_outcomes(connection, outcomes, job_id=job, bundle_id=1, engine="benchmark")

        writes.append(_timed(lambda write=write: transact(database, write)))  # type: ignore[misc]

    def close() -> None:
        assert transact(database, lambda c: close_chunk(c, claim))

    closed = _timed(close)
    transact(database, lambda c: settle_if_done(c, claim.group_id))
    return {"claim": claimed, "write": statistics.median(writes), "close": closed}


def _claim_one(subject: _Subject) -> dict[str, float]:
    """Leave a worker in the middle of a chunk, for what follows."""
    waiting = select(Chunk.id).where(Chunk.job_id == subject.job, Chunk.status == ChunkStatus.WAITING).limit(1)
    chunk = read(subject.database, lambda c: c.scalars(waiting).one())
    transact(subject.database, lambda c: claim_chunk(c, chunk, uuid4().hex, 3600))
    return {}


def _look(subject: _Subject) -> dict[str, float]:
    """What sweeper, workers, people and pages look at, once each."""
    database, job = subject.database, subject.job
    digests = [f"{'0' * 52}{100000000000 + COPIES + 30 + i}" for i in range(BATCH)]
    first = read(database, lambda c: worklist_page(c, job, 1))[0]
    middle = replace(first, probability=0.3)
    some = select(Chunk.id).where(Chunk.job_id == job).limit(1)
    chunk = read(database, lambda c: c.scalars(some).one())
    sweep = {"urgent": False, "hint_after": 30.0, "queue_is_empty": False, "limit": 2_000}
    looks: dict[str, Callable[[Connection], object]] = {
        "unknown": lambda c: stored_inferences(c, 1, digests),
        "copies": lambda c: stored_inferences(c, 1, ["a" * 64]),
        "progress": lambda c: count_jobs(c, [job]),
        "details": lambda c: count_images(c, job),
        "histogram": lambda c: score_histogram(c, job),
        "page": lambda c: worklist_page(c, job, 50),
        "deep page": lambda c: worklist_page(c, job, 50, after=middle),
        "failures": lambda c: unscored_page(c, job, 50),
        "jobs page": lambda c: list_jobs(c, JobFilter(), limit=25),
        "job page": lambda c: _job_page(c, job),
        "turn": lambda c: bundle_for_hint(c, chunk),
    }
    found = {name: _timed(lambda look=look: read(database, look)) for name, look in looks.items()}  # type: ignore[misc]
    found["sweep"] = _timed(lambda: transact(database, lambda c: claim_unhinted_chunks(c, **sweep)))  # type: ignore[arg-type]
    found["list"] = _timed(lambda: describe_jobs(database, limit=JOBS))
    return found


def _job_page(connection: Connection, job: int) -> None:
    report_job(connection, view_jobs(connection, job_id=job)[0])
    rate_over_time(connection, job)
    score_histogram(connection, job)
    chunks_of_job(connection, job)


def _count_rows(subject: _Subject) -> dict[str, float]:
    query = select(Image.status, func.count()).where(Image.job_id == subject.job).group_by(Image.status)
    return {"count": _timed(lambda: read(subject.database, lambda c: c.execute(query).all()))}


class _Sink(io.TextIOBase):
    """Keeps nothing of what is written."""

    def write(self, data: str) -> int:
        return len(data)


def _export(subject: _Subject) -> dict[str, float]:
    def run(ranked: bool) -> float:
        rows = outcomes_ranked if ranked else outcomes_by_image
        sink: Any = _Sink()

        def work(connection: Connection) -> None:
            write_csv(rows(connection, subject.job), sink, ranked=ranked)

        return 1000 * _timed(lambda: read(subject.database, work)) / subject.images

    return {"export": run(False), "ranked": run(True)}


def _bytes(subject: _Subject) -> float:
    if subject.database.dialect.name == "postgresql":
        query = text("SELECT pg_database_size(current_database())")
        return float(read(subject.database, lambda c: c.scalar(query)) or 0)
    return float(sum(path.stat().st_size for path in subject.folder.glob("dermq.db*")))


def _delete(subject: _Subject) -> dict[str, float]:
    database, job = subject.database, subject.job
    cancelled = _timed(lambda: transact(database, lambda c: cancel_job(c, job, actor="benchmark", request=uuid4().hex)))
    transact(database, lambda c: begin_deletion(c, job, actor="benchmark", request=uuid4().hex))
    parts = [_timed(lambda: transact(database, lambda c: _delete_part(c, job))) for _ in range(2)]
    return {"cancel": cancelled, "delete": statistics.median(parts)}


#: Each step and how often it runs.
_STEPS: tuple[tuple[Callable[[_Subject], dict[str, float]], int], ...] = (
    (_reconcile, 1),
    (_score_chunk, 15),
    (_claim_one, 1),
    (_look, 15),
    (_count_rows, 3),
    (_export, 1),
    (_delete, 1),
)
#: A description for each line.
NOTES = {
    "claim": "a chunk",
    "write": f"{BATCH} images in one transaction",
    "close": "a chunk, with its totals",
    "sweep": f"beside {JOBS:,} finished jobs",
    "unknown": f"search for earlier inferences of {BATCH} files",
    "copies": f"the same for a file with up to {COPIES:,} copies",
    "progress": "counts by status and flag, as `watch` asks each second",
    "details": "failure codes and ungradable reasons, too",
    "histogram": "of all scores",
    "page": "the 50 most suspicious images",
    "deep page": "50 images from the middle of the worklist",
    "failures": "the first 50 images without a score",
    "jobs page": "25 jobs with progress, rate and stalls, as Flower shows them",
    "job page": "a job with its rate over time, histogram and chunks, as Flower shows it",
    "turn": "whose turn it is, beside 1,000 jobs",
    "list": f"{JOBS:,} jobs with progress",
    "count": "for comparison: counting the rows by status",
    "reconcile": "1,000 images",
    "export": "1,000 images as CSV",
    "ranked": "1,000 images as a ranked worklist",
    "cancel": "the job",
    "delete": "1,024 images, one transaction of a deletion",
}


if __name__ == "__main__":
    main()
