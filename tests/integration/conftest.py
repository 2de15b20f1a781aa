"""Databases and a bundle for tests below the level of processes."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from sqlalchemy import Engine

from db.schema import migrate
from db.session import open_database
from tests.integration.databases import PostgresServer, find_postgres_binaries
from tests.integration.orthanc import pacs, pacs_account  # noqa: F401 - fixtures
from tests.integration.submissions import messages_of
from tests.synthetic_bundle import METRICS
from worker.inference.bundle import Bundle, BundleManifest
from worker.queue.app import make_app
from worker.settings import Settings, load_settings
from worker.synthetic.archive import encode
from worker.synthetic.lesion import draw_lesion


def _migrated(url: str) -> str:
    engine = open_database(url)
    migrate(engine)
    engine.dispose()
    return url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server for the session; skips without its programs, fails where CI requires them."""
    binaries = find_postgres_binaries()
    if binaries is None:
        reason = "no PostgreSQL server programs (initdb, postgres) on this machine: install the postgresql package"
        if os.environ.get("CI") and os.environ.get("DERMQ_REQUIRE_POSTGRES"):
            pytest.fail(f"DERMQ_REQUIRE_POSTGRES is set, and there are {reason}")
        pytest.skip(reason)
    server = PostgresServer(binaries)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: PostgresServer) -> str:
    """Address of a migrated database to copy: a copy takes a tenth of the time that the migrations take."""
    return _migrated(postgres_server.new_database())


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database file to copy."""
    path = tmp_path_factory.mktemp("migrated") / "dermq.db"
    _migrated(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of a database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'dermq.db'}"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.new_database()


@pytest.fixture
def sqlite_database(migrated_sqlite: Path, tmp_path: Path) -> Iterator[Engine]:
    """A migrated SQLite database."""
    path = tmp_path / "dermq.db"
    shutil.copyfile(migrated_sqlite, path)
    engine = open_database(f"sqlite:///{path}")
    yield engine
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """A migrated database, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite_database")
        return
    template = request.getfixturevalue("migrated_postgres")
    server: PostgresServer = request.getfixturevalue("postgres_server")
    engine = open_database(server.new_database(template))
    yield engine
    engine.dispose()


@pytest.fixture(autouse=True)
def settings_of_each_test() -> Iterator[None]:
    """Settings are read once a process: what one test has set must not hold in the next."""
    load_settings.cache_clear()
    yield
    load_settings.cache_clear()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A bundle of numbers alone: its hash is that of `add_job`, its calibration changes nothing."""
    numbers = {"threshold": 0.5, "borderline_threshold": 0.4, "sensitivity": 0.9, "specificity": 0.8}
    manifest = BundleManifest.model_validate(
        {
            "format": 2,
            "name": "synthetic",
            "version": "1",
            "created": "2026-01-01T00:00:00Z",
            "backbone": "none",
            "classes": ("nv", "mel"),
            "input": {"size": 32, "fit": "cover", "colour_order": "RGB", "scale": "in the graph, from 0 to 255"},
            "outputs": ("probability", "features", "feature_map"),
            "thresholds": {"youden": numbers, "sensitivity:0.95": {**numbers, "threshold": 0.45}},
            "calibration": {"method": "platt", "slope": 1.0, "intercept": 0.0},
            "quality": {"short_side": 100, "contrast": 2.0, "sharpness": 2.0},
            "metrics": METRICS,
            "split_manifest_sha256": "0" * 64,
            "licence": "none",
            "files": dict.fromkeys(("model.xml", "model.bin", "model.keras"), "0" * 64),
        }
    )
    return Bundle(folder=tmp_path, sha256="b" * 64, manifest=manifest)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Five good pictures."""
    root = tmp_path / "archive"
    root.mkdir()
    for number in range(5):
        (root / f"{number}.jpg").write_bytes(encode(draw_lesion(number, width=300, height=240), ".jpg"))
    return root


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Celery]:
    """The real application on a broker in memory, its queues empty."""
    app = make_app(Settings(broker_url="memory://", home=tmp_path))  # type: ignore[arg-type]
    messages_of(app, "urgent")
    messages_of(app, "bulk")
    yield app
    app.close()
