"""What the JSON under /api/dermq/ holds. The OpenAPI description is made from these models."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from db.chunks import JobChunks
from db.rates import RatePoint
from db.status import AuditAction, FailureCode, JobStatus
from worker.monitor.health import CheckResult
from worker.monitor.job_status import JobReport
from worker.monitor.processes import ProcessReport

#: Most jobs of one request.
MOST_JOBS = 500


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class SystemHealth(_Answer):
    """Whether the parts of dermq work.

    Args:
        ok: whether all do.
        checked: whether the first round of checks has ended.
        checks: of the database, the broker, the workers and the sweeper, some seconds old.
    """

    ok: bool
    checked: bool
    checks: list[CheckResult]


class JobsAnswer(_Answer):
    """A page of the list of jobs.

    Args:
        jobs: of this page.
        total: number of jobs that fit.
        page: number of this page, from 1.
        pages: number of pages, at least 1.
        by_status: number of all jobs by status.
        attention: number of jobs that need somebody's attention.
        health: of the system.
        now: the database's time.
    """

    jobs: list[JobReport]
    total: int
    page: int
    pages: int
    by_status: dict[JobStatus, int]
    attention: int
    health: SystemHealth
    now: datetime


class AuditAnswer(_Answer):
    """An entry of the audit log."""

    at: datetime
    actor: str
    action: AuditAction
    detail: dict[str, object]


class JobAnswer(_Answer):
    """One job.

    Args:
        job: its state and its counts.
        rate: over its life.
        histogram: scored images by calibrated probability, in bins of equal width from 0 to 1.
        chunks: of the job.
        audit: its entries, newest first, at most 100.
        health: of the system.
        now: the database's time.
    """

    job: JobReport
    rate: list[RatePoint]
    histogram: list[int]
    chunks: JobChunks
    audit: list[AuditAnswer]
    health: SystemHealth
    now: datetime


class WorkersAnswer(_Answer):
    """The workers that answer, with the processes that score."""

    answering: list[str]
    processes: list[ProcessReport]
    health: SystemHealth
    now: datetime


class ActionRequest(BaseModel):
    """What to do to some jobs.

    Args:
        action: to carry out.
        jobs: their numbers.
        codes: of a retry: only images with one of these failure codes. Empty: all.
    """

    model_config = ConfigDict(extra="forbid")

    action: Literal["pause", "resume", "cancel", "retry"]
    jobs: list[Annotated[int, Field(strict=True, gt=0, lt=2**63)]] = Field(min_length=1, max_length=MOST_JOBS)
    codes: list[FailureCode] = Field(default_factory=list)


class ActionResult(_Answer):
    """Whether an action was carried out on a job, and a sentence about it."""

    job: int
    done: bool
    text: str


class ActionsAnswer(_Answer):
    """What became of an action, for each job."""

    results: list[ActionResult]


class ErrorAnswer(_Answer):
    """Why a request was refused."""

    error: str
