"""Bring a database to the newest schema, and tell whether it is there."""

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
#: Key of the advisory lock that one migration at a time holds on PostgreSQL; any number that is ours alone.
_ADVISORY_LOCK = 0x6465726D71


def migrate(engine: Engine) -> None:
    """Apply every migration that is missing. Several at once wait for each other: three without a lock crash two.

    Raises:
        UnknownSchemaError: the schema is none of this version's; nothing was changed.
    """
    with _only_one(engine), engine.connect() as connection:
        found = current_revision(connection)
        connection.rollback()
        if not is_known(found):
            raise UnknownSchemaError(
                f"The database has schema {found}, and this version of dermq knows {newest_revision()} and older ones. "
                "Run the version that brought it there; nothing was changed."
            )
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def newest_revision() -> str:
    """Revision that the code expects."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise RuntimeError(f"no migrations under {_MIGRATIONS}: the installation is incomplete, install dermq again")
    return head


def is_known(revision: str | None) -> bool:
    """Whether a database at this revision, None for an empty one, can be migrated by this version."""
    return revision is None or revision in {
        script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()
    }


def current_revision(connection: Connection) -> str | None:
    """Revision that the database is at, or None for an empty one."""
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
        # Patient references stand in it: for this user alone, wherever it lies. SQLite gives its log the same mode.
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
