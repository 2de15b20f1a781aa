"""News of jobs for other systems: a job finished, failed, stalled, or goes on again. No patient data, no path.

Each piece of news is kept as told only once it was delivered, so it may come twice, but is not lost. Its ``id`` tells
the second from the first.
"""

import os
import shlex
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from db.jobs import view_jobs
from db.notices import FINISHED, keep_notice, notices, untold_ends
from db.session import read, transact
from db.status import ImageStatus, TriageFlag
from worker.log_throttle import LogThrottle
from worker.logging import get_logger
from worker.monitor.job_status import JobReport, report_job
from worker.monitor.stalls import EXPECTED, Stall, diagnose
from worker.settings import Settings

log = get_logger(__name__)

#: Seconds between two looks for news, and that a receiver has.
_INTERVAL, _TIMEOUT = 5.0, 15.0
#: Seconds until the next attempt after a failure, doubled at each, and their limit.
_RETRY, _LONGEST_RETRY = 5.0, 600.0
#: Seconds that a stall must last: its cause may be a worker that is being restarted.
_SETTLE = 15.0
#: Variables that a command gets.
_PASSED_ON = ("HOME", "LANG", "LC_ALL", "PATH", "TZ")


class News(BaseModel):
    """A piece of news, as it is sent.

    Args:
        id: the same when it is sent again, unless the sweeper was restarted meanwhile.
        event: ``finished``; ``failed``, finished without any score; ``stalled``; or ``resumed`` after a stall.
        job: number of the job.
        name: label that the submitter gave it.
        submitted: images.
        scored: images.
        ungradable: images.
        failed: images.
        high_risk: images.
        text: a sentence for people.
        at: when it was noticed, in UTC.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    event: Literal["finished", "failed", "stalled", "resumed"]
    job: int
    name: str | None
    submitted: int
    scored: int
    ungradable: int
    failed: int
    high_risk: int
    text: str
    at: datetime


class Notifier:
    """Looks for news and delivers it, in a thread of its own.

    Args:
        settings: give the address and the command.
        database: from `db.session.open_database`.
    """

    def __init__(self, settings: Settings, database: Engine) -> None:
        self._url = settings.notify_url.get_secret_value() if settings.notify_url is not None else None
        self._command = shlex.split(settings.notify_command)
        self._database = database
        self._throttle = LogThrottle()
        #: When to try again, and how long to wait after that.
        self._next, self._delay = 0.0, _RETRY
        #: News that was refused: when to try it again, and how long to wait after that.
        self._refused: dict[str, tuple[float, float]] = {}
        #: News that the address has taken, and the command has not.
        self._posted: set[str] = set()
        #: When a piece of news was first seen, by job and event.
        self._first: dict[tuple[int, str], datetime] = {}
        #: When a stall was first seen, by job.
        self._seen: dict[int, float] = {}

    def start(self) -> None:
        """Begin, unless nobody wants news."""
        if self._url is not None or self._command:
            # A daemon: it may be waiting for a receiver when the process ends.
            threading.Thread(target=self._run, daemon=True, name="dermq-notify").start()

    def _run(self) -> None:
        while True:
            time.sleep(_INTERVAL)
            if time.monotonic() >= self._next:
                try:
                    self.deliver()
                except SQLAlchemyError:
                    # The sweeper says so.
                    continue
                except Exception as error:
                    log.error("looking for news failed", error=type(error).__name__)

    def deliver(self) -> None:
        """Deliver all news that there is. What a receiver refuses waits; when nobody answers, everything does."""
        for news, notice in read(self._database, lambda connection: list(self._news(connection))):
            if time.monotonic() < self._refused.get(news.id, (0.0, 0.0))[0]:
                continue
            try:
                self._send(news)
            except (urllib.error.HTTPError, subprocess.SubprocessError) as error:
                # This one is not taken. The others may be.
                self._note(error)
                wait = min(2 * self._refused.get(news.id, (0.0, _RETRY / 2))[1], _LONGEST_RETRY)
                self._refused[news.id] = (time.monotonic() + wait, wait)
                continue
            except (OSError, HTTPException, ValueError) as error:
                # Nobody is there.
                self._note(error)
                self._next = time.monotonic() + self._delay
                self._delay = min(2 * self._delay, _LONGEST_RETRY)
                return
            self._delay = _RETRY
            self._posted.discard(news.id)
            self._first.pop((news.job, news.event), None)
            self._refused.pop(news.id, None)
            log.info("news delivered", job=news.job, news=news.event)
            transact(self._database, lambda c, job=news.job, notice=notice: keep_notice(c, job, notice))  # type: ignore[misc]

    def _news(self, connection: Connection) -> Iterator[tuple[News, str | None]]:
        for job_id in untold_ends(connection):
            job = _report(connection, job_id)
            if job is not None:
                event: Literal["finished", "failed"] = "finished" if job.images[ImageStatus.SCORED] else "failed"
                yield self._piece(job, event, f"Job {job_id} is finished."), FINISHED
        told = notices(connection)
        stalls = {
            job_id: stall
            for job_id, stall in diagnose(connection, view_jobs(connection, limit=None, active=True)).items()
            if stall.kind not in EXPECTED
        }
        self._seen = {job_id: self._seen.get(job_id, time.monotonic()) for job_id in stalls}
        for job_id, stall in stalls.items():
            if job_id not in told and time.monotonic() - self._seen[job_id] >= _SETTLE:
                yield from self._of_stall(connection, job_id, stall)
        for job_id in told.keys() - stalls.keys():
            job = _report(connection, job_id)
            if job is not None:
                yield self._piece(job, "resumed", f"Job {job_id} goes on."), None

    def _of_stall(self, connection: Connection, job_id: int, stall: Stall) -> Iterator[tuple[News, str]]:
        job = _report(connection, job_id)
        if job is not None:
            # The sentence for operators may name the source of an interrupted submission.
            text = f"Job {job_id} does not progress: {stall.kind.replace('_', ' ')}. Run `dermq status {job_id}`."
            yield self._piece(job, "stalled", text), stall.kind

    def _piece(self, job: JobReport, event: Literal["finished", "failed", "stalled", "resumed"], text: str) -> News:
        at = self._first.setdefault((job.id, event), datetime.now(UTC))
        return _news(job, event, text, at)

    def _send(self, news: News) -> None:
        body = news.model_dump_json().encode()
        if self._url is not None and news.id not in self._posted:
            _post(self._url, body)
            # Not again, if the command fails.
            self._posted.add(news.id)
        if self._command:
            # Without the variables of this process, which hold passwords.
            environment = {name: value for name, value in os.environ.items() if name in _PASSED_ON}
            subprocess.run(  # noqa: S603 - the operator's own
                self._command,
                input=body + b"\n",
                timeout=_TIMEOUT,
                check=True,
                stdout=subprocess.DEVNULL,
                env=environment,
            )

    def _note(self, error: Exception) -> None:
        if self._throttle.allow():
            # Without the address, which may hold a secret.
            log.warning("news could not be delivered, trying again", reason=_reason(error))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET without its content."""

    def redirect_request(self, *_: Any) -> None:
        """Refuse."""


def _post(url: str, body: bytes) -> None:
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})  # noqa: S310 - checked in the settings
    with urllib.request.build_opener(_NoRedirect).open(request, timeout=_TIMEOUT):
        pass


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the receiver answered {error.code}"
    if isinstance(error, subprocess.CalledProcessError):
        return f"the command ended with status {error.returncode}"
    return type(error).__name__


def _report(connection: Connection, job_id: int) -> JobReport | None:
    views = view_jobs(connection, job_id=job_id)
    return report_job(connection, views[0]) if views else None


def _news(job: JobReport, event: Literal["finished", "failed", "stalled", "resumed"], text: str, at: datetime) -> News:
    return News(
        id=f"{job.id}-{event}-{at:%Y%m%dT%H%M%S%f}Z",
        event=event,
        job=job.id,
        name=job.name,
        submitted=job.submitted,
        scored=job.images[ImageStatus.SCORED],
        ungradable=job.images[ImageStatus.UNGRADABLE],
        failed=job.images[ImageStatus.FAILED],
        high_risk=job.flags.get(TriageFlag.HIGH_RISK, 0),
        text=text,
        at=at,
    )
