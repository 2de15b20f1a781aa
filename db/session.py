"""Engines and transactions for SQLite and PostgreSQL."""

import functools
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from sqlalchemy import Connection, Engine, NullPool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

#: Seconds that a statement waits for SQLite's one writer before it fails and the transaction is tried again.
SQLITE_BUSY_SECONDS = 10.0
#: How often a transaction is tried when the database is locked, restarting or has closed the connection.
ATTEMPTS = 5
#: Seconds before the second attempt; doubled for each further one.
BACKOFF_SECONDS = 0.2

#: Connections to PostgreSQL that a scoring process holds: for its outcomes, for its lease, for the next batch.
CONNECTIONS = 3
#: Limits for a PostgreSQL server that does not answer: seconds to connect, seconds of silence before the first
#: keepalive, seconds between keepalives, their number, and milliseconds that sent data may go unacknowledged. Without
#: them the kernel waits two hours for a server that has lost its power.
_POSTGRES_TIMEOUTS = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_URL_FORMS = "sqlite:////absolute/path/dermq.db or postgresql://user:password@host/name"
_READ_ONLY = "dermq_read_only"
#: SQLite's result codes for a lock that another connection holds. A reader gets "protocol" when the locks of the
#: write-ahead log stay taken for ten seconds: by a frozen process, or on a slow disk.
_SQLITE_LOCKS = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")

Result = TypeVar("Result")


class ReadOnlyError(Exception):
    """The database does not accept writes."""


class DatabaseUrlError(ValueError):
    """dermq cannot use this database URL."""


class UnknownSchemaError(Exception):
    """A newer version of dermq made the schema of this database."""


