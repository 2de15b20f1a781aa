"""Engines and transactions for SQLite and PostgreSQL."""

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, NullPool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

#: Seconds that a statement waits for SQLite's one writer before it fails and the transaction is tried again.
SQLITE_BUSY_SECONDS = 10.0
#: Times a transaction is tried when the database is locked, restarting or has closed the connection.
ATTEMPTS = 5
#: Seconds before the second attempt; doubled for each further one.
BACKOFF_SECONDS = 0.2

#: Connections to PostgreSQL that a process holds at work: one for what it does, one for its lease.
CONNECTIONS = 2
#: How long a PostgreSQL that says nothing is waited for: seconds to connect, seconds of silence before the network is
#: asked, seconds between questions, questions; and milliseconds that sent data may go unacknowledged. Without them a
#: server that lost its power is waited for as long as the kernel likes, two hours.
_POSTGRES_PATIENCE = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_URL_FORMS = "sqlite:////absolute/path/dermq.db or postgresql://user:password@host/name"
_READ_ONLY = "dermq_read_only"
#: Results of SQLite that mean a lock of somebody else. "Protocol" is a reader's word for it, of one that found the
#: write-ahead log's own locks taken for ten seconds: a process that was frozen while it held them, or a slow disk.
_SQLITE_LOCKS = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")

Result = TypeVar("Result")


class ReadOnlyError(Exception):
    """The database takes no writes."""


class DatabaseUrlError(ValueError):
    """The database's address is not one that dermq can use."""


class UnknownSchemaError(Exception):
    """The database has a schema that this version does not know: a newer dermq made it."""


def open_database(url: str) -> Engine:
    """Make an engine; nothing is connected yet.

    SQLite gets a write-ahead log, full synchronisation, a busy timeout, no pool, and ``BEGIN IMMEDIATE``: with the
    driver's defaults, 110 of 180 concurrent read-modify-write updates were lost. PostgreSQL gets a pool that survives a
    restart of the server. Neither writes bound values, patient references among them, into an error's text.

    Args:
        url: ``sqlite:////absolute/path`` or ``postgresql://user:password@host/name`` (psycopg 3).

    Returns:
        An engine for `transact` and `read`.

    Raises:
        DatabaseUrlError: the URL is not one, is of another database, or its driver is not installed.
    """
    try:
        address = make_url(url)
    except (ArgumentError, ValueError):
        # Its own text repeats the URL, which may hold a password.
        raise DatabaseUrlError(f"Received: a database URL that cannot be parsed. Expected: {_URL_FORMS}.") from None
    backend = address.get_backend_name()
    if backend == "sqlite":
        if address.database in (None, "", ":memory:"):
            raise DatabaseUrlError(f"Received: a SQLite URL without a file. Expected: {_URL_FORMS}.")
        engine = create_engine(
            address, poolclass=NullPool, connect_args={"timeout": SQLITE_BUSY_SECONDS}, hide_parameters=True
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
                connect_args=_POSTGRES_PATIENCE,
            )
        except ModuleNotFoundError as error:
            raise DatabaseUrlError(
                f"PostgreSQL needs {error.name}, which is not installed: pip install 'dermq[postgres]'."
            ) from None
    raise DatabaseUrlError(f"Received: a database URL for {backend!r}. Expected: {_URL_FORMS}.")


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver must not begin transactions on its own: `_begin_sqlite` does.
    connection.isolation_level = None
    cursor = connection.cursor()
    # What is deleted is overwritten: patient references must not stay in free pages.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    reads = connection.get_execution_options().get(_READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def transact(engine: Engine, work: Callable[[Connection], Result]) -> Result:
    """Run a function in one transaction and commit; try the whole again on a passing fault of the database.

    Args:
        engine: from `open_database`.
        work: takes the connection; must be safe to run again, since a failed attempt is rolled back.

    Returns:
        What ``work`` returned in the attempt that was committed.

    Raises:
        OperationalError: the fault stayed for every attempt.
    """
    return _with_retries(lambda: _in_transaction(engine, work))


def read(engine: Engine, work: Callable[[Connection], Result]) -> Result:
    """Run a function that only reads, on one consistent view; on SQLite it does not wait for the writer."""
    options: dict[str, Any] = {_READ_ONLY: True}
    if engine.dialect.name == "postgresql":
        options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    return _with_retries(lambda: _in_transaction(engine.execution_options(**options), work))


def is_out_of_connections(error: Exception) -> bool:
    """Whether PostgreSQL refused a connection because others hold all that it gives."""
    # No SQLSTATE reaches us of a connection that was not made; these are the server's words for 53300.
    text = str(error)
    return any(words in text for words in ("too many clients", "too many connections", "remaining connection slots"))


def refuse_read_only(connection: Connection) -> None:
    """Pass if the transaction may write; call it in one of `transact`, which on SQLite proves it by beginning.

    Raises:
        ReadOnlyError: PostgreSQL is a standby, or set to read only.
    """
    if connection.dialect.name == "postgresql":
        answer = connection.exec_driver_sql("SHOW transaction_read_only").scalar_one()
        if answer == "on":
            raise ReadOnlyError


def empty_write_ahead_log(engine: Engine) -> bool:
    """Take SQLite's write-ahead log over into the database and cut it off: deleted rows would stay readable in it.

    Returns:
        Whether it is empty now; not while somebody reads or holds it, after a wait of `SQLITE_BUSY_SECONDS` or of
        SQLite's own ten seconds.
    """
    if engine.dialect.name != "sqlite":
        return True
    try:
        with closing(engine.raw_connection()) as connection:
            cursor = connection.cursor()
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            # A reader makes it no error: the first column says whether it was in the way.
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
                # A time limit struck while the server was asked: a rollback would fail, and hide the limit.
                connection.invalidate()
            transaction.rollback()
            raise
        return result


def _is_in_statement(connection: Connection) -> bool:
    """Whether PostgreSQL still works on a statement whose answer nobody has waited for."""
    if connection.invalidated or connection.dialect.name != "postgresql":
        return False
    info = getattr(connection.connection.driver_connection, "info", None)
    return info is not None and info.transaction_status.name == "ACTIVE"


def _with_retries(attempt: Callable[[], Result]) -> Result:
    for number in range(1, ATTEMPTS):
        try:
            return attempt()
        except DBAPIError as error:
            if not _is_passing(error):
                raise
            time.sleep(BACKOFF_SECONDS * 2 ** (number - 1))
    return attempt()


def _is_sqlite_lock(error: BaseException | None) -> bool:
    return str(getattr(error, "sqlite_errorname", "")).startswith(_SQLITE_LOCKS)


def _is_passing(error: DBAPIError) -> bool:
    """Whether another attempt may succeed: locked, deadlocked, serialisation, or the connection is gone."""
    if error.connection_invalidated:
        return True
    if not isinstance(error, OperationalError):
        return False
    text = str(error.orig)
    if "timeout expired" in text:
        # A server that says nothing was waited for once, for ten seconds. Workers go on waiting, and say so.
        return False
    # "no such table" and "unable to open database file" are operational errors of SQLite too, and do not pass.
    if _is_sqlite_lock(error.orig):
        return True
    return getattr(error.orig, "sqlstate", None) is not None or "connection" in text
