"""The JSON beside the pages, under /api/dermq/. `worker.monitor.web.openapi` describes it."""

import io
import json
import math
from collections.abc import Iterator, Sequence
from functools import partial

from flower.views import BaseHandler
from pydantic import ValidationError
from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, authenticated

from db.audit import append_entry, entries_of
from db.chunks import chunks_of_job
from db.jobs import JobFilter, JobOrder, JobView, count_by_status, view_jobs
from db.rates import rate_over_time
from db.session import ATTEMPTS
from db.status import AuditAction
from db.totals import score_histogram
from db.types import db_now
from db.worklist import OutcomeRow, unscored_page
from worker.errors import DermqError
from worker.monitor.actions import carry_out
from worker.monitor.job_status import STATES, JobReport, jobs_by_stall, list_jobs, report_job
from worker.monitor.processes import describe_processes
from worker.monitor.web.answers import (
    ActionRequest,
    ActionResult,
    ActionsAnswer,
    AuditAnswer,
    JobAnswer,
    JobsAnswer,
    SystemHealth,
    WorkersAnswer,
)
from worker.monitor.web.handlers import JsonHandler, Monitor
from worker.monitor.web.openapi import description
from worker.output.csv import write_csv
from worker.terminal import printable

#: Jobs of a page, unless asked otherwise, and at most.
_PAGE, _MOST_PER_PAGE = 25, 200
#: Entries of the audit log that a job's answer holds.
_ENTRIES = 100
#: Rows of a download that are read at a time.
_ROWS = 2_000


def health_of(monitor: Monitor) -> SystemHealth:
    """Whether the parts of dermq work, as of the last round of checks."""
    checks = monitor.state.current()
    return SystemHealth(ok=bool(checks) and all(each.ok for each in checks), checked=bool(checks), checks=checks)


class Jobs(JsonHandler):
    """A page of the list of jobs."""

    @authenticated
    async def get(self) -> None:
        """Arguments: state, search, order, page and size."""
        state = self.get_argument("state", "", escape=False)
        try:
            order = JobOrder(self.get_argument("order", JobOrder.NEWEST, escape=False))
            if state and state not in STATES:
                raise ValueError(f"{state!r} is no state")
            page = int(self.get_argument("page", "1"))
            size = int(self.get_argument("size", str(_PAGE)))
        except ValueError as error:
            raise HTTPError(400, f"An argument is wrong: {error}.") from None
        if page < 1 or not 1 <= size <= _MOST_PER_PAGE or page > 10**6:
            raise HTTPError(400, f"page must be at least 1, and size from 1 to {_MOST_PER_PAGE}.")
        wanted = JobFilter(text=self.get_argument("search", "", escape=False), order=order)

        def look(connection: Connection) -> JobsAnswer:
            found = list_jobs(connection, wanted, state=state, limit=size, offset=(page - 1) * size)
            return JobsAnswer(
                jobs=[_shown(job) for job in found.jobs],
                total=found.total,
                page=page,
                pages=max(1, math.ceil(found.total / size)),
                by_status=count_by_status(connection),
                attention=len(jobs_by_stall(connection, "stalled")),
                health=health_of(self.monitor),
                now=connection.execute(select(db_now())).scalar_one(),
            )

        self.send(await self.read(look))


def _shown(job: JobReport) -> JobReport:
    """A job with the end of its source only, also in the sentence about a stall."""
    label = source_label(job.source)
    stalled = job.stalled.replace(printable(job.source), label) if job.stalled else job.stalled
    return job.model_copy(update={"source": label, "stalled": stalled})


def source_label(source: str) -> str:
    """The last two parts of a source, without control characters. The folders above may name a person."""
    parts = [part for part in printable(source).split("/") if part]
    return "/".join(parts[-2:]) or "/"


class OneJob(JsonHandler):
    """One job."""

    @authenticated
    async def get(self, number: str) -> None:
        """All about it."""
        job_id = int(number)

        def look(connection: Connection) -> JobAnswer:
            view = _job(connection, job_id)
            report = report_job(connection, view)
            entries = list(reversed(entries_of(connection, job_id)))[:_ENTRIES]
            return JobAnswer(
                job=_shown(report),
                rate=rate_over_time(connection, job_id),
                histogram=score_histogram(connection, job_id),
                chunks=chunks_of_job(connection, job_id),
                audit=[
                    AuditAnswer(
                        at=entry.at,
                        actor=printable(entry.actor),
                        action=entry.action,
                        detail={name: value for name, value in json.loads(entry.detail).items() if name != "request"},
                    )
                    for entry in entries
                ],
                health=health_of(self.monitor),
                now=connection.execute(select(db_now())).scalar_one(),
            )

        self.send(await self.read(look))