def open_database(url: str, *, busy_seconds: float = SQLITE_BUSY_SECONDS) -> Engine:
    """Make an engine. It does not connect yet.

    SQLite gets a write-ahead log, full synchronisation, a busy timeout, no pool, and ``BEGIN IMMEDIATE``: with the
    driver's defaults, 110 of 180 concurrent read-modify-write updates were lost. A SQLite file that does not exist is
    never created here, only by `db.schema.migrate`. PostgreSQL gets a pool that survives a restart of the server.
    Errors of either never contain bound values, because these can be patient references.

    Args:
        url: ``sqlite:////absolute/path`` or ``postgresql://user:password@host/name`` (psycopg 3).
        busy_seconds: that a statement waits for SQLite's one writer.

    Returns:
        An engine for `transact` and `read`.

    Raises:
        DatabaseUrlError: the URL cannot be parsed, names another kind of database, or its driver is not installed.
    """
    try:
        address = make_url(url)
    except (ArgumentError, ValueError):
        # Its own text repeats the URL, which may hold a password.
        raise DatabaseUrlError(f"The database URL cannot be parsed. Write {_URL_FORMS}.") from None
    backend = address.get_backend_name()
    if backend == "sqlite":
        if address.database in (None, "", ":memory:"):
            raise DatabaseUrlError(f"The SQLite URL names no file. Write {_URL_FORMS}.")
        engine = create_engine(
            address,
            poolclass=NullPool,
            creator=functools.partial(_connect_sqlite, str(address.database), busy_seconds),
            hide_parameters=True,
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if backend == "postgresql":
        try:
            return create_engine(
                address,
                pool_pre_ping=True,
                pool_size=CONNECTIONS,
                max_overflow=3,
                hide_parameters=True,
                connect_args=_POSTGRES_TIMEOUTS,
            )
        except ModuleNotFoundError as error:
            raise DatabaseUrlError(
                f"PostgreSQL needs {error.name}, which is not installed: pip install 'dermq[postgres]'."
            ) from None
    raise DatabaseUrlError(f"dermq does not support databases of kind {backend!r}. Write {_URL_FORMS}.")


def _connect_sqlite(path: str, busy_seconds: float) -> sqlite3.Connection:
    """Connect to a file that exists. SQLite would create a missing one: empty, and readable by every account."""
    uri = f"file:{quote(str(Path(path).absolute()))}?mode=rw"
    return sqlite3.connect(uri, uri=True, timeout=busy_seconds)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver must not begin transactions: `_begin_sqlite` does.
    connection.isolation_level = None
    cursor = connection.cursor()
    # secure_delete overwrites deleted rows: patient references must not stay in free pages.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    reads = connection.get_execution_options().get(_READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def transact(engine: Engine, work: Callable[[Connection], Result]) -> Result:
    """Run a function in one transaction and commit. On a temporary error, run the whole transaction again.

    Args:
        engine: from `open_database`.
        work: takes the connection. It must be safe to run again: a failed attempt is rolled back, but when only the
            reply to a commit is lost, the first attempt has taken effect.

    Returns:
        What ``work`` returned in the attempt that was committed.

    Raises:
        OperationalError: every attempt failed.
    """
    return _with_retries(lambda: _in_transaction(engine, work))


def read(engine: Engine, work: Callable[[Connection], Result], *, attempts: int = ATTEMPTS) -> Result:
    """Run a function that only reads, on one consistent snapshot. On SQLite it does not wait for the writer.

    Args:
        engine: from `open_database`.
        work: takes the connection.
        attempts: how often it is tried. One for pages, which ask again soon.

    Raises:
        OperationalError: every attempt failed.
    """
    options: dict[str, Any] = {_READ_ONLY: True}
    if engine.dialect.name == "postgresql":
        options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    return _with_retries(lambda: _in_transaction(engine.execution_options(**options), work), attempts)


def is_out_of_connections(error: Exception) -> bool:
    """Whether PostgreSQL refused a connection because all its connections are in use."""
    # A refused connection carries no SQLSTATE. These are the server's texts for 53300.
    text = str(error)
    return any(words in text for words in ("too many clients", "too many connections", "remaining connection slots"))


def refuse_read_only(connection: Connection) -> None:
    """Return if the transaction may write. Call it in `transact`: on SQLite, beginning the transaction is the check.

    Raises:
        ReadOnlyError: PostgreSQL is a standby, or set to read only.
    """
    if connection.dialect.name == "postgresql":
        answer = connection.exec_driver_sql("SHOW transaction_read_only").scalar_one()
        if answer == "on":
            raise ReadOnlyError


def empty_write_ahead_log(engine: Engine) -> bool:
    """Move SQLite's write-ahead log into the database and empty it: deleted rows would stay readable in it.

    Returns:
        Whether it is empty. It is not when another connection still reads after `SQLITE_BUSY_SECONDS`.
    """
    if engine.dialect.name != "sqlite":
        return True
    try:
        with closing(engine.raw_connection()) as connection:
            cursor = connection.cursor()
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            # A reader in the way is no error: the first column says so.
            (blocked, *_), *_ = cursor.fetchall()
            return not blocked
    except sqlite3.OperationalError as error:
        if _is_sqlite_lock(error):
            return False
        raise


def _in_transaction(engine: Engine, work: Callable[[Connection], Result]) -> Result:
    with engine.connect() as connection:
        transaction = connection.begin()
        try:
            result = work(connection)
            transaction.commit()
        except BaseException:
            if _is_in_statement(connection):
                # A time limit struck during a statement: a rollback would fail and hide it.
                connection.invalidate()
            transaction.rollback()
            raise
        return result


def _is_in_statement(connection: Connection) -> bool:
    """Whether PostgreSQL still runs a statement whose result was not fetched."""
    if connection.invalidated or connection.dialect.name != "postgresql":
        return False
    info = getattr(connection.connection.driver_connection, "info", None)
    return info is not None and info.transaction_status.name == "ACTIVE"


def _with_retries(attempt: Callable[[], Result], attempts: int = ATTEMPTS) -> Result:
    for number in range(1, attempts):
        try:
            return attempt()
        except DBAPIError as error:
            if not _is_temporary(error):
                raise
            time.sleep(BACKOFF_SECONDS * 2 ** (number - 1))
    return attempt()


def _is_sqlite_lock(error: BaseException | None) -> bool:
    return str(getattr(error, "sqlite_errorname", "")).startswith(_SQLITE_LOCKS)


def _is_temporary(error: DBAPIError) -> bool:
    """Whether another attempt may succeed: a lock, a deadlock, a serialisation failure, or a lost connection."""
    if error.connection_invalidated:
        return True
    if not isinstance(error, OperationalError):
        return False
    text = str(error.orig)
    if "timeout expired" in text:
        # One wait of ten seconds for a silent server is enough here. Workers wait on, and log it.
        return False
    # SQLite also raises an OperationalError for "no such table" and "unable to open database file": not temporary.
    if _is_sqlite_lock(error.orig):
        return True
    return getattr(error.orig, "sqlstate", None) is not None or "connection" in text
