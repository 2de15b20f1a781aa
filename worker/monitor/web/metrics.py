"""What Prometheus reads at /metrics: gauges from SQL, counters from the broker, and Flower's own figures.

No label holds a job, a path or a person; docs/monitoring.md lists the metrics.
"""

import hmac
import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import SQLAlchemyError
from tornado.web import HTTPError

from db.drift import newest_of_bundle
from db.jobs import count_by_status, is_workable, view_jobs
from db.models import Chunk, Job, ModelBundle
from db.progress import HeldChunk, held_chunks
from db.session import read
from db.status import ChunkStatus, FailureCode, ImageStatus, JobStatus, TriageFlag, UngradableReason
from db.types import db_now
from worker.errors import BrokerError, BundleError
from worker.inference.bundle import Bundle, BundleManifest, load_bundle
from worker.monitor.drift import MOST, measure_drift
from worker.monitor.stalls import EXPECTED, StallKind, diagnose
from worker.monitor.web.handlers import Handler, Monitor
from worker.queue import counters
from worker.queue.hints import dropped_messages, last_sweeper, queue_length
from worker.terminal import printable

#: Counters with a label: name, meaning, label, prefix in the broker, and the values that a scrape always shows.
_LABELLED = (
    ("dermq_images", "Images with an outcome", "outcome", "images|", (*ImageStatus,)[1:]),
    ("dermq_failed_images", "Failed images by failure code", "code", "failed|", tuple(FailureCode)),
    ("dermq_ungradable_images", "Ungradable images by reason", "reason", "ungradable|", tuple(UngradableReason)),
    ("dermq_flags", "Scored images by triage flag", "flag", "flag|", (*TriageFlag,)[:3]),
    ("dermq_stage_seconds", "Seconds of worker processes", "stage", "seconds|", ("prepare", "infer", "write")),
)
_PLAIN = (
    ("dermq_reused_images", "Images whose output was reused", "reused"),
    ("dermq_chunks", "Chunks that were closed", "chunks"),
    (
        "dermq_repeated_claims",
        "Closed chunks of which an earlier attempt had crashed or lost its lease",
        "repeated_claims",
    ),
    ("dermq_sweeps", "Sweeps", "sweeps"),
    ("dermq_swept_hints", "Hints that sweepers sent", "swept_hints"),
)


class Metrics(Handler):
    """The figures as text."""

    async def get(self) -> None:
        """For whoever has the token, or is signed in."""
        token = self.monitor.settings.metrics_token
        given = self.request.headers.get("Authorization", "")
        right = token is not None and hmac.compare_digest(given.encode(), f"Bearer {token.get_secret_value()}".encode())
        if not right and given.startswith("Bearer "):
            raise HTTPError(403, "This is not the token of DERMQ_METRICS_TOKEN.")
        if not right and not self.current_user:
            raise HTTPError(401)
        self.application.purge_offline_worker_metrics()
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Figures(self.monitor))
        text = await self.in_thread(lambda: generate_latest(registry) + generate_latest(REGISTRY))
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.write(text)


