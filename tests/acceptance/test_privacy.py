"""A patient reference goes into the database and nowhere else."""

import json
import threading
from pathlib import Path

import redis

from tests.acceptance.conftest import RunningSystem, processes_of, until

#: Where Flower shows what it knows.
FLOWER_PAGES = ("api/tasks", "api/workers?refresh=1", "tasks", "broker", "metrics")
CANARY = "PATIENT-7f3a-ZEBRA-KOWALSKA"


def test_a_patient_reference_is_in_the_database_and_nowhere_else(
    system: RunningSystem, tmp_path: Path, archive
) -> None:
    folder = archive(120)
    # A file name can hold a name too: it is a path, kept in the database and out of messages and logs.
    (folder / f"{CANARY}.jpg").write_bytes(b"not a picture")
    manifest = tmp_path / "manifest.csv"
    rows = [f"{path.name},{CANARY},63,female,back" for path in sorted(folder.iterdir())]
    manifest.write_text("path,patient_ref,age,sex,site\n" + "\n".join(rows) + "\n")

    broker = redis.Redis.from_url(json.loads((system.home / "run.json").read_text())["broker_url"])
    passed: list[str] = []
    stop = threading.Event()
    listener = threading.Thread(target=_listen, args=(broker, passed, stop))
    listener.start()
    try:
        until(lambda: len(passed) > 0, "the monitor sees commands")
        job = system.dermq("submit", manifest, "--root", folder).stdout.strip()
        seen_in_process_lists = " ".join(processes_of(system.home).values())
        system.dermq("watch", job)
        flower = "\n".join(system.flower(page) for page in FLOWER_PAGES)
    finally:
        stop.set()
        broker.ping()
        listener.join(timeout=10)
    broker.close()

    assert CANARY in (system.home / "dermq.db").read_bytes().decode("latin-1") or CANARY in (
        system.home / "dermq.db-wal"
    ).read_bytes().decode("latin-1"), "the canary is not even in the database: the test proves nothing"
    assert any("dermq.score_chunk" in command for command in passed), "no hint was seen: the test proves nothing"
    assert "dermq.score_chunk" in flower
    assert CANARY not in "\n".join(passed)
    assert CANARY not in flower
    assert CANARY not in seen_in_process_lists
    for log in (system.home / "logs").iterdir():
        assert CANARY not in log.read_text(), f"the canary stands in {log.name}"


def _listen(broker: redis.Redis, passed: list[str], stop: threading.Event) -> None:
    """Everything that any client says to the broker."""
    with broker.monitor() as monitor:
        for command in monitor.listen():
            passed.append(str(command["command"]))
            if stop.is_set():
                return
