"""`dermq up` with a worker whose processes show no life and are not killed by anybody."""

import os
import signal
from pathlib import Path

from tests.acceptance.conftest import running_system, until
from tests.browser.test_jobs_in_a_browser import INJECTED, worker_children
from worker.synthetic.archive import make_archive


def test_another_worker_is_started_beside_a_stuck_one(tmp_path: Path) -> None:
    """Stopped processes stand for those in a read that hangs in the kernel, which nothing can end."""
    make_archive(tmp_path / "archive", 60)
    slow = {"PYTHONPATH": str(INJECTED), "FAULT_SECONDS_PER_IMAGE": "0.1", "DERMQ_LEASE_SECONDS": "2"}
    with running_system(tmp_path / "home", **slow) as system:
        job = system.dermq("submit", tmp_path / "archive").stdout.strip()
        until(lambda: system.log("worker").count("chunk claimed") >= 2, "both processes work")
        stuck = worker_children(system)
        for child in stuck:
            os.kill(child, signal.SIGSTOP)
        try:
            system.dermq("watch", job)
            assert (system.home / "logs" / "worker-2.log").exists()
            assert not (system.home / "logs" / "worker-3.log").exists(), "one was enough"
            system.dermq("reconcile", job)
        finally:
            for child in stuck:
                os.kill(child, signal.SIGCONT)
