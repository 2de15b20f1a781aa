"""What the database says in the middle of a fault test, and the end of each: counts and predictions are right."""

import os
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Engine, Select, func, select
from sqlalchemy.exc import OperationalError

from db.models import Chunk, Image, Job, Prediction
from db.session import read
from db.status import ChunkStatus, FailureCode, ImageStatus, JobStatus
from tests.acceptance.conftest import until

#: How an image ended: status, SHA-256, raw and calibrated probability, triage flag.
Outcome = tuple[ImageStatus, str | None, float | None, float | None, str | None]


class System(Protocol):
    """A running dermq, started by `dermq up` or part by part."""

    @property
    def database(self) -> Engine:
        """Its database."""

    @property
    def dermq(self) -> Callable[..., Any]:
        """Runs a command of the operator against it."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """A chunk in the hands of a worker's process."""

    chunk_id: int
    pid: int


def rows(system: System, query: Select[Any]) -> list[Any]:
    """What a query finds committed."""
    return read(system.database, lambda connection: list(connection.execute(query).all()))


def ended(system: System, job: int | None = None) -> int:
    """Images that have ended, of one job or of all."""
    query = select(func.count()).select_from(Image).where(Image.status != ImageStatus.WAITING)
    return int(rows(system, query if job is None else query.where(Image.job_id == job))[0][0])


def chunks(system: System, job: int) -> list[Any]:
    """Chunks of a job in order, by attribute."""
    return rows(system, select(Chunk.__table__).where(Chunk.job_id == job).order_by(Chunk.id))


def job_status(system: System, job: int) -> JobStatus:
    """Status of a job."""
    return JobStatus(rows(system, select(Job.status).where(Job.id == job))[0][0])


def outcomes(system: System, job: int) -> dict[str, Outcome]:
    """How each image of a job ended, by path."""
    query = (
        select(
            Image.path,
            Image.status,
            Prediction.image_sha256,
            Prediction.raw_probability,
            Prediction.probability,
            Prediction.flag,
        )
        .outerjoin(Prediction, Prediction.image_id == Image.id)
        .where(Image.job_id == job)
    )
    found = rows(system, query)
    assert len({row.path for row in found}) == len(found), "an image has two predictions"
    return {row.path: tuple(row[1:]) for row in found}


def failures(system: System, job: int) -> dict[str, FailureCode]:
    """Code of each image of a job that failed, by path."""
    query = select(Image.path, Image.failure_code).where(Image.job_id == job, Image.status == ImageStatus.FAILED)
    return {row.path: row.failure_code for row in rows(system, query)}


def predictions(system: System, job: int) -> list[Any]:
    """Every prediction of a job with all its columns, the time it was written among them."""
    query = select(Prediction.__table__).join(Image, Image.id == Prediction.image_id).where(Image.job_id == job)
    return rows(system, query.order_by(Prediction.id))


def under_way(system: System, job: int, images: int = 20) -> int:
    """Wait until so many images of a job have ended, and make sure that others have not; the number that have."""
    until(lambda: ended(system, job) >= images, f"{images} images of job {job} have ended")
    return still_under_way(system, job)


def still_under_way(system: System, job: int) -> int:
    """Make sure that the job is not over yet: a fault that came too late proves nothing."""
    count = ended(system, job)
    submitted = rows(system, select(func.count()).select_from(Image).where(Image.job_id == job))[0][0]
    assert count < submitted, f"job {job} was over too early: the test proves nothing"
    return count


def held(system: System, job: int) -> list[Held]:
    """Chunks in mid-chunk, some images ended and at least half of them not, and the process that has each."""
    waiting = (
        select(func.count())
        .where(Image.chunk_id == Chunk.id, Image.status == ImageStatus.WAITING)
        .correlate(Chunk)
        .scalar_subquery()
    )
    query = select(Chunk.id, Chunk.owner).where(
        Chunk.job_id == job, Chunk.status == ChunkStatus.LEASED, waiting < Chunk.size, waiting * 2 >= Chunk.size
    )
    return [Held(chunk_id=row.id, pid=int(row.owner.split(":")[-2])) for row in rows(system, query)]


def freeze_in_mid_chunk(system: System, job: int, among: list[int] | None = None) -> Held:
    """SIGSTOP a process that has scored a part of a chunk, between two transactions.

    Args:
        among: the processes to choose from; default: any.
    """
    frozen: list[Held] = []

    def freeze() -> bool:
        for candidate in held(system, job):
            if among is not None and candidate.pid not in among:
                continue
            os.kill(candidate.pid, signal.SIGSTOP)
            until(lambda pid=candidate.pid: _is_frozen(pid), "the process is frozen")  # type: ignore[misc]
            # Locks first: with one of SQLite's in the frozen hands, the look at the chunk would wait for a minute.
            if _takes_writes(system, candidate.chunk_id) and candidate in held(system, job):
                frozen.append(candidate)
                return True
            os.kill(candidate.pid, signal.SIGCONT)
        return False

    until(freeze, "a process can be frozen in the middle of a chunk")
    still_under_way(system, job)
    return frozen[0]


def _is_frozen(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def _takes_writes(system: System, chunk_id: int) -> bool:
    """Whether nobody holds a lock: SQLite's one for writers, or that of the chunk's row."""
    try:
        with system.database.connect() as connection:
            if connection.dialect.name == "sqlite":
                # Not for as long as a writer would wait: the process that may hold the lock is frozen.
                connection.connection.cursor().execute("PRAGMA busy_timeout = 200")
            connection.execute(select(Chunk.id).where(Chunk.id == chunk_id).with_for_update(nowait=True))
    except OperationalError:
        return False
    return True


def check_counts(
    system: System,
    job: int,
    expected: Mapping[str, Outcome],
    *,
    failed: Mapping[str, FailureCode] | None = None,
    archive: Path | None = None,
) -> None:
    """Wait until a job is finished; then its counts, the audit log and each outcome must be right, and none missing.

    Args:
        expected: what an undisturbed run made of the same images, equal to the last bit.
        failed: images that are meant to fail, with their codes.
        archive: the folder that was submitted, where it holds only some of the expected images.
    """
    until(lambda: job_status(system, job) is JobStatus.FINISHED, f"job {job} is finished")
    # At once, for the sake of time: each spends it on starting Python.
    commands = (("reconcile", str(job)), ("audit", "verify"))
    with ThreadPoolExecutor() as pool:
        reconciled, verified = pool.map(lambda command: system.dermq(*command, check=False), commands)
    assert reconciled.returncode == 0, reconciled.stdout + reconciled.stderr
    assert "every image was counted once" in reconciled.stdout
    assert verified.stdout.startswith("ok"), verified.stdout + verified.stderr
    failed = dict(failed or {})
    found = failures(system, job)
    assert found == failed, f"failed: {found}, meant to: {failed}"
    all_outcomes = outcomes(system, job)
    submitted = expected.keys() if archive is None else {path.name for path in archive.iterdir()}
    assert all_outcomes.keys() == submitted | failed.keys(), "not the images that were submitted"
    assert not any(prediction.reused for prediction in predictions(system, job)), "copied, so equal without proof"
    readable = {path: outcome for path, outcome in all_outcomes.items() if path not in failed}
    wrong = {path: (outcome, expected[path]) for path, outcome in readable.items() if outcome != expected[path]}
    assert not wrong, f"not as in an undisturbed run: {wrong}"
