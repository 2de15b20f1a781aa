"""Migrates a database to the newest schema and reads which schema it has."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from db.session import UnknownSchemaError

_MIGRATIONS = Path(__file__).parent / "migrations"
#: Key of PostgreSQL's advisory lock for migrations. Any number that only dermq uses.
_ADVISORY_LOCK = 0x6465726D71


def migrate(engine: Engine) -> None:
    """Apply every missing migration. Concurrent calls wait for each other: without a lock, two of three crash.

    Raises:
        UnknownSchemaError: a newer version made the schema. Nothing was changed.
    """
    with _only_one(engine), engine.connect() as connection:
        found = current_revision(connection)
        connection.rollback()
        if not is_known(found):
            raise UnknownSchemaError(
                f"The database has schema {found}; this version of dermq knows {newest_revision()} and older. "
                "Nothing was changed. Run the newer version of dermq."
            )
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def newest_revision() -> str:
    """The revision that the code expects."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise RuntimeError(f"No migrations under {_MIGRATIONS}. Install dermq again.")
    return head


def is_known(revision: str | None) -> bool:
    """Whether this version can migrate a database at this revision (None: an empty database)."""
    return revision is None or revision in {
        script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()
    }


def current_revision(connection: Connection) -> str | None:
    """The revision of the database. None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


@contextmanager
def _only_one(engine: Engine) -> Iterator[None]:
    if engine.dialect.name == "sqlite":
        database = Path(str(engine.url.database))
        database.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # It will hold patient references, so only this account may read it. SQLite gives its log the same mode.
        os.close(os.open(database, os.O_RDWR | os.O_CREAT, 0o600))
        database.chmod(0o600)
        with Path(f"{database}.migrate-lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        return
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _ADVISORY_LOCK})
        connection.commit()
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _ADVISORY_LOCK})
            connection.commit()
