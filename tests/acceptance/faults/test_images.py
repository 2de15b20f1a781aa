"""Images that take a worker down with them, and files that are broken, changed, gone or forbidden."""

import json
import os
import resource
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from sqlalchemy import select

from db.models import Image
from db.status import FailureCode, ImageStatus
from tests.acceptance.conftest import until
from tests.acceptance.faults.conftest import Undisturbed
from tests.acceptance.faults.injected import poison
from tests.acceptance.faults.processes import FaultSystem
from tests.acceptance.faults.reconcile import check_counts, chunks, rows, under_way
from worker.scoring.chunk import MAX_CRASHES
from worker.synthetic.archive import decompression_bomb, encode

#: One attempt that nobody was prepared for, the careful ones that died, and the one that gave the image up.
ATTEMPTS = 1 + MAX_CRASHES + 1
#: Pixels of a picture that is within the limits, and takes 192 MB.
LARGE = (8_000, 8_000)
#: Bytes that a worker gets beyond what it needs for the pictures of the archive.
SPARE = 96 * 1024**2


def _reason(system: FaultSystem, job: int, path: str) -> str:
    return str(rows(system, select(Image.reason).where(Image.job_id == job, Image.path == path))[0][0])


@pytest.mark.fault(11)
@pytest.mark.databases("sqlite", "postgresql")
def test_an_image_kills_its_process(system: FaultSystem, undisturbed: Undisturbed, tmp_path: Path) -> None:
    """Guards isolation mode with its breadcrumbs: the image is found out and given up, its neighbours are scored."""
    folder = undisturbed.copy(tmp_path / "archive", images=48)
    poison(folder / "0021.jpg", "kill")
    worker = system.worker(FAULT_SECONDS_PER_IMAGE="0")
    system.sweeper()
    job = system.submit(folder)
    check_counts(system, job, undisturbed.expected, failed={"0021.jpg": FailureCode.CRASHED_WORKER}, archive=folder)
    assert [chunk.attempt for chunk in chunks(system, job)] == [1, ATTEMPTS, 1]
    assert f"{MAX_CRASHES} workers crashed" in _reason(system, job, "0021.jpg")
    assert worker.process.poll() is None


@pytest.mark.fault(11)
def test_an_image_loops_for_ever(system: FaultSystem, undisturbed: Undisturbed, tmp_path: Path) -> None:
    """Guards both time limits: the soft one, and the hard one where the loop is in C and hears nothing.

    On one database: what is written at the end of an attempt is the same as in the fault test above.
    """
    folder = undisturbed.copy(tmp_path / "archive", images=48)
    poison(folder / "0005.jpg", "loop")
    poison(folder / "0021.jpg", "loop-deaf")
    worker = system.worker(FAULT_SECONDS_PER_IMAGE="0", DERMQ_CHUNK_TIME_LIMIT="5")
    system.sweeper()
    job = system.submit(folder)
    failed = {"0005.jpg": FailureCode.TIMED_OUT, "0021.jpg": FailureCode.CRASHED_WORKER}
    check_counts(system, job, undisturbed.expected, failed=failed, archive=folder)
    slow, deaf, neighbour = (chunk.attempt for chunk in chunks(system, job))
    # One attempt that nobody was prepared for, one that ends the image, one for the rest of the chunk. A busy machine
    # may need one more: under this time limit a chunk can be slow without any fault of its images.
    assert slow in (3, 4)
    assert deaf in (ATTEMPTS, ATTEMPTS + 1)
    assert neighbour in (1, 2)
    assert "longer than" in _reason(system, job, "0005.jpg")
    assert worker.process.poll() is None


@pytest.mark.fault(27)
def test_a_share_hangs_in_a_read(system: FaultSystem, undisturbed: Undisturbed, tmp_path: Path) -> None:
    """Guards that a read which never returns is named while it lasts, and costs its image alone."""
    folder = undisturbed.copy(tmp_path / "archive", images=48)
    poison(folder / "0021.jpg", "hang")
    system.environment |= {"DERMQ_STALL_SECONDS": "3", "DERMQ_CHUNK_TIME_LIMIT": "12"}
    worker = system.worker(FAULT_SECONDS_PER_IMAGE="0", DERMQ_CONCURRENCY="1")
    system.sweeper()
    job = system.submit(folder)
    until(lambda: "No outcome was written for" in _stalled(system, job), "the status names the worker that hangs")
    assert "a share that hangs" in _stalled(system, job)
    failed = {"0021.jpg": FailureCode.TIMED_OUT}
    check_counts(system, job, undisturbed.expected, failed=failed, archive=folder)
    assert worker.process.poll() is None


def _stalled(system: FaultSystem, job: int) -> str:
    return str(json.loads(system.dermq("status", str(job), "--json").stdout)["stalled"])


