"""A SQLite file with damaged pages, and what `dermq check` says of it."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from db.session import empty_write_ahead_log
from tests.integration.databases import add_job
from worker import database_check
from worker.database_check import check_pages
from worker.errors import DatabaseError
from worker.settings import Settings


def settings_of(database: Engine) -> Settings:
    return Settings(database_url=f"sqlite:///{database.url.database}")  # type: ignore[arg-type]


def test_a_whole_file_is_whole(sqlite_database: Engine) -> None:
    assert check_pages(settings_of(sqlite_database)) == "its pages are whole"


@pytest.mark.parametrize("every", [2, 3, 7])
def test_overwritten_pages_are_found(sqlite_database: Engine, every: int) -> None:
    """`dermq check` said ok with a third of the pages overwritten."""
    add_job(sqlite_database, 2_000)
    assert empty_write_ahead_log(sqlite_database)
    sqlite_database.dispose()
    file = Path(str(sqlite_database.url.database))
    data = bytearray(file.read_bytes())
    for page in range(every, len(data) // 4096, every):
        data[page * 4096 : (page + 1) * 4096] = b"\xa5" * 4096
    file.write_bytes(data)
    with pytest.raises(DatabaseError, match=r"damaged.*restore a backup"):
        check_pages(settings_of(sqlite_database))


def test_a_large_file_is_checked_for_some_seconds_only(
    sqlite_database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_job(sqlite_database, 5_000)
    monkeypatch.setattr(database_check, "_PAGE_SECONDS", -1.0)
    found = check_pages(settings_of(sqlite_database))
    assert found is not None
    assert "not all pages were read" in found
