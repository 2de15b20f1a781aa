"""The audit log: who did what to which job. Entries are appended and chained by hashes, so that a change shows.

The SHA-256 of an entry covers its content and the hash of the entry before. An account that can write to the database
can rewrite the whole chain. To detect that too, keep the head that `dermq audit verify` prints in another place.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, exists, func, insert, select, text

from db.models import AuditEntry, Job
from db.status import AuditAction, JobStatus
from db.types import db_now

#: The previous hash of the first entry.
GENESIS = "0" * 64
#: Key of PostgreSQL's advisory lock for appending. SQLite has one writer anyway.
_ADVISORY_LOCK = 0x6465726D72
#: The only action that leads to a status.
_ACTION_FOR = {
    JobStatus.QUEUED: AuditAction.SUBMITTED,
    JobStatus.FINISHED: AuditAction.FINISHED,
    JobStatus.PAUSED: AuditAction.PAUSED,
    JobStatus.CANCELLED: AuditAction.CANCELLED,
    JobStatus.DELETING: AuditAction.DELETED,
}
#: Entries read at a time by `verify`.
_PAGE = 1_000


@dataclass(frozen=True, kw_only=True)
class ChainVerification:
    """Result of `verify`: the number of entries, the hash of the last one, and what is wrong."""

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
    """Append an entry. Call it in the transaction of the action itself, so that neither exists without the other.

    Args:
        actor: who acted; cut at 200 characters.
        action: what was done.
        job_id: to which job.
        detail: ids and numbers, no patient data.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
    last = connection.execute(
        select(AuditEntry.number, AuditEntry.sha256).order_by(AuditEntry.number.desc()).limit(1)
    ).one_or_none()
    number, previous = (last.number + 1, last.sha256) if last is not None else (1, GENESIS)
    content = {
        "number": number,
        # To the millisecond: both databases return that unchanged.
        "at": _now(connection),
        "actor": actor[:200],
        "action": action,
        "job_id": job_id,
        "detail": json.dumps(dict(detail or {}), sort_keys=True),
    }
    connection.execute(insert(AuditEntry).values(**content, previous_sha256=previous, sha256=_seal(previous, content)))


def verify(connection: Connection, *, head: str | None = None) -> ChainVerification:
    """Check the whole log.

    The chain shows entries that are missing within it. Entries removed from its end show in two ways: an earlier head
    is no longer in the chain, and a job has a status that no entry accounts for.

    Args:
        head: a head from an earlier verification, which must still be in the chain.

    Returns:
        The length and the head of the chain, and a sentence for each entry that was changed, removed or inserted.
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
        faults.append(f"the head {head} is not in the log: entries up to it were removed or rewritten")
    faults += [f"no entry says that job {job} was {action}" for job, action in _without_entry(connection)]
    count = connection.execute(select(func.count()).select_from(AuditEntry)).scalar_one()
    return ChainVerification(entries=count, head=previous, faults=faults)


def entries_of(connection: Connection, job_id: int | None = None) -> list[AuditEntry]:
    """Entries in order, of one job or of all."""
    query = select(AuditEntry.__table__).order_by(AuditEntry.number)
    if job_id is not None:
        query = query.where(AuditEntry.job_id == job_id)
    return list(connection.execute(query))  # type: ignore[arg-type] # rows with the entry's attributes


def find_entry(connection: Connection, job_id: int, action: AuditAction, request: str) -> dict[str, Any] | None:
    """Detail of the entry that the command with this ``request`` wrote, or None.

    A transaction runs again when the reply to its commit was lost. The entry shows that it took effect.
    """
    details = select(AuditEntry.detail).where(AuditEntry.job_id == job_id, AuditEntry.action == action)
    found = (json.loads(detail) for detail in connection.scalars(details))
    return next((detail for detail in found if detail.get("request") == request), None)


def _without_entry(connection: Connection) -> Iterator[tuple[int, str]]:
    """Jobs with a status that only an action leads to, but without an entry of that action."""
    for status, action in _ACTION_FOR.items():
        recorded = exists().where(AuditEntry.job_id == Job.id, AuditEntry.action == action)
        query = select(Job.id).where(Job.status == status, ~recorded).order_by(Job.id)
        yield from ((job, action.value) for job in connection.scalars(query))


def _entries(connection: Connection) -> Iterator[AuditEntry]:
    last = -1
    query = select(AuditEntry.__table__).order_by(AuditEntry.number).limit(_PAGE)
    while page := list(connection.execute(query.where(AuditEntry.number > last))):
        yield from page  # type: ignore[misc] # rows with the entry's attributes
        last = page[-1].number


def _seal(previous: str, content: Mapping[str, object]) -> str:
    shown = {**content, "at": _formatted(content["at"]), "action": str(content["action"])}
    return hashlib.sha256(f"{previous}\n{json.dumps(shown, sort_keys=True)}".encode()).hexdigest()


def _formatted(at: object) -> str:
    if not isinstance(at, datetime):
        raise TypeError(f"The time of an audit entry must be a datetime, not {at!r}.")
    return at.astimezone(UTC).isoformat(timespec="milliseconds")


def _now(connection: Connection) -> datetime:
    # The database's clock, not the clock of the worker that writes the entry.
    now = connection.execute(select(db_now())).scalar_one()
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