class _Figures:
    """Collects the figures anew at each scrape."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def collect(self) -> Iterator[Metric]:
        """All figures that can be had now."""
        checks = GaugeMetricFamily("dermq_up", "Whether a part of dermq works", labels=["component"])
        for check in self._monitor.state.current():
            checks.add_metric([check.component], float(check.ok))
        yield checks
        yield from self._workers()
        # When one of them does not answer, dermq_up says so, and its figures are missing.
        with suppress(BrokerError):
            yield from self._of_broker()
        with suppress(SQLAlchemyError):
            yield from read(self._monitor.database, lambda connection: list(_of_database(connection)))
        with suppress(SQLAlchemyError, BundleError):
            bundle = _bundle(self._monitor.settings.resolved_bundle())
            yield read(self._monitor.database, lambda connection: _drift(connection, bundle.manifest, bundle.sha256))
        free = GaugeMetricFamily("dermq_home_free_bytes", "Free bytes on the disk of the home folder")
        if self._monitor.settings.home.is_dir():
            free.add_metric([], shutil.disk_usage(self._monitor.settings.home).free)
        yield free

    def _workers(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            "dermq_worker_processes", "Processes of the workers that answer", labels=["worker", "bundle", "engine"]
        )
        for name, answer in self._monitor.state.workers.items():
            bundle = "" if answer.bundle is None else str(answer.bundle)
            info.add_metric([printable(name), bundle, answer.engine], answer.processes)
        yield info

    def _of_broker(self) -> Iterator[Metric]:
        app = self._monitor.app
        found = counters.read(app)
        for name, what, label, prefix, values in _LABELLED:
            family = CounterMetricFamily(name, what, labels=[label])
            for value in values:
                family.add_metric([value], found.get(f"{prefix}{value}", 0.0))
            yield family
        for name, what, key in _PLAIN:
            yield CounterMetricFamily(name, what, value=found.get(key, 0.0))
        lengths = GaugeMetricFamily("dermq_queue_messages", "Hints in a queue", labels=["priority"])
        for urgent, priority in ((True, "urgent"), (False, "bulk")):
            lengths.add_metric([priority], queue_length(app, urgent=urgent))
        yield lengths
        yield CounterMetricFamily("dermq_dropped_messages", "Messages that were no hints", value=dropped_messages(app))
        yield GaugeMetricFamily(
            "dermq_sweeper_alive", "Whether a sweeper swept lately", value=float(last_sweeper(app) is not None)
        )


@lru_cache(maxsize=1)
def _bundle(folder: Path) -> Bundle:
    """Read once: what it refers to does not change while Flower runs."""
    return load_bundle(folder)


def _of_database(connection: Connection) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("dermq_jobs", "Jobs by status", labels=["status"])
    by_status = count_by_status(connection)
    for status in JobStatus:
        jobs.add_metric([status], by_status.get(status, 0))
    yield jobs
    stalls = diagnose(connection, view_jobs(connection, limit=None, active=True)).values()
    stalled = GaugeMetricFamily("dermq_stalled_jobs", "Open jobs that need attention, by cause", labels=["cause"])
    for kind in StallKind:
        if kind not in EXPECTED:
            stalled.add_metric([kind], sum(stall.kind is kind for stall in stalls))
    yield stalled
    yield from _waiting(connection)
    held = held_chunks(connection)
    expired = sum(chunk.lease_seconds_left < 0 for chunk in held)
    yield GaugeMetricFamily("dermq_expired_leases", "Chunks whose worker is frozen or dead", value=expired)
    yield _silence(held)


def _drift(connection: Connection, manifest: BundleManifest, sha256: str) -> Metric:
    family = GaugeMetricFamily(
        "dermq_drift",
        "Population stability index of the images scored last against those of the bundle",
        labels=["measure"],
    )
    bundle = connection.scalar(select(ModelBundle.id).where(ModelBundle.sha256 == sha256))
    images = [] if bundle is None else newest_of_bundle(connection, bundle, MOST)
    for each in measure_drift(images, manifest):
        family.add_metric([each.measure], each.index)
    return family


def _waiting(connection: Connection) -> Iterator[Metric]:
    chunks = GaugeMetricFamily("dermq_waiting_chunks", "Chunks that no worker has", labels=["priority"])
    oldest = GaugeMetricFamily(
        "dermq_oldest_waiting_seconds", "Age of the oldest job with a waiting chunk", labels=["priority"]
    )
    rows = connection.execute(
        select(Job.urgent, func.count(), func.min(Job.submitted_at), db_now())
        .join(Chunk, Chunk.job_id == Job.id)
        .where(is_workable(), Chunk.status == ChunkStatus.WAITING)
        .group_by(Job.urgent)
    ).all()
    found = {bool(urgent): (number, _age(since, now)) for urgent, number, since, now in rows}
    for urgent, priority in ((True, "urgent"), (False, "bulk")):
        number, age = found.get(urgent, (0, 0.0))
        chunks.add_metric([priority], number)
        oldest.add_metric([priority], age)
    yield chunks
    yield oldest


def _age(since: datetime | None, now: datetime | None) -> float:
    return 0.0 if since is None or now is None else (now - since).total_seconds()


def _silence(held: list[HeldChunk]) -> Metric:
    family = GaugeMetricFamily(
        "dermq_worker_silent_seconds", "Seconds since the last outcome of a chunk in hand, by host", labels=["host"]
    )
    longest: dict[str, float] = {}
    for chunk in held:
        host = printable(chunk.owner.partition(":")[0])
        longest[host] = max(longest.get(host, 0.0), chunk.silent_seconds)
    for host, seconds in longest.items():
        family.add_metric([host], seconds)
    return family
