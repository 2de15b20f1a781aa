"""A patient reference goes into the database and nowhere else."""

import json
import threading
from pathlib import Path

import pytest
import redis

from db.status import FailureCode
from tests.acceptance.conftest import processes_of, running_system, until
from tests.acceptance.faults.conftest import Undisturbed
from tests.acceptance.faults.processes import with_faults
from tests.acceptance.faults.reconcile import check_counts, under_way

#: Where Flower shows what it knows.
FLOWER_PAGES = ("api/tasks", "api/workers?refresh=1", "tasks", "broker", "metrics")
CANARY = "PATIENT-7f3a-ZEBRA-KOWALSKA"


@pytest.mark.fault(20)
def test_a_patient_reference_is_in_the_database_and_nowhere_else(
    database_url: str, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """Guards what messages, logs, pages, metrics and command lines may hold: numbers, and no name.

    On one database: it is the one place that is not searched.
    """
    folder = undisturbed.copy(tmp_path / "archive", images=120)
    # A file name can hold a name too: it is a path, kept in the database and out of messages and logs.
    (folder / f"{CANARY}.jpg").write_bytes(b"not a picture")
    manifest = tmp_path / "manifest.csv"
    rows = [f"{path.name},{CANARY},63,female,back" for path in sorted(folder.iterdir())]
    manifest.write_text("path,patient_ref,age,sex,site\n" + "\n".join(rows) + "\n")

    settings = {"DERMQ_DATABASE_URL": database_url, **with_faults()}
    with running_system(tmp_path / "home", **settings) as system:
        broker = redis.Redis.from_url(json.loads((system.home / "run.json").read_text())["broker_url"])
        passed: list[str] = []
        stop = threading.Event()
        listener = threading.Thread(target=_listen, args=(broker, passed, stop))
        listener.start()
        try:
            until(lambda: len(passed) > 0, "the monitor sees commands")
            job = int(system.dermq("submit", manifest, "--root", folder).stdout)
            under_way(system, job)
            stored = " ".join(str(broker.dump(key)) for key in broker.scan_iter())
            seen_in_process_lists = " ".join(processes_of(system.home).values())
            failed = {f"{CANARY}.jpg": FailureCode.UNSUPPORTED_FORMAT}
            check_counts(system, job, undisturbed.expected, failed=failed, archive=folder)
            flower = "\n".join(system.flower(page) for page in FLOWER_PAGES)
        finally:
            stop.set()
            broker.ping()
            listener.join(timeout=10)
            broker.close()

    assert any("dermq.score_chunk" in command for command in passed), "no hint was seen: the test proves nothing"
    assert "dermq.score_chunk" in flower
    assert "dermq:" in "".join(passed)
    for place in ("\n".join(passed), stored, flower, seen_in_process_lists):
        assert CANARY not in place
    for log in (system.home / "logs").iterdir():
        assert CANARY not in log.read_text(), f"the canary stands in {log.name}"


def _listen(broker: redis.Redis, passed: list[str], stop: threading.Event) -> None:
    """Everything that any client says to the broker."""
    with broker.monitor() as monitor:
        for command in monitor.listen():
            passed.append(str(command["command"]))
            if stop.is_set():
                return
