"""Whether the database can be used, and what to do when it cannot. Commands and services call this before they
start.
"""

import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import cast

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from db.schema import current_revision, is_known, newest_revision
from db.session import (
    CONNECTIONS,
    ReadOnlyError,
    is_out_of_connections,
    open_database,
    read,
    refuse_read_only,
    transact,
)
from worker.errors import DatabaseError
from worker.log_throttle import LogThrottle
from worker.logging import get_logger
from worker.settings import Settings
from worker.url_redaction import shown_database, without_password

log = get_logger(__name__)

#: Free bytes on the disk of a SQLite database below which it counts as nearly full.
_MIN_FREE_BYTES = 50_000_000
#: Seconds that a check of the pages may take.
_PAGE_SECONDS = 5.0
#: Seconds between two checks while a service waits.
_CHECK_INTERVAL = 1.0


def check_database(settings: Settings) -> str:
    """Check that the database answers and has the schema that this code expects.

    Returns:
        A sentence about the database.

    Raises:
        DatabaseError: it cannot be used. The text says what to do.
    """
    url = settings.resolved_database_url()
    engine = open_database(url)
    shown = shown_database(url)
    if engine.dialect.name == "sqlite" and not Path(str(engine.url.database)).exists():
        raise DatabaseError(
            f"{shown} does not exist yet. If the system runs already, set its DERMQ_HOME or DERMQ_DATABASE_URL here, "
            "too. If not, start it with `dermq up`, or run `dermq migrate`."
        )
    try:
        found = read(engine, current_revision)
    except SQLAlchemyError as error:
        if is_out_of_connections(error):
            raise DatabaseError(
                f"{shown} has no free connection. Each worker process uses {CONNECTIONS}. Raise the server's "
                "max_connections (docker-compose.yml), or run fewer processes (DERMQ_CONCURRENCY)."
            ) from None
        raise DatabaseError(
            f"{shown} cannot be used: {type(error).__name__}: {_first_line(error, url)}. Check DERMQ_DATABASE_URL and "
            "that the server runs. PostgreSQL needs dermq[postgres]."
        ) from None
    finally:
        engine.dispose()
    if found != newest_revision():
        advice = "Run `dermq migrate`." if is_known(found) else "Run the newer version of dermq that made it."
        raise DatabaseError(f"{shown} has schema {found}; this version needs {newest_revision()}. {advice}")
    return f"{shown}, schema {found}"


def check_writes(settings: Settings) -> str:
    """As `check_database`, and check that the database accepts writes. Commands that only read do without it."""
    sentence = check_database(settings)
    url = settings.resolved_database_url()
    engine = open_database(url)
    try:
        transact(engine, refuse_read_only)
    except SQLAlchemyError as error:
        raise DatabaseError(
            f"The database can be read, but not written: {_first_line(error, url)}. Stop the process that holds the "
            "lock, and make the file and its folder writable."
        ) from None
    except ReadOnlyError:
        raise DatabaseError(
            "The database accepts no writes, because it is a standby. Set DERMQ_DATABASE_URL to the primary server."
        ) from None
    finally:
        engine.dispose()
    _check_free_space(engine)
    return sentence


def check_pages(settings: Settings) -> str | None:
    """Look for damage in the pages of a SQLite database, for `_PAGE_SECONDS` at most.

    Returns:
        What was found, for a person. None for PostgreSQL, which has checksums of its own.

    Raises:
        DatabaseError: the file is damaged.
    """
    engine = open_database(settings.resolved_database_url())
    if engine.dialect.name != "sqlite":
        return None
    end = time.monotonic() + _PAGE_SECONDS
    try:
        with closing(engine.raw_connection()) as connection:
            driver = cast("sqlite3.Connection", connection.driver_connection)
            # Called after so many steps of SQLite; anything but zero ends the statement.
            driver.set_progress_handler(lambda: time.monotonic() > end, 10_000)
            answers = [row[0] for row in driver.execute("PRAGMA quick_check(1)")]
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname == "SQLITE_INTERRUPT":
            return f"no damage found in {_PAGE_SECONDS:.0f} seconds, and not all pages were read"
        raise DatabaseError(f"The pages of the database cannot be checked: {error}.") from None
    except (sqlite3.DatabaseError, SQLAlchemyError):
        answers = ["it cannot be read"]
    finally:
        engine.dispose()
    if answers != ["ok"]:
        raise DatabaseError(
            "The file of the database is damaged. Stop dermq, keep a copy of the file, and restore a backup "
            "(docs/install-server.md). Then find out what damaged it: a disk, or a copy under a running system."
        )
    return "its pages are whole"


def _check_free_space(engine: Engine) -> None:
    if engine.dialect.name != "sqlite":
        return
    free = shutil.disk_usage(Path(str(engine.url.database)).parent).free
    if free < _MIN_FREE_BYTES:
        raise DatabaseError(
            f"The disk of the database has only {free // 1_000_000} MB left. Free some space; jobs then continue."
        )


def wait_for_database(settings: Settings) -> None:
    """Return when the database answers and has the right schema. Log once a minute what is missing."""
    throttle = LogThrottle()
    while True:
        try:
            check_database(settings)
        except DatabaseError as error:
            if throttle.allow():
                log.warning("waiting for the database", reason=str(error))
            time.sleep(_CHECK_INTERVAL)
        else:
            return


def _first_line(error: Exception, url: str) -> str:
    return without_password(str(error).splitlines()[0], url)
