"""What operators do to jobs, from the command line and from Flower: the change, and a sentence about it."""

import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, Engine

from db.job_control import cancel_job, pause_job, resume_job, retry_failed
from db.session import transact
from db.status import FailureCode
from worker.monitor.job_status import find_job

Action = Literal["pause", "resume", "cancel", "retry"]
#: Takes the connection and the job, and `actor` and `request` by name. Returns whether the change was possible.
_Change = Callable[..., bool]
#: The change, what it did, and in which states it is possible.
_CHANGES: dict[str, tuple[_Change, str, str]] = {
    "pause": (pause_job, "is paused", "Only a queued or running job can be paused."),
    "resume": (resume_job, "is resumed", "Only a paused job can be resumed."),
    "cancel": (cancel_job, "is cancelled", "Only an open job can be cancelled."),
}


@dataclass(frozen=True, kw_only=True)
class ActionOutcome:
    """Whether an action was carried out on a job, and a sentence about it.

    Args:
        job: its number.
        done: whether something was changed.
        text: a sentence.
        possible: whether the state of the job allows it.
        skipped: failed images that a retry left alone, because a worker has their chunk.
    """

    job: int
    done: bool
    text: str
    possible: bool = True
    skipped: int = 0


def carry_out(
    database: Engine, action: Action, job_id: int, *, actor: str, codes: Collection[FailureCode] = ()
) -> ActionOutcome:
    """Carry out an action on a job. The audit log records it with the actor's name.

    Args:
        database: from `db.session.open_database`.
        action: to carry out.
        job_id: the job.
        actor: who asks.
        codes: of a retry: only images with one of these failure codes. Empty: all.

    Raises:
        DermqError: there is no such job.
    """
    status = find_job(database, job_id).status
    # Tells a transaction that runs again from a second command.
    request = uuid.uuid4().hex
    if action == "retry":
        return _retry(database, job_id, status, actor=actor, request=request, codes=codes)
    change, done, expected = _CHANGES[action]
    if transact(database, lambda connection: change(connection, job_id, actor=actor, request=request)):
        return ActionOutcome(job=job_id, done=True, text=f"Job {job_id} {done}.")
    return ActionOutcome(job=job_id, done=False, possible=False, text=f"Job {job_id} is {status}. {expected}")


def _retry(
    database: Engine, job_id: int, status: str, *, actor: str, request: str, codes: Collection[FailureCode]
) -> ActionOutcome:
    def retry(connection: Connection) -> ActionOutcome:
        result = retry_failed(connection, job_id, codes=codes or None, actor=actor, request=request)
        if result is None:
            text = f"Job {job_id} is {status}. Only a finished, queued or running job can be retried."
            return ActionOutcome(job=job_id, done=False, possible=False, text=text)
        if not result.images and not result.skipped:
            text = f"Job {job_id} has no failed images{' with these codes' if codes else ''}."
            return ActionOutcome(job=job_id, done=False, text=text)
        count = "1 failed image" if result.images == 1 else f"{result.images:,} failed images"
        text = f"Retrying {count} of job {job_id}."
        return ActionOutcome(job=job_id, done=True, text=text, skipped=result.skipped)

    return transact(database, retry)
