"""Migrations: they may run again, they may run at once, and they make what the models say."""

import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata, produce_migrations, render_python_code
from alembic.migration import MigrationContext
from click.testing import CliRunner
from sqlalchemy import Engine, func, inspect, select, text
from sqlalchemy.exc import IntegrityError, StatementError

from db.models import Base, Chunk, Image, Job, ModelBundle, Prediction
from db.schema import _config, current_revision, migrate, newest_revision
from db.session import UnknownSchemaError, open_database, read, transact
from db.status import UngradableReason
from tests.integration.databases import add_job, add_row, change, row
from worker.cli import main
from worker.database_check import check_database
from worker.errors import DermqError
from worker.settings import load_settings


def test_migrating_twice_is_fine_and_keeps_what_is_there(empty_url: str) -> None:
    engine = open_database(empty_url)
    try:
        migrate(engine)
        made = add_job(engine, 2)
        migrate(engine)
        assert read(engine, current_revision) == newest_revision()
        assert row(engine, Job, made.job_id).root == "/nowhere"
    finally:
        engine.dispose()


def test_a_schema_of_a_newer_version_is_left_alone(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    transact(database, lambda c: c.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(UnknownSchemaError, match=r"schema 9999; .* knows \d{4} and older"):
        migrate(database)
    assert read(database, current_revision) == "9999"
    monkeypatch.setenv("DERMQ_DATABASE_URL", database.url.render_as_string(hide_password=False))
    with pytest.raises(DermqError, match="schema 9999") as refused:
        check_database(load_settings())
    assert "dermq migrate" not in str(refused.value), "which would refuse"
    said = CliRunner().invoke(main, ["migrate"])
    assert (said.exit_code, said.stderr.count("\n")) == (2, 1), said.stderr


def test_models_and_migrations_agree(database: Engine) -> None:
    """When they do not, the message holds the migration that is missing, to start from."""
    with database.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        differences = compare_metadata(context, Base.metadata)
        upgrade = produce_migrations(context, Base.metadata).upgrade_ops
        assert upgrade is not None
        assert not differences, f"a migration is missing:\n{render_python_code(upgrade)}"


_MIGRATE = """
import sys
from pathlib import Path
from db.schema import migrate
from db.session import open_database
print("ready", flush=True)
sys.stdin.readline()
migrate(open_database(sys.argv[1]))
"""


def test_three_migrations_at_once_all_succeed(empty_url: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _MIGRATE, empty_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    engine = open_database(empty_url)
    assert read(engine, current_revision) == newest_revision()
    engine.dispose()


def test_a_status_that_no_enum_has_is_refused_before_it_is_written(database: Engine) -> None:
    made = add_job(database, 1)
    image = made.image_ids[0]
    for model, row_id, column in (
        (Job, made.job_id, "status"),
        (Chunk, made.chunk_ids[0], "status"),
        *((Image, image, name) for name in ("status", "failure_code", "ungradable_reason")),
    ):
        with pytest.raises(StatementError, match="benign"):
            change(database, model, row_id, **{column: "benign"})
    assert row(database, Image, image).status == "waiting"


def test_the_tables_hold_no_list_of_codes(database: Engine) -> None:
    """Every later input format brings new codes, which must not need a migration."""
    checks = [
        constraint["sqltext"]
        for table in Base.metadata.tables
        for constraint in inspect(database).get_check_constraints(table)
    ]
    assert not [check for check in checks if "waiting" in check or "no_contrast" in check]


@pytest.mark.parametrize("reason", UngradableReason)
def test_every_reason_is_taken(database: Engine, reason: UngradableReason) -> None:
    image = add_job(database, 1).image_ids[0]
    change(database, Image, image, ungradable_reason=reason)
    assert row(database, Image, image).ungradable_reason == reason


def test_the_newest_migration_can_be_taken_back_and_nothing_is_lost(empty_url: str) -> None:
    engine = open_database(empty_url)
    migrate(engine)
    made = add_job(engine, 2)
    change(engine, Image, made.image_ids[0], ungradable_reason=UngradableReason.OUT_OF_DISTRIBUTION)
    with engine.connect() as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0006")
        connection.commit()
    query = text("SELECT ungradable_reason FROM image ORDER BY id")
    assert read(engine, lambda c: list(c.scalars(query))) == ["unlike_dermoscopy", None]
    migrate(engine)
    reasons = [row(engine, Image, image).ungradable_reason for image in made.image_ids]
    assert reasons == [UngradableReason.OUT_OF_DISTRIBUTION, None]
    engine.dispose()


def test_a_path_stands_once_in_a_job(database: Engine) -> None:
    made = add_job(database, 2)
    with pytest.raises(IntegrityError):
        change(database, Image, made.image_ids[1], path="0/0.jpg")
    add_job(database, 2)  # another job may hold the same


def test_a_row_of_nothing_is_refused(database: Engine) -> None:
    """SQLite checks foreign keys only when it is asked to."""
    with pytest.raises(IntegrityError):
        add_row(database, Chunk, job_id=7, status="waiting", size=1, attempt=0)


def test_the_tables_begin_empty(database: Engine) -> None:
    with database.connect() as connection:
        for table in (ModelBundle, Job, Chunk, Image, Prediction):
            assert connection.scalar(select(func.count()).select_from(table)) == 0


def test_rows_survive_the_migration_from_the_first_schema(empty_url: str) -> None:
    """On SQLite a migration that copies a table drops the old copy, which would cascade into what refers to it."""
    engine = open_database(empty_url)
    if engine.dialect.name == "sqlite":
        # Only `migrate` creates the file.
        Path(str(engine.url.database)).touch()
    with engine.connect() as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    rows = (
        "INSERT INTO model_bundle (id, sha256, name, version, recorded_at) "
        "VALUES (1, 'b', 'n', '1', '2026-01-01 00:00:00')",
        "INSERT INTO job (id, status, urgent, root, bundle_id, policy, threshold, borderline_from, submitted_at) "
        "VALUES (1, 'finished', false, '/r', 1, 'youden', 0.5, 0.4, '2026-01-01 00:00:00')",
        "INSERT INTO chunk (id, job_id, status, size, attempt) VALUES (1, 1, 'done', 1, 1)",
        "INSERT INTO image (id, job_id, chunk_id, path, status, careful_starts) VALUES (1, 1, 1, 'a.jpg', 'scored', 0)",
        "INSERT INTO prediction (id, image_id, image_sha256, bundle_id, engine, raw_probability, probability, flag, "
        "scored_at) VALUES (1, 1, 'a', 1, 'e', 0.5, 0.4, 'low_risk', '2026-01-01 00:00:00')",
    )
    transact(engine, lambda connection: [connection.execute(text(row)) for row in rows])
    migrate(engine)
    query = (
        select(Job.force, Prediction.reused, Image.path, Prediction.flag, Job.borderline_threshold)
        .select_from(Prediction)
        .join(Image, Image.id == Prediction.image_id)
        .join(Job, Job.id == Image.job_id)
    )
    kept = read(engine, lambda connection: connection.execute(query).one())
    assert tuple(kept) == (False, False, "a.jpg", "lower_priority", 0.4)
    engine.dispose()
