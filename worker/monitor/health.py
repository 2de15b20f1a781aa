"""What `dermq check` asks each part: one line each, and what to do when it is not well."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from celery import Celery
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from db.jobs import BundleWork, open_work
from db.schema import current_revision, is_known, newest_revision
from db.session import (
    CONNECTIONS,
    DatabaseUrlError,
    ReadOnlyError,
    is_out_of_connections,
    open_database,
    read,
    refuse_read_only,
    transact,
)
from worker.errors import BrokerError, DermqError, EngineError
from worker.images.decode import decode
from worker.inference.bundle import Bundle, load_bundle
from worker.inference.bundle_reference import bundle_here
from worker.inference.engines import Engine, load_engine
from worker.log_throttle import Complaint
from worker.logging import get_logger
from worker.queue.app import make_app
from worker.queue.hints import last_sweeper, queue_length
from worker.queue.inspect import bundles_of_workers
from worker.settings import Settings
from worker.url_redaction import shown_database, without_password

log = get_logger(__name__)

#: Greatest difference of a probability from the one recorded at export: between engines and processors, never more.
REPLAY_TOLERANCE = 0.01
#: Bytes on the disk of an SQLite database below which it is about to be full.
_LEAST_FREE = 50_000_000
#: Seconds between two looks at a database that is waited for.
_ASK_EVERY = 1.0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found of one part."""

    part: str
    well: bool
    text: str


class _UnwellError(Exception):
    """The part is not well; the text says what it is and what to do."""


def check_all(settings: Settings) -> Iterator[Finding]:
    """Check bundle, database, broker, workers and sweeper, each whatever the others say.

    Workers and sweeper are asked through the broker: when that does not answer, they are not waited for.
    """
    app = make_app(settings)
    away: set[str] = set()
    parts: tuple[tuple[str, Callable[[], str]], ...] = (
        ("bundle", lambda: _check_bundle(settings)),
        ("database", lambda: _check_writes(settings)),
        ("broker", lambda: _check_broker(app)),
        ("workers", lambda: _check_workers(app, settings, ask_database="database" not in away)),
        ("sweeper", lambda: _check_sweeper(app)),
    )
    for part, check in parts:
        if "broker" in away:
            yield Finding(part=part, well=False, text="not asked: the broker, through which they answer, is away.")
            continue
        try:
            yield Finding(part=part, well=True, text=check())
        except (_UnwellError, DermqError, DatabaseUrlError) as error:
            away.add(part)
            hint = " It is what DERMQ_DATABASE_URL says." if isinstance(error, DatabaseUrlError) else ""
            yield Finding(part=part, well=False, text=f"{error}{hint}")


def check_database(settings: Settings) -> str:
    """Whether the database answers and has the schema this code expects.

    Returns:
        A sentence.

    Raises:
        _UnwellError: with what to do.
    """
    url = settings.resolved_database_url()
    engine = open_database(url)
    shown = shown_database(url)
    database = make_url(url).database
    if url.startswith("sqlite") and not (database and Path(database).exists()):
        raise _UnwellError(
            f"{shown} does not exist yet. Start the system with `dermq up`, or run `dermq migrate`; set DERMQ_HOME "
            "here if it is set where the system runs."
        )
    try:
        found = read(engine, current_revision)
    except SQLAlchemyError as error:
        if is_out_of_connections(error):
            raise _UnwellError(
                f"{shown} runs and has no connection left. Each worker process takes {CONNECTIONS}: raise its "
                "max_connections (docker-compose.yml), or run fewer (DERMQ_CONCURRENCY)."
            ) from None
        raise _UnwellError(
            f"{shown} cannot be used: {type(error).__name__}: {_first_line(error, url)}. Check DERMQ_DATABASE_URL "
            "and that the server runs; for PostgreSQL install dermq[postgres]."
        ) from None
    finally:
        engine.dispose()
    if found != newest_revision():
        advice = "Run `dermq migrate`." if is_known(found) else "A newer dermq brought it there: run that version."
        raise _UnwellError(f"{shown} has schema {found}, this code needs {newest_revision()}. {advice}")
    return f"{shown}, schema {found}"


def _check_writes(settings: Settings) -> str:
    """As `check_database`, and whether the database takes writes; commands that only read do without it."""
    well = check_database(settings)
    url = settings.resolved_database_url()
    engine = open_database(url)
    try:
        transact(engine, refuse_read_only)
    except SQLAlchemyError as error:
        raise _UnwellError(
            f"it can be read and not written: {_first_line(error, url)}. Whoever holds a lock must let it go, and "
            "the file and its folder must be writable."
        ) from None
    except ReadOnlyError:
        raise _UnwellError("it takes no writes: it stands by for another server. Name that one.") from None
    finally:
        engine.dispose()
    if url.startswith("sqlite"):
        free = shutil.disk_usage(Path(str(make_url(url).database)).parent).free
        if free < _LEAST_FREE:
            raise _UnwellError(f"its disk has {free // 1_000_000} MB left. Make room; what waits then goes on.")
    return well


def _first_line(error: Exception, url: str) -> str:
    return without_password(str(error).splitlines()[0], url)


