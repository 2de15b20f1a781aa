"""Pause, resume, retry, cancel and delete, while real workers are at it."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import func, select

from db.models import Image, Job
from db.status import JobStatus
from tests.acceptance.conftest import IMPATIENT, RunningSystem, until
from tests.acceptance.faults.processes import running_system
from tests.acceptance.faults.reconcile import ended, job_status, rows, still_under_way


@pytest.mark.slow
def test_an_operator_steers_a_job(system: RunningSystem, archive) -> None:
    folder = archive(800)
    (folder / "00799.jpg").rename(folder.parent / "elsewhere.jpg")
    (folder / "00799.jpg").symlink_to(folder.parent / "not-there.jpg")
    job = system.dermq("submit", folder, "--force").stdout.strip()

    # Asked of the database: each command takes a second or more to start, in which the job might end.
    until(lambda: ended(system, int(job)) > 20, "the job is under way")
    assert "is paused" in system.dermq("pause", job).stdout
    time.sleep(1)  # the batch in hand may still be written
    paused_at = ended(system, int(job))
    assert paused_at < 800, "the job was over before it was paused: the test proves nothing"
    time.sleep(2)
    assert ended(system, int(job)) == paused_at
    counts = system.dermq("reconcile", job, check=False)
    assert (counts.returncode, "images are waiting. Nothing is wrong so far" in counts.stdout) == (1, True)
    again = system.dermq("pause", job, check=False)
    assert (again.returncode, "is paused" in again.stderr) == (2, True)

    system.dermq("resume", job)
    system.dermq("watch", job)
    status = system.dermq("status", job).stdout
    assert "800 of 800 images have an outcome" in status
    assert "failed: outside_root" in status

    (folder / "00799.jpg").unlink()
    (folder.parent / "elsewhere.jpg").rename(folder / "00799.jpg")
    assert f"Retrying 1 failed image of job {job}" in system.dermq("retry", job, "--code", "outside_root").stdout
    system.dermq("watch", job)
    assert "has no failed images" in system.dermq("retry", job).stdout
    assert "800 scored, 0 ungradable, 0 failed" in system.dermq("reconcile", job).stdout

    second = system.dermq("submit", folder, "--force")
    assert f"submitted before, as job {job}" in second.stderr
    assert re.search(r"… and [\d,]+ more: dermq export", system.dermq("status", job).stdout)
    cancelled = second.stdout.strip()
    system.dermq("cancel", cancelled)
    assert "cancelled" in system.dermq("status", cancelled).stdout
    assert "every image was counted once" in system.dermq("reconcile", cancelled).stdout
    refused = system.dermq("delete", "99", "--yes", check=False)
    assert refused.returncode == 2
    # Nobody there to be asked is a no, and no answer of a script that reads 1 as "deleted, but".
    unasked = system.dermq("delete", cancelled, check=False)
    assert unasked.returncode == 2
    assert f"Job {cancelled} was not deleted." in unasked.stderr
    system.dermq("delete", cancelled, "--yes")
    assert system.dermq("status", cancelled, check=False).returncode == 2

    assert "deleted" in system.dermq("audit", "list", cancelled).stdout
    unknown = system.dermq("audit", "list", "99", check=False)
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "no entry for job 99" in unknown.stderr

    log = system.dermq("audit", "list", job).stdout
    assert [line.split()[4].rstrip(",") for line in log.splitlines()[1:]] == [
        "submitted",
        "paused",
        "resumed",
        "finished",
        "retried",
        "finished",
    ]
    verified = system.dermq("audit", "verify").stdout
    assert verified.startswith("ok")
    head = verified.split()[-1]
    assert system.dermq("audit", "verify", "--head", head).stdout == verified
    assert "is not in the log" in system.dermq("audit", "verify", "--head", "0" * 63 + "1", check=False).stdout
    assert "is no head" in system.dermq("audit", "verify", "--head", head[:6], check=False).stderr


def test_urgent_work_waits_for_no_more_than_the_chunks_in_hand(tmp_path: Path, archive) -> None:
    folder = archive(400)
    with running_system(tmp_path / "home") as system:
        system.worker()
        bulk = system.submit(folder, "--force")
        until(lambda: ended(system, bulk) > 20, "the bulk job is under way")
        urgent = system.submit(_first_files(folder, tmp_path / "urgent", 32), "--force", "--urgent")
        until(lambda: job_status(system, urgent) is JobStatus.FINISHED, "the urgent job is finished")
        still_under_way(system, bulk)
        ((begin, end),) = rows(system, select(Job.submitted_at, Job.finished_at).where(Job.id == urgent))
        between = (Image.completed_at >= begin, Image.completed_at <= end)
        passed = rows(system, select(func.count()).select_from(Image).where(Image.job_id == bulk, *between))[0][0]
    # Each of two processes ends the chunk that it has in hand, and takes another while its fellow ends the urgent job.
    assert passed <= 4 * int(IMPATIENT["DERMQ_CHUNK_SIZE"])


def _first_files(folder: Path, into: Path, count: int) -> Path:
    into.mkdir()
    for path in sorted(folder.iterdir())[:count]:
        (into / path.name).write_bytes(path.read_bytes())
    return into


def test_a_submission_that_watches_says_when_its_job_rests_unfinished(system: RunningSystem, archive) -> None:
    command = [sys.executable, "-P", "-m", "worker.cli", "submit", archive(800), "--watch"]
    with subprocess.Popen(
        command, env=system.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        job = process.stdout.readline().strip()
        # Its number is told before the job is complete, and what is incomplete cannot be paused.
        until(lambda: system.dermq("pause", job, check=False).returncode == 0, "the job is paused")
        assert process.wait(60) == 1
