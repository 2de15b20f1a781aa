"""The checks of `dermq check`: bundle, database, broker, workers and sweeper, each with a sentence that helps."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from celery import Celery
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from db.jobs import BundleWork, JobView, open_work, view_jobs
from db.session import DatabaseUrlError, open_database, read
from worker.database_check import check_pages
from worker.database_check import check_writes as check_database_writes
from worker.errors import BrokerError, DermqError
from worker.inference.bundle_reference import configured_bundle
from worker.monitor.stalls import EXPECTED, Stall, StallKind, diagnose
from worker.queue.app import make_app
from worker.queue.hints import check_writes, dropped_messages, last_sweeper, queue_length
from worker.queue.inspect import WorkerAnswer, workers_answers
from worker.settings import Settings
from worker.terminal import printable
from worker.url_redaction import shown_broker


class CheckResult(BaseModel):
    """The result for one component.

    Args:
        component: ``bundle``, ``database``, ``broker``, ``workers``, ``sweeper`` or ``jobs``.
        ok: whether it works.
        checked: false when another failure prevented the check. Then ``ok`` is false, too.
        text: what was found, and what to do when it does not work.
    """

    model_config = ConfigDict(frozen=True)

    component: str
    ok: bool
    checked: bool = True
    text: str


class CheckReport(BaseModel):
    """All results, for `dermq check --json`. ``ok`` is true when every component works."""

    ok: bool
    checks: list[CheckResult]


#: What a check cannot do without.
_NEEDS = {"workers": ("broker",), "sweeper": ("broker",), "jobs": ("database",)}
#: Seconds beyond a sweep in which a job that seems stalled may go on: its hint may be lost, or its worker stopped.
_AFTER_SWEEP = 3.0
#: Seconds between two looks.
_LOOK_AGAIN = 1.0
#: Causes first, then what follows from them.
_ORDER = (StallKind.SILENT, StallKind.LEASE_EXPIRED, StallKind.WRONG_BUNDLE, StallKind.INTERRUPTED)
#: What this command says by itself.
_ADVICE = " Run `dermq check` for the cause."
#: Stalled jobs that are described; the others are counted.
_DESCRIBED = 5


class _ProblemError(DermqError):
    """A component does not work. The text says why and what to do."""


def run_checks(
    settings: Settings,
    *,
    only: Collection[str] | None = None,
    app: Celery | None = None,
    answers: Mapping[str, WorkerAnswer] | None = None,
) -> Iterator[CheckResult]:
    """Check every component, whatever the others say.

    Workers and sweeper are asked through the broker. When it does not answer, they are not asked.

    Args:
        settings: of this place.
        only: components to check. None: all.
        app: to ask the broker with. None makes one, which keeps connections: pass one to check again and again.
        answers: of the workers, if they were asked a moment ago.
    """
    app = app or make_app(settings)
    failed: set[str] = set()
    checks: tuple[tuple[str, Callable[[], str]], ...] = (
        ("bundle", lambda: _check_bundle(settings)),
        ("database", lambda: _check_database(settings, pages=only is None)),
        ("broker", lambda: _check_broker(app, settings)),
        ("workers", lambda: _check_workers(app, settings, answers, ask_database="database" not in failed)),
        ("sweeper", lambda: _check_sweeper(app)),
        ("jobs", lambda: _check_jobs(settings)),
    )
    for component, check in checks:
        if only is not None and component not in only:
            continue
        cause = next((each for each in _NEEDS.get(component, ()) if each in failed), None)
        if cause is not None:
            text = f"Not checked, because the {cause} does not work."
            yield CheckResult(component=component, ok=False, checked=False, text=text)
            continue
        try:
            yield CheckResult(component=component, ok=True, text=check())
        except (DermqError, DatabaseUrlError) as error:
            failed.add(component)
            hint = " It comes from DERMQ_DATABASE_URL." if isinstance(error, DatabaseUrlError) else ""
            yield CheckResult(component=component, ok=False, text=f"{error}{hint}")


def _check_bundle(settings: Settings) -> str:
    # Here: these modules load OpenCV and the engine, which only this check needs.
    from worker.inference.bundle import load_bundle
    from worker.inference.reference import TOLERANCE, replay_reference
    from worker.scoring.loaded_model import LoadedModel

    # All that a worker loads, the out-of-distribution gate included.
    model = LoadedModel.load(load_bundle(settings.resolved_bundle()), settings.engine)
    replay = replay_reference(model.bundle, model.engine)
    manifest = model.bundle.manifest
    name = f"{manifest.name} {manifest.version} ({model.bundle.sha256[:12]}), {model.engine.label}"
    if replay.largest_difference > TOLERANCE or replay.wrong_flags:
        what = (
            f"a reference image differs by {replay.largest_difference:.4f}, where {TOLERANCE} is allowed"
            if replay.largest_difference > TOLERANCE
            else f"{replay.wrong_flags} reference images have another flag than at the export"
        )
        raise _ProblemError(f"{name}: {what}. Do not score with this engine on this machine.")
    text = f"{name}: {replay.images} reference images replayed, largest difference {replay.largest_difference:.4f}"
    return text if model.gate.max_score is not None else f"{text}; it has no out-of-distribution gate"


def _check_database(settings: Settings, *, pages: bool) -> str:
    """Whether the database takes writes, and whether its pages are whole, which takes seconds."""
    text = check_database_writes(settings)
    found = check_pages(settings) if pages else None
    return f"{text}; {found}" if found else text


def _check_broker(app: Celery, settings: Settings) -> str:
    try:
        check_writes(app)
        lengths = {name: queue_length(app, urgent=urgent) for name, urgent in (("urgent", True), ("bulk", False))}
    except BrokerError as error:
        advice = ""
        if "Timeout" in str(error):
            advice = (
                " It takes connections, so it is frozen or overloaded: restart it. If `dermq up` runs it, stop that "
                "and start it again."
            )
        elif "does not answer" in str(error):
            advice = " Start the system with `dermq up`, or set DERMQ_BROKER_URL."
        raise _ProblemError(f"{error}{advice}") from None
    waiting = ", ".join(f"{name} {length}" for name, length in lengths.items())
    text = f"{shown_broker(settings.resolved_broker_url())}, waiting messages: {waiting}"
    if dropped := dropped_messages(app):
        text += f"; workers dropped {dropped:,} that were no hints: does something else write to this Redis?"
    return text


def _check_workers(
    app: Celery, settings: Settings, answers: Mapping[str, WorkerAnswer] | None, *, ask_database: bool
) -> str:
    """Which workers answer, whether they have the bundle of this place, and whether a job waits for another one."""
    answers = workers_answers(app) if answers is None else answers
    bundles = {name: answer.bundle for name, answer in answers.items()}
    if not bundles:
        raise _ProblemError("No worker answered. Start the system with `dermq up`, or a worker with `dermq worker`.")
    answering = f"{len(bundles)} answering: {printable(', '.join(bundles))}"
    known = {bundle for bundle in bundles.values() if bundle is not None}
    if None in bundles.values():
        # One cannot tell its bundle, so a missing bundle would be a guess.
        return answering
    having = f"{answering}, with the bundle {', '.join(sorted(map(str, known)))}"
    works = _open_work(settings) if ask_database else []
    if stuck := [work for work in works if work.sha256 not in {bundle.sha256 for bundle in known}]:
        raise _ProblemError(f"{having}. {_waiting_for_other_bundle(stuck)}")
    here = configured_bundle(settings)
    if here is not None and here not in known:
        raise _ProblemError(
            f"{having}, but the bundle here is {here}: a job submitted here would wait for ever. Start a worker with "
            "that bundle, or set DERMQ_BUNDLE here to the workers' bundle."
        )
    return answering


def _check_jobs(settings: Settings) -> str:
    """Whether every open job progresses."""
    engine = open_database(settings.resolved_database_url())
    try:
        jobs = read(engine, _active)
        stalls = _stalled(engine, jobs)
        patience = time.monotonic() + settings.sweep_interval + _AFTER_SWEEP
        while stalls and time.monotonic() < patience:
            time.sleep(_LOOK_AGAIN)
            stalls = {job_id: stall for job_id, stall in _stalled(engine, jobs).items() if job_id in stalls}
    except SQLAlchemyError as error:
        raise _ProblemError(f"The jobs cannot be read ({type(error).__name__}).") from None
    finally:
        engine.dispose()
    if not stalls:
        return f"{len(jobs)} under way" if jobs else "none under way"
    alike: dict[str, list[int]] = {}
    for job_id, stall in sorted(stalls.items(), key=lambda each: (_rank(each[1]), each[0])):
        alike.setdefault(stall.text.removesuffix(_ADVICE), []).append(job_id)
    described = [f"{_jobs(ids)}: {text}" for text, ids in list(alike.items())[:_DESCRIBED]]
    rest = sum(map(len, list(alike.values())[_DESCRIBED:]))
    raise _ProblemError(" ".join(described) + (f" {rest:,} more jobs are stalled." if rest else ""))


def _rank(stall: Stall) -> int:
    return _ORDER.index(stall.kind) if stall.kind in _ORDER else len(_ORDER)


def _jobs(ids: Sequence[int]) -> str:
    """``Job 3``, or ``Jobs 3, 4 and 9,998 more``."""
    if len(ids) == 1:
        return f"Job {ids[0]}"
    rest = len(ids) - _DESCRIBED
    return f"Jobs {', '.join(map(str, ids[:_DESCRIBED]))}" + (f" and {rest:,} more" if rest > 0 else "")


def _active(connection: Connection) -> list[JobView]:
    return view_jobs(connection, limit=None, active=True)


def _stalled(engine: Engine, jobs: Sequence[JobView]) -> dict[int, Stall]:
    """Jobs that are stalled now, without those that somebody waits for on purpose."""
    ids = {job.id for job in jobs}

    def look(connection: Connection) -> dict[int, Stall]:
        return diagnose(connection, [job for job in _active(connection) if job.id in ids])

    found = read(engine, look)
    return {job_id: stall for job_id, stall in found.items() if stall.kind not in EXPECTED}


def _open_work(settings: Settings) -> list[BundleWork]:
    """Open work in a database that could be used a moment ago. Empty when it cannot any more."""
    engine = open_database(settings.resolved_database_url())
    try:
        return read(engine, open_work)
    except SQLAlchemyError:
        return []
    finally:
        engine.dispose()


def _waiting_for_other_bundle(works: list[BundleWork]) -> str:
    waiting = "; ".join(
        printable(f"{work.name} {work.version} ({work.sha256[:12]}): job {', '.join(map(str, work.jobs))}")
        for work in works
    )
    return (
        f"No worker has the bundle of these jobs: {waiting}. Start a worker with that bundle (DERMQ_BUNDLE), or cancel "
        "the jobs and submit again."
    )


def _check_sweeper(app: Celery) -> str:
    host = last_sweeper(app)
    if host is None:
        raise _ProblemError(
            "No sweep lately, so lost hints are not sent again. Start the system "
            "with `dermq up`, or a sweeper with `dermq sweep`."
        )
    return f"swept lately on {printable(host)}"
