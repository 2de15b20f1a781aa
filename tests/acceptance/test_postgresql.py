"""The whole system on PostgreSQL, whose server crashes and whose worker is killed in the middle of a job."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import ended_images, predictions_of, running_system, until, worker_processes
from tests.integration.databases import PostgresServer, find_postgres_binaries

IMAGES = 500


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A PostgreSQL server that the test may crash."""
    binaries = find_postgres_binaries()
    if binaries is None:
        assert not os.environ.get("DERMQ_REQUIRE_POSTGRES"), "DERMQ_REQUIRE_POSTGRES is set and PostgreSQL is missing"
        pytest.skip("no PostgreSQL server programs (initdb, postgres): install the postgresql package")
    running = PostgresServer(binaries)
    yield running
    running.stop()


def test_a_crash_of_the_server_and_of_a_worker_lose_nothing(server: PostgresServer, tmp_path: Path, archive) -> None:
    folder = archive(IMAGES)
    with running_system(tmp_path / "home", DERMQ_DATABASE_URL=server.new_database()) as system:
        assert system.dermq("check").stdout.count("ok  ") == 5
        undisturbed = system.dermq("submit", folder, "--force", "--watch").stdout.strip()
        expected = predictions_of(system, int(undisturbed))
        assert len(expected) == IMAGES

        job = system.dermq("submit", folder, "--force").stdout.strip()
        until(lambda: ended_images(system) > IMAGES + 20, "the second job is under way")
        acknowledged = ended_images(system)
        server.crash()
        time.sleep(2)
        server.start_again()
        stored = ended_images(system)
        assert stored >= acknowledged, "what was committed is gone"
        assert stored < 2 * IMAGES, "the job was over before the crash: the test proves nothing"

        until(lambda: ended_images(system) > stored + 50, "scoring goes on after the crash")
        os.kill(worker_processes(system)[0], signal.SIGKILL)
        system.dermq("watch", job)
        assert predictions_of(system, int(job)) == expected
        assert "the books are right" in system.dermq("reconcile", job).stdout
        assert system.dermq("audit", "verify").stdout.startswith("ok")