@pytest.mark.fault(11)
def test_an_image_exhausts_memory(system: FaultSystem, undisturbed: Undisturbed, tmp_path: Path) -> None:
    """Guards that an allocation which fails ends that image and nothing else, in Python and in the decoder.

    On one database: it is not involved.
    """
    worker = system.worker(FAULT_SECONDS_PER_IMAGE="0")
    system.sweeper()
    folder = undisturbed.copy(tmp_path / "first", images=48)
    first = system.submit(folder)
    check_counts(system, first, undisturbed.expected, archive=folder)
    children = worker.children()
    limit = max(_peak(child) for child in children) + SPARE
    for pid in (worker.process.pid, *children):
        resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))

    folder = undisturbed.copy(tmp_path / "second", images=48, skip=48)
    poison(folder / "0053.jpg", "exhaust")
    large = np.full((*LARGE, 3), 128, np.uint8)
    # Neither can be decoded at a part of its size: a PNG never, a progressive JPEG not without all its coefficients.
    (folder / "0069.jpg").write_bytes(encode(large, ".png"))
    (folder / "0080.jpg").write_bytes(cv2.imencode(".jpg", large, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes())
    job = system.submit(folder)
    failed = dict.fromkeys(("0053.jpg", "0069.jpg", "0080.jpg"), FailureCode.TOO_LARGE)
    check_counts(system, job, undisturbed.expected, failed=failed, archive=folder)
    for path in failed:
        assert "memory" in _reason(system, job, path)
    assert {chunk.attempt for chunk in chunks(system, job)} == {1}
    assert worker.children() == children


def _peak(pid: int) -> int:
    """Address space that a process has used at most, in bytes."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmPeak"))
    return int(line.split()[1]) * 1024


@pytest.mark.fault(12)
def test_files_are_missing_broken_changed_and_deleted(
    system: FaultSystem, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """Guards the checks on reading: each broken file fails alone with its reason, whatever became of it and when.

    On one database: an image's failure is written by the statement that all fault tests share.
    """
    folder = undisturbed.copy(tmp_path / "archive", images=96)
    jpeg = (folder / "0000.jpg").read_bytes()
    (folder / "a-empty.jpg").write_bytes(b"")
    (folder / "b-truncated.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "c-bomb.png").write_bytes(decompression_bomb())
    # Copies of others would be recognised and not inferred; nor do these get so far.
    (folder / "d-changed.jpg").write_bytes(jpeg)
    (folder / "e-deleted.jpg").write_bytes(jpeg)
    manifest = tmp_path / "manifest.csv"
    names = [*sorted(path.name for path in folder.iterdir()), "f-missing.jpg"]
    manifest.write_text("path\n" + "\n".join(names) + "\n")

    system.worker()
    system.sweeper()
    job = system.submit(manifest, "--root", folder)
    under_way(system, job)
    (folder / "d-changed.jpg").write_bytes((folder / "0001.jpg").read_bytes())
    (folder / "e-deleted.jpg").unlink()
    late = select(Image.status).where(Image.job_id == job, Image.path.in_(["d-changed.jpg", "e-deleted.jpg"]))
    assert [status for (status,) in rows(system, late)] == [ImageStatus.WAITING] * 2, "too late: this proves nothing"
    failed = {
        "a-empty.jpg": FailureCode.TRUNCATED,
        "b-truncated.jpg": FailureCode.TRUNCATED,
        "c-bomb.png": FailureCode.TOO_LARGE,
        "d-changed.jpg": FailureCode.CHANGED_SINCE_SUBMISSION,
        "e-deleted.jpg": FailureCode.MISSING,
        "f-missing.jpg": FailureCode.MISSING,
    }
    check_counts(system, job, undisturbed.expected, failed=failed, archive=folder)


@pytest.mark.fault(12)
@pytest.mark.databases("sqlite", no_other=True)
def test_a_file_may_not_be_read(system: FaultSystem, undisturbed: Undisturbed, tmp_path: Path) -> None:
    """Guards that a refusal of the operating system is that image's end alone.

    Root may read what nobody may read: there, the worker gives that right up. With it goes the way into the private
    folder of the tests' PostgreSQL, so this one is on SQLite only; the others of this number are on both.
    """
    folder = undisturbed.copy(tmp_path / "archive", images=32)
    forbidden = folder / "0007.jpg"
    forbidden.chmod(0)
    humbly: tuple[str, ...] = ()
    if os.geteuid() == 0:
        humbly = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-all")
        tried = subprocess.run([*humbly, "cat", forbidden], capture_output=True, text=True, check=False)
        if "Permission denied" not in tried.stderr:
            assert "CI" not in os.environ, f"CI is to run this fault: {tried.stderr}"
            pytest.skip(f"root's right to read everything cannot be given up here: {tried.stderr.strip()}")
    system.worker(wrapped_in=humbly, FAULT_SECONDS_PER_IMAGE="0")
    job = system.submit(folder)
    check_counts(system, job, undisturbed.expected, failed={"0007.jpg": FailureCode.UNREADABLE}, archive=folder)
    assert "refused" in _reason(system, job, "0007.jpg")
