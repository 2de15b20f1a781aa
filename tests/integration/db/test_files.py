"""SQLite's file: where it is, and that it is not made anew."""

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from db.schema import current_revision, migrate
from db.session import open_database, read
from worker.settings import Settings


@pytest.mark.parametrize("name", ["plain", "with space", "100%", "a?b", "a#b", "a&b=c", "ü", "%41"])
def test_a_home_with_characters_special_in_urls_holds_its_database(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    home.mkdir()
    engine = open_database(Settings(home=home).resolved_database_url())
    migrate(engine)
    engine.dispose()
    assert (home / "dermq.db").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_a_database_that_vanished_is_not_made_anew(tmp_path: Path) -> None:
    """It came back empty and readable for everybody, and workers went on as if nothing had been there."""
    path = tmp_path / "dermq.db"
    engine = open_database(f"sqlite:///{path}")
    migrate(engine)
    assert path.stat().st_mode & 0o777 == 0o600
    engine.dispose()
    for file in tmp_path.iterdir():
        file.unlink()
    again = open_database(f"sqlite:///{path}")
    with pytest.raises(OperationalError):
        read(again, current_revision)
    again.dispose()
    assert not list(tmp_path.iterdir())


def test_the_command_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "worker.cli", "status"],
        env={"DERMQ_DATABASE_URL": f"sqlite:///{tmp_path / 'gone.db'}", "DERMQ_HOME": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "gone.db" in done.stderr
