"""The broker emptied, killed, absent, full and frozen. Principle 1: the queue carries hints, SQL is the truth.

Kombu pops a message before it notes that it has it, so each of these faults loses messages in a way of its own. The
sweeper asks the database which chunks nobody will come for: fault 4 has it do so on both. The others, each on one,
differ in what becomes of messages and connections before that.
"""

import time
from pathlib import Path

import pytest

from tests.acceptance.conftest import IMPATIENT, until
from tests.acceptance.faults.conftest import Undisturbed
from tests.acceptance.faults.processes import FaultSystem
from tests.acceptance.faults.reconcile import check_counts, ended, still_under_way, under_way

LEASE = float(IMPATIENT["DERMQ_LEASE_SECONDS"])
#: Longer than the 10 s after which a silent connection counts as lost.
SILENCE = 13.0


def _another(undisturbed: Undisturbed, tmp_path: Path) -> Path:
    """What is submitted while the broker is away.

    The first job has these pictures too, and which of the two comes to them first is chance: both are submitted with
    `--force`, or the later one would copy predictions, which proves nothing.
    """
    return undisturbed.copy(tmp_path / "another", images=48)


@pytest.mark.fault(4)
@pytest.mark.databases("sqlite", "postgresql")
def test_the_broker_is_flushed_in_mid_job(system: FaultSystem, undisturbed: Undisturbed) -> None:
    """Guards the sweep for hints that went unanswered."""
    system.worker()
    system.sweeper()
    job = system.submit(undisturbed.folder)
    under_way(system, job)
    assert system.broker.waiting() > 0, "no hint was left to lose: the test proves nothing"
    system.broker.client.flushall()
    still_under_way(system, job)
    check_counts(system, job, undisturbed.expected)


@pytest.mark.fault(5)
@pytest.mark.databases("postgresql")
def test_the_broker_is_killed_and_comes_back_empty(system: FaultSystem, undisturbed: Undisturbed) -> None:
    """Guards that worker and sweeper connect again by themselves."""
    worker = system.worker()
    sweeper = system.sweeper()
    job = system.submit(undisturbed.folder)
    under_way(system, job)
    assert system.broker.waiting() > 0, "no hint was left to lose: the test proves nothing"
    system.broker.kill()
    still_under_way(system, job)
    system.broker.start()
    check_counts(system, job, undisturbed.expected)
    assert worker.process.poll() is None
    assert sweeper.process.poll() is None


@pytest.mark.fault(6)
def test_the_broker_is_down_at_start_and_for_longer_than_a_lease(
    system: FaultSystem, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """Guards the waiting for a broker, at start and later, and that a job is taken in without one."""
    system.broker.kill()
    worker = system.worker()
    sweeper = system.sweeper()
    taken = system.dermq("submit", undisturbed.folder, "--force")
    job = int(taken.stdout)
    assert "starts by itself" in taken.stderr
    time.sleep(LEASE + 1)
    assert ended(system, job) == 0
    system.broker.start()
    under_way(system, job)

    # Once more in mid-job: the chunks in hand are finished without a broker, the others wait for it.
    system.broker.kill()
    second = system.dermq("submit", _another(undisturbed, tmp_path), "--force")
    assert "starts by itself" in second.stderr
    time.sleep(LEASE + 1)
    still_under_way(system, job)
    system.broker.start()
    check_counts(system, job, undisturbed.expected)
    check_counts(system, int(second.stdout), undisturbed.expected, archive=tmp_path / "another")
    assert worker.process.poll() is None
    assert sweeper.process.poll() is None


@pytest.mark.fault(7)
@pytest.mark.databases("postgresql")
def test_the_broker_is_full(system: FaultSystem, undisturbed: Undisturbed, tmp_path: Path) -> None:
    """Guards that a refused message costs nothing: neither the submitter's, nor the one that a worker has just popped
    and may not note as its own."""
    worker = system.worker()
    sweeper = system.sweeper()
    job = system.submit(undisturbed.folder, "--force")
    under_way(system, job)
    system.broker.client.config_set("maxmemory", 1)
    second = system.dermq("submit", _another(undisturbed, tmp_path), "--force")
    assert "starts by itself" in second.stderr
    still_under_way(system, job)
    until(lambda: "cannot sweep, trying again" in sweeper.log(), "the sweeper says that the broker refuses")
    system.broker.client.config_set("maxmemory", 0)
    check_counts(system, job, undisturbed.expected)
    check_counts(system, int(second.stdout), undisturbed.expected, archive=tmp_path / "another")
    assert worker.process.poll() is None


@pytest.mark.fault(8)
def test_the_broker_is_frozen_and_thawed(system: FaultSystem, undisturbed: Undisturbed, tmp_path: Path) -> None:
    """Guards the time limits on the connection: silence is noticed, and answers that come too late do no harm."""
    worker = system.worker()
    sweeper = system.sweeper()
    job = system.submit(undisturbed.folder, "--force")
    under_way(system, job)
    thaw_at = time.monotonic() + SILENCE
    system.broker.freeze()
    taken = system.dermq("submit", _another(undisturbed, tmp_path), "--force")
    assert "starts by itself" in taken.stderr
    time.sleep(max(0.0, thaw_at - time.monotonic()))
    still_under_way(system, job)
    system.broker.thaw()
    check_counts(system, job, undisturbed.expected)
    check_counts(system, int(taken.stdout), undisturbed.expected, archive=tmp_path / "another")
    assert worker.process.poll() is None
    assert sweeper.process.poll() is None


@pytest.mark.fault(25)
def test_the_broker_refuses_writes_and_another_program_writes_into_the_queues(
    system: FaultSystem, undisturbed: Undisturbed
) -> None:
    """Guards that answers such as READONLY and WRONGTYPE fill no log, are named by a check, and lose nothing."""
    worker = system.worker()
    sweeper = system.sweeper()
    job = system.submit(undisturbed.folder, "--force")
    under_way(system, job)
    client = system.broker.client
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    until(lambda: "read only replica" in sweeper.log(), "the sweeper says that the broker refuses writes")
    said = system.dermq("check", check=False).stdout
    assert "The broker refuses writes" in said
    time.sleep(SILENCE)
    lengths = len(worker.log()), len(sweeper.log())
    client.execute_command("REPLICAOF", "NO", "ONE")
    still_under_way(system, job)

    for queue in ("urgent", "bulk"):
        client.delete(f"dermq:{queue}")
        client.set(f"dermq:{queue}", "of another program")
    said = system.dermq("check", check=False).stdout
    assert "Another program has written into the queues of dermq" in said
    time.sleep(SILENCE)
    # Each attempt to connect was logged before: some 8 KB a second.
    assert len(worker.log()) - lengths[0] < 20_000
    assert len(sweeper.log()) - lengths[1] < 5_000
    for queue in ("urgent", "bulk"):
        client.delete(f"dermq:{queue}")
    check_counts(system, job, undisturbed.expected)
    assert worker.process.poll() is None
    assert sweeper.process.poll() is None