def require_database(settings: Settings) -> None:
    """Refuse to go on without a usable database.

    Raises:
        DermqError: with what to do.
    """
    try:
        check_database(settings)
    except _UnwellError as error:
        raise DermqError(f"database: {error}") from None


def _check_bundle(settings: Settings) -> str:
    bundle = load_bundle(settings.resolved_bundle())
    engine = load_engine(settings.engine, bundle)
    worst, replayed = replay_reference(bundle, engine)
    if worst > REPLAY_TOLERANCE:
        raise _UnwellError(
            f"{bundle.manifest.name} {bundle.manifest.version} on {engine.label}: a reference image is off by "
            f"{worst:.4f}, at most {REPLAY_TOLERANCE} is right. Do not score with this engine on this machine."
        )
    return (
        f"{bundle.manifest.name} {bundle.manifest.version} ({bundle.sha256[:12]}), {engine.label}: "
        f"{replayed} reference images replayed, off by {worst:.4f} at most"
    )


def replay_reference(bundle: Bundle, engine: Engine) -> tuple[float, int]:
    """Score the bundle's reference images.

    Args:
        bundle: verified.
        engine: that loaded it.

    Returns:
        Greatest difference from the recorded probabilities before calibration, and the number of images.

    Raises:
        EngineError: the bundle holds no reference images.
    """
    folder = bundle.folder / "reference"
    # A quantised model says something else than the Keras model, and the bundle tells what.
    own = folder / f"expected-{engine.label.split()[0]}.json"
    try:
        expected: dict[str, float] = json.loads((own if own.exists() else folder / "expected.json").read_text())
    except (OSError, ValueError):
        expected = {}
    if not expected:
        raise EngineError("the bundle has no reference images to replay. Export it again.")
    inputs = [bundle.preprocessing(decode((folder / name).read_bytes())) for name in expected]
    found = engine.infer(np.stack(inputs)).probability
    return float(np.abs(found - np.array(list(expected.values()))).max()), len(inputs)


def _check_broker(app: Celery) -> str:
    try:
        return _describe_broker(app)
    except BrokerError as error:
        raise _UnwellError(f"{error} Start the system with `dermq up`, or set DERMQ_BROKER_URL.") from None


def _describe_broker(app: Celery) -> str:
    lengths = {name: queue_length(app, urgent=urgent) for name, urgent in (("urgent", True), ("bulk", False))}
    shown = app.connection_for_read().as_uri()
    return f"{shown}, waiting messages: " + ", ".join(f"{name} {length}" for name, length in lengths.items())


def _check_workers(app: Celery, settings: Settings, *, ask_database: bool) -> str:
    """Who answers, whether they have the bundle that is submitted under here, and whether a job waits for another."""
    bundles = bundles_of_workers(app)
    if not bundles:
        raise _UnwellError("none answered. Start the system with `dermq up`, or a worker with `dermq worker`.")
    said = f"{len(bundles)} answering: {', '.join(bundles)}"
    known = {bundle for bundle in bundles.values() if bundle is not None}
    if None in bundles.values():
        # One cannot tell: that no worker has a bundle would be a guess.
        return said
    have = f"{said}, with the bundle {', '.join(sorted(map(str, known)))}"
    works = _open_work(settings) if ask_database else []
    if stuck := [work for work in works if work.sha256 not in {bundle.sha256 for bundle in known}]:
        raise _UnwellError(f"{have}. {_stuck(stuck)}")
    here = bundle_here(settings)
    if here is not None and here not in known:
        raise _UnwellError(
            f"{have}, and here it is {here}: a job that is submitted here would wait for ever. Start a worker with "
            "that bundle, or set DERMQ_BUNDLE here as it is there."
        )
    return said


def _open_work(settings: Settings) -> list[BundleWork]:
    """What waits in a database that was well a moment ago, or nothing when it has gone since."""
    engine = open_database(settings.resolved_database_url())
    try:
        return read(engine, open_work)
    except SQLAlchemyError:
        return []
    finally:
        engine.dispose()


def _stuck(works: list[BundleWork]) -> str:
    waiting = "; ".join(
        f"{work.name} {work.version} ({work.sha256[:12]}): job {', '.join(map(str, work.jobs))}" for work in works
    )
    return (
        f"No worker has what these wait for: {waiting}. Start a worker with that bundle (DERMQ_BUNDLE), or `dermq "
        "cancel` them and submit again."
    )


def _check_sweeper(app: Celery) -> str:
    host = last_sweeper(app)
    if host is None:
        raise _UnwellError(
            "no sweep lately: lost hints are not sent again, and abandoned chunks wait. Start the system with "
            "`dermq up`, or a sweeper with `dermq sweep`."
        )
    return f"swept lately on {host}"


def wait_for_database(settings: Settings) -> None:
    """Return once the database answers and has the right schema; say once a minute what it still lacks."""
    complaint = Complaint()
    while True:
        try:
            check_database(settings)
        except _UnwellError as error:
            if complaint.due():
                log.warning("waiting for the database", reason=str(error))
            time.sleep(_ASK_EVERY)
        else:
            return
