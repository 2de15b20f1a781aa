"""The commands of docs/install-server.md bring a database back as it was, and dermq goes on with it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select

from db.models import Image, Job
from db.session import open_database, read
from tests.dicom_files import dicom
from tests.integration.databases import add_job
from tests.integration.stub_scoring import FakeEngine, job_of, score
from tests.picture_files import PICTURE
from worker.inference.bundle import Bundle


def run(*command: str) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not on this machine")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_restored_database_is_as_it_was(
    database: Engine, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / "a.dcm").write_bytes(dicom(PICTURE))
    made = job_of(database, archive)
    assert score(database, made, bundle, FakeEngine()) == 1
    url = database.url.render_as_string(hide_password=False)
    copy = tmp_path / "dermq.dump"
    sqlite = database.dialect.name == "sqlite"
    file = Path(str(database.url.database))
    if sqlite:
        run("sqlite3", str(file), f".backup {copy}")
    else:
        # As it is without SQLAlchemy's choice of a driver.
        url = url.replace("postgresql+psycopg://", "postgresql://")
        run("pg_dump", "-Fc", "-f", str(copy), url)
    # What came after the backup is lost, and nothing else.
    add_job(database, 3)
    database.dispose()
    if sqlite:
        for ending in ("-wal", "-shm"):
            file.with_name(file.name + ending).unlink(missing_ok=True)
        shutil.copyfile(copy, file)
    else:
        run("pg_restore", "--clean", "--if-exists", "-d", url, str(copy))
    monkeypatch.setenv("DERMQ_DATABASE_URL", url)
    for words in (("migrate",), ("reconcile", str(made.job_id)), ("audit", "verify")):
        run(sys.executable, "-m", "worker.cli", *words)
    restored = open_database(url)
    counts = read(
        restored,
        lambda c: [c.scalar(select(func.count()).select_from(table)) for table in (Job, Image)],
    )
    restored.dispose()
    assert counts == [1, 1]
