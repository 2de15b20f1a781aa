"""The processes of workers that score: what each has in hand, and how fast it is."""

from collections.abc import Mapping
from datetime import datetime

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection

from db.progress import HeldChunk, held_chunks
from db.rates import rates_of_workers, recent_work
from worker.queue.inspect import WorkerAnswer
from worker.settings import load_settings
from worker.terminal import printable


class ProcessReport(BaseModel):
    """A process of a worker: one that runs, or that has a chunk.

    Args:
        host: it runs on.
        process: its number.
        bundle: of the workers on that host. Empty when none answers.
        engine: name, version and precision.
        images_per_second: newly scored images, by the time in which it worked. None when it has no chunk.
        last_image_at: of its newest outcome. None before one.
        job: of the chunk that it has.
        chunk: that it has. None when it has none.
        silent_seconds: since the claim or the newest outcome of that chunk.
        lease_seconds_left: of that chunk. Negative when the process is frozen or dead.
        stalled: whether it finishes nothing.
        alive: whether a worker that answers has this process.
    """

    model_config = ConfigDict(frozen=True)

    host: str
    process: str
    bundle: str
    engine: str
    images_per_second: float | None
    last_image_at: datetime | None
    job: int | None
    chunk: int | None
    silent_seconds: float | None
    lease_seconds_left: float | None
    stalled: bool
    alive: bool


def describe_processes(
    connection: Connection, answers: Mapping[str, WorkerAnswer]
) -> tuple[datetime, list[ProcessReport]]:
    """The database's time, and the processes of workers that run, or that have a chunk.

    Args:
        connection: to the database.
        answers: of the workers, from `worker.queue.inspect`.
    """
    now, works = recent_work(connection)
    rates = {name: rate.new for name, rate in rates_of_workers(now, works).items()}
    last: dict[str, datetime] = {}
    for work in works:
        last[work.worker] = max(work.ended, last.get(work.worker, work.ended))
    chunk_of = {":".join(chunk.owner.split(":")[:2]): chunk for chunk in held_chunks(connection)}
    alive = {f"{worker.partition('@')[2]}:{pid}" for worker, answer in answers.items() for pid in answer.pids}
    # A process that has ended and left nothing behind is no news. Without any answer, all are shown.
    names = sorted({*chunk_of, *alive, *(() if answers else (*rates, *last))})
    return now, [
        _report(name, chunk_of.get(name), rates.get(name), last.get(name), answers, alive=name in alive)
        for name in names
    ]


def _report(
    name: str,
    chunk: HeldChunk | None,
    rate: float | None,
    last: datetime | None,
    answers: Mapping[str, WorkerAnswer],
    *,
    alive: bool,
) -> ProcessReport:
    host, _, number = name.partition(":")
    own = [answer for worker, answer in answers.items() if worker.partition("@")[2] == host]
    bundles = sorted({str(answer.bundle) for answer in own if answer.bundle is not None})
    engines = sorted({answer.engine for answer in own if answer.engine})
    stalled = chunk is not None and (
        chunk.lease_seconds_left < 0 or chunk.silent_seconds >= load_settings().stall_seconds
    )
    return ProcessReport(
        host=printable(host),
        process=printable(number),
        bundle=", ".join(bundles),
        engine=", ".join(engines),
        images_per_second=rate if chunk is not None else None,
        last_image_at=last,
        job=chunk.job_id if chunk is not None else None,
        chunk=chunk.chunk_id if chunk is not None else None,
        silent_seconds=chunk.silent_seconds if chunk is not None else None,
        lease_seconds_left=chunk.lease_seconds_left if chunk is not None else None,
        stalled=stalled,
        alive=alive,
    )