def _job(connection: Connection, job_id: int) -> JobView:
    jobs = view_jobs(connection, job_id=job_id)
    if not jobs:
        raise HTTPError(404, f"There is no job {job_id}.")
    return jobs[0]


class Failures(JsonHandler):
    """The images of a job that have no score, with their paths, as CSV. For operators: a path may name a patient."""

    @authenticated
    async def get(self, number: str) -> None:
        """Stream the rows. The audit log records the download."""
        job_id = int(number)
        self.require_operator()
        await self.read(lambda connection: _job(connection, job_id))

        def record(connection: Connection) -> None:
            detail = {"rows": "images without a score", "by": "Flower"}
            append_entry(connection, actor=self.actor, action=AuditAction.EXPORTED, job_id=job_id, detail=detail)

        await self.change(record)
        self.set_header("Content-Type", "text/csv; charset=utf-8")
        self.set_header("Content-Disposition", f'attachment; filename="job-{job_id}-not-scored.csv"')
        last: OutcomeRow | None = None
        while True:
            try:
                query = partial(unscored_page, job_id=job_id, limit=_ROWS, after=last)
                page = await self.read(query, attempts=ATTEMPTS)
            except HTTPError:
                if last is None:
                    raise
                # The status is sent. A closed connection tells the client that the rows are not complete.
                self.request.connection.stream.close()
                return
            self.write(_as_csv(page, header=last is None))
            try:
                await self.flush()
            except StreamClosedError:
                return
            if len(page) < _ROWS:
                return
            last = page[-1]


def _as_csv(rows: Sequence[OutcomeRow], *, header: bool) -> str:
    text = io.StringIO(newline="")
    write_csv(iter(rows), text)
    return text.getvalue() if header else text.getvalue().partition("\n")[2]


class Actions(JsonHandler):
    """Pause, resume, cancel or retry jobs. For operators."""

    @authenticated
    async def post(self) -> None:
        """The body is an `ActionRequest`."""
        self.require_operator()
        # A form of another site cannot send this type without asking first, and nobody answers that question.
        if self.request.headers.get("Content-Type", "").partition(";")[0].strip() != "application/json":
            raise HTTPError(415, "Send JSON, with the header Content-Type: application/json.")
        try:
            wanted = ActionRequest.model_validate_json(self.request.body)
        except ValidationError as error:
            fault = error.errors(include_input=False, include_url=False)[0]
            raise HTTPError(400, f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}.") from None

        def act() -> ActionsAnswer:
            return ActionsAnswer(results=list(self._results(wanted)))

        self.send(await self.in_thread(act))

    def _results(self, wanted: ActionRequest) -> Iterator[ActionResult]:
        for job_id in dict.fromkeys(wanted.jobs):
            try:
                outcome = carry_out(self.monitor.database, wanted.action, job_id, actor=self.actor, codes=wanted.codes)
                yield ActionResult(job=job_id, done=outcome.done, text=outcome.text)
            except DermqError as error:
                yield ActionResult(job=job_id, done=False, text=str(error))
            except SQLAlchemyError as error:
                text = f"Job {job_id} was not changed: the database does not answer ({type(error).__name__})."
                yield ActionResult(job=job_id, done=False, text=text)


class Workers(JsonHandler):
    """The workers and their processes."""

    @authenticated
    async def get(self) -> None:
        """All that answer, or have a chunk, or closed one lately."""

        answers = self.monitor.state.workers
        now, processes = await self.read(lambda connection: describe_processes(connection, answers))
        self.send(
            WorkersAnswer(
                answering=sorted(printable(name) for name in answers),
                processes=processes,
                health=health_of(self.monitor),
                now=now,
            )
        )


class Health(JsonHandler):
    """Whether the parts of dermq work."""

    @authenticated
    async def get(self) -> None:
        """As of the last round of checks."""
        self.send(health_of(self.monitor))


class OpenApi(JsonHandler):
    """The description of all this."""

    @authenticated
    async def get(self) -> None:
        """As OpenAPI 3.1."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.write(json.dumps(description(), indent=1))


class NotFound(JsonHandler):
    """Any other path under /api/dermq/."""

    @authenticated
    async def get(self, path: str) -> None:
        """Refuse it."""
        raise HTTPError(404, "There is no such address. /api/dermq/openapi.json lists them.")


_NUMBER = "([1-9][0-9]{0,17})"
#: Paths and their handlers.
ROUTES: tuple[tuple[str, type[BaseHandler]], ...] = (
    (r"/api/dermq/jobs", Jobs),
    (rf"/api/dermq/jobs/{_NUMBER}", OneJob),
    (rf"/api/dermq/jobs/{_NUMBER}/not-scored\.csv", Failures),
    (r"/api/dermq/actions", Actions),
    (r"/api/dermq/workers", Workers),
    (r"/api/dermq/health", Health),
    (r"/api/dermq/openapi\.json", OpenApi),
)
