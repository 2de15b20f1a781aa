"""The audit log: who did what to which job, appended and chained by hashes, so that a change or a gap can be seen.

Each entry's SHA-256 covers its own content and the hash of the entry before. Whoever can write to the database can
rewrite the whole chain; to catch that too, keep the head that `dermq audit verify` prints somewhere else.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, exists, func, insert, select, text

from db.models import AuditEntry, Job
from db.status import AuditAction, JobStatus
from db.types import db_now

#: What the first entry takes for the hash of the one before.
GENESIS = "0" * 64
#: Key of the advisory lock under which one entry at a time is appended on PostgreSQL. SQLite has one writer anyway.
_ADVISORY_LOCK = 0x6465726D72
#: The action by which alone a job comes into a status.
_TOLD_BY = {
    JobStatus.QUEUED: AuditAction.SUBMITTED,
    JobStatus.FINISHED: AuditAction.FINISHED,
    JobStatus.PAUSED: AuditAction.PAUSED,
    JobStatus.CANCELLED: AuditAction.CANCELLED,
}
#: Entries read at a time for verification.
_PAGE = 1_000


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a verification found: the number of entries, the hash of the last one, and what is wrong."""

    entries: int
    head: str
    faults: list[str]


def append_entry(
    connection: Connection,
    *,
    actor: str,
    action: AuditAction,
    job_id: int | None,
    detail: Mapping[str, object] | None = None,
) -> None:
    """Append an entry, in the transaction of what it tells of, so that neither is there without the other.

    Args:
        actor: who, at most 200 characters.
        action: what.
        job_id: to which job.
        detail: ids and figures; no patient data.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
    last = connection.execute(
        select(AuditEntry.number, AuditEntry.sha256).order_by(AuditEntry.number.desc()).limit(1)
    ).one_or_none()
    number, previous = (last.number + 1, last.sha256) if last is not None else (1, GENESIS)
    content = {
        "number": number,
        # To the millisecond: both databases give back what they were given.
        "at": _now(connection),
        "actor": actor[:200],
        "action": action,
        "job_id": job_id,
        "detail": json.dumps(dict(detail or {}), sort_keys=True),
    }
    connection.execute(insert(AuditEntry).values(**content, previous_sha256=previous, sha256=_seal(previous, content)))


def verify(connection: Connection, *, head: str | None = None) -> Verdict:
    """Walk the whole log.

    The chain itself shows what is missing within it. What was cut off at its end shows by an earlier head that is not
    in it any more, and by jobs in a status that no entry tells of.

    Args:
        head: that an earlier verification gave; it must still be in the chain.

    Returns:
        Its length, its head, and one sentence for each entry that was changed, is missing or was put in.
    """
    faults: list[str] = []
    expected_number, previous, found = 1, GENESIS, head in (None, GENESIS)
    for entry in _entries(connection):
        if entry.number != expected_number:
            faults.append(f"entry {expected_number} is missing: the next one is {entry.number}")
        if entry.previous_sha256 != previous:
            faults.append(f"entry {entry.number} does not follow the one before it")
        content = {name: getattr(entry, name) for name in ("number", "at", "actor", "action", "job_id", "detail")}
        if entry.sha256 != _seal(entry.previous_sha256, content):
            faults.append(f"entry {entry.number} was changed")
        expected_number, previous = entry.number + 1, entry.sha256
        found = found or previous == head
    if not found:
        faults.append(f"the head {head} is not in the log: entries up to it were removed or written anew")
    faults += [f"no entry says that job {job} was {action}" for job, action in _untold(connection)]
    count = connection.execute(select(func.count()).select_from(AuditEntry)).scalar_one()
    return Verdict(entries=count, head=previous, faults=faults)


def entries_of(connection: Connection, job_id: int | None = None) -> list[AuditEntry]:
    """Entries in order, of one job or of all."""
    query = select(AuditEntry.__table__).order_by(AuditEntry.number)
    if job_id is not None:
        query = query.where(AuditEntry.job_id == job_id)
    return list(connection.execute(query))  # type: ignore[arg-type] # rows with the entry's attributes


def _untold(connection: Connection) -> Iterator[tuple[int, str]]:
    """Jobs in a status that is reached by an action alone, and no entry of that action."""
    for status, action in _TOLD_BY.items():
        told = exists().where(AuditEntry.job_id == Job.id, AuditEntry.action == action)
        query = select(Job.id).where(Job.status == status, ~told).order_by(Job.id)
        yield from ((job, action.value) for job in connection.scalars(query))


def _entries(connection: Connection) -> Iterator[AuditEntry]:
    last = -1
    query = select(AuditEntry.__table__).order_by(AuditEntry.number).limit(_PAGE)
    while page := list(connection.execute(query.where(AuditEntry.number > last))):
        yield from page  # type: ignore[misc] # rows with the entry's attributes
        last = page[-1].number


def _seal(previous: str, content: Mapping[str, object]) -> str:
    shown = {**content, "at": _written(content["at"]), "action": str(content["action"])}
    return hashlib.sha256(f"{previous}\n{json.dumps(shown, sort_keys=True)}".encode()).hexdigest()


def _written(at: object) -> str:
    if not isinstance(at, datetime):
        raise TypeError(f"Received: {at!r} as an entry's time. Expected: a datetime.")
    return at.astimezone(UTC).isoformat(timespec="milliseconds")


def _now(connection: Connection) -> datetime:
    # The database's clock: an entry that a worker writes must not have the worker's idea of the time.
    now = connection.execute(select(db_now())).scalar_one()
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
