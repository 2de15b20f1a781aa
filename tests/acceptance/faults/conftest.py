"""What the fault tests share: an archive, what an undisturbed run makes of it, and a system on either database."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest

from db.status import ImageStatus, JobStatus
from tests.acceptance.conftest import until
from tests.acceptance.faults.processes import FaultSystem, running_system
from tests.acceptance.faults.reconcile import Outcome, job_status, outcomes
from tests.gates import checked
from tests.integration.databases import PostgresServer, find_postgres_binaries
from worker.images.decode import decode
from worker.inference.bundle import load_bundle
from worker.scoring.loaded_model import LoadedModel
from worker.settings import shipped_bundle
from worker.synthetic.archive import encode
from worker.synthetic.lesion import draw_lesion

IMAGES = 240
DATABASES = ("sqlite", "postgresql")


@dataclass(frozen=True, kw_only=True)
class Undisturbed:
    """An archive, and how each of its images ended in a run that nothing disturbed."""

    folder: Path
    expected: dict[str, Outcome]

    def copy(self, folder: Path, *, images: int, skip: int = 0) -> Path:
        """A copy of so many images, for a fault test that changes them or needs fewer."""
        folder.mkdir()
        for path in sorted(self.folder.iterdir())[skip : skip + images]:
            shutil.copy2(path, folder / path.name)
        return folder


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Made once; every picture is another one, so that none is recognised by its digest."""
    folder = tmp_path_factory.mktemp("archive")
    pictures = list(islice(_gradable_pictures(), IMAGES))
    assert len(pictures) == IMAGES, "the shipped bundle's gates stop too many synthetic pictures"
    for index, picture in enumerate(pictures):
        (folder / f"{index:04d}.jpg").write_bytes(picture)
    with running_system(tmp_path_factory.mktemp("undisturbed"), FAULT_SECONDS_PER_IMAGE="0") as system:
        system.worker()
        job = system.submit(folder)
        until(lambda: job_status(system, job) is JobStatus.FINISHED, "the undisturbed run is finished")
        expected = outcomes(system, job)
    assert len(expected) == IMAGES
    assert {outcome[0] for outcome in expected.values()} == {ImageStatus.SCORED}
    return Undisturbed(folder=folder, expected=expected)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server; each fault test has a database of its own."""
    binaries = find_postgres_binaries()
    if binaries is None:
        assert not os.environ.get("DERMQ_REQUIRE_POSTGRES"), "DERMQ_REQUIRE_POSTGRES is set and PostgreSQL is missing"
        pytest.skip("no PostgreSQL server programs (initdb, postgres): install the postgresql package")
    server = PostgresServer(binaries)
    yield server
    server.stop()


def _gradable_pictures() -> Iterator[bytes]:
    """Synthetic JPEGs that the shipped bundle's gates let through; skin that is too pale they send to a human."""
    model = LoadedModel.load(load_bundle(shipped_bundle()), "openvino")
    for seed in range(IMAGES + IMAGES // 10):
        data = encode(draw_lesion(seed, width=360, height=270), ".jpg")
        image = decode(data)
        if not isinstance(checked(model, image), tuple):
            yield data


#: Faults whose test on SQLite is quick and part of `make test`. The others are slow.
QUICK = {1, 4, 10, 11, 12, 15, 20}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every fault test as slow, except one of each of some faults."""
    quick = set(QUICK)
    for item in items:
        if (mark := item.get_closest_marker("fault")) is None:
            continue
        if mark.args[0] in quick and "postgresql" not in item.name:
            quick.discard(mark.args[0])
        else:
            item.add_marker(pytest.mark.slow)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a fault test on SQLite, or on the databases of its mark; with DERMQ_FAULT_EVERY_DATABASE on all that can
    be.
    """
    if "database" not in metafunc.fixturenames:
        return
    mark = metafunc.definition.get_closest_marker("databases")
    chosen: tuple[str, ...] = mark.args if mark else DATABASES[:1]
    if os.environ.get("DERMQ_FAULT_EVERY_DATABASE") and not (mark and mark.kwargs.get("no_other")):
        chosen = DATABASES
    metafunc.parametrize("database", chosen)


@pytest.fixture
def database_url(database: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of a database that holds nothing yet."""
    if database == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        return server.new_database()
    return f"sqlite:///{tmp_path / 'dermq.db'}"


@pytest.fixture
def system(tmp_path: Path, database_url: str) -> Iterator[FaultSystem]:
    """Broker and database; the fault test starts the rest."""
    with running_system(tmp_path / "home", database_url) as running:
        yield running
