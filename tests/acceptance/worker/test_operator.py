"""An operator's evening: up, check, submit, watch, status, export, Ctrl-C."""

import csv
import io
import json
import os
import re
import shutil
import signal
import time
import urllib.error
from pathlib import Path

import pytest

from tests.acceptance.conftest import RunningSystem, environment_for, processes_of, run_dermq, running_system, until
from worker.settings import shipped_bundle
from worker.synthetic.archive import make_archive


def test_an_archive_goes_through_the_whole_system(system: RunningSystem, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    make_archive(folder, 24)

    checked = system.dermq("check")
    assert [line[:4] for line in checked.stdout.splitlines()] == ["ok  "] * 6, checked.stdout

    submitted = system.dermq("submit", folder, "--watch")
    job = submitted.stdout.strip()
    # The number alone, for scripts; what became of it stands beside.
    assert job.isdecimal()
    assert "35 images submitted" in submitted.stderr
    assert "Not scored: a human must look" in submitted.stderr

    rows = list(csv.DictReader(io.StringIO(system.dermq("export", job).stdout)))
    assert len(rows) == 35
    by_path = {row["path"]: row for row in rows}
    reasons = {path: row["reason_code"] for path, row in by_path.items() if row["flag"] == "ungradable"}
    expected = {
        "broken/empty.jpg": "truncated",
        "broken/truncated.jpg": "truncated",
        "broken/truncated.png": "truncated",
        "broken/letter.jpg": "unsupported_format",
        "broken/bomb.png": "too_large",
        "broken/link-out-of-the-archive.jpg": "outside_root",
        "ungradable/thumbnail.jpg": "too_small",
        "ungradable/lens-cap.jpg": "no_contrast",
        "ungradable/out-of-focus.jpg": "blurred",
        "ungradable/scanned-letter.png": "glare",
    }
    # Root reads what nobody may read: there the picture is scored like any other.
    if os.geteuid() != 0:
        expected["broken/no-permission.jpg"] = "unreadable"
    assert reasons == expected
    for row in rows:
        if row["status"] != "scored":
            assert row["reason"]
            assert not row["probability"]
            continue
        probability, threshold = float(row["probability"]), float(row["threshold"])
        assert 0 <= probability <= 1
        assert (row["flag"] == "high_risk") == (probability >= threshold)
        assert row["engine"].startswith("openvino")
        assert row["reused"] in ("yes", "no")
        assert len(row["bundle_sha256"]) == len(row["image_sha256"]) == 64

    status = system.dermq("status", job).stdout
    assert "35 of 35 images have an outcome" in status
    assert "Highest probability" in status


def test_what_is_wrong_is_said_and_nothing_is_recorded(system: RunningSystem, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, words in (
        (tmp_path / "nowhere", "cannot be read"),
        (tmp_path / "empty", "No image found"),
        (_manifest(tmp_path, "picture\na.jpg\n"), "the column path is missing"),
        (_manifest(tmp_path, 'path,age\na.jpg,old\n"b.jpg,50\n'), "begins in line 3"),
        (_manifest(tmp_path, "path,age\n,old\n,50\n"), "2 rows without a path NOT submitted: lines 2, 3"),
        (tmp_path / "picture.jpg", "is an image"),
    ):
        refused = system.dermq("submit", source, check=False)
        assert refused.returncode == 2
        assert words in refused.stderr
        assert "Traceback" not in refused.stderr
    assert "no jobs yet" in system.dermq("status").stdout
    unknown = system.dermq("export", "7", check=False)
    assert unknown.returncode == 2
    assert system.dermq("submit", tmp_path / "empty", "--policy", "guess", check=False).returncode == 2


def _manifest(folder: Path, text: str) -> Path:
    path = folder / f"{abs(hash(text))}.csv"
    path.write_text(text)
    return path


def test_flower_asks_for_the_password_that_up_printed(system: RunningSystem) -> None:
    for page in ("workers", "api/workers", "tasks"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            system.flower(page, password="guess")
        assert refused.value.code == 401
        refused.value.close()
    until(lambda: "dermq@" in system.flower("api/workers?refresh=1"), "Flower shows the worker", patience=30)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_clean_stop_leaves_nothing_behind_and_goes_on_later(tmp_path: Path, archive, number: signal.Signals) -> None:
    home, folder = tmp_path / "home", archive(300)
    with running_system(home) as system:
        job = system.dermq("submit", folder).stdout.strip()
        started = time.monotonic()
        system.process.send_signal(number)
        output, _ = system.process.communicate(timeout=60)
        assert system.process.returncode == 0
        assert "has stopped" in output
        assert time.monotonic() - started < 30
    assert processes_of(home) == {}
    assert not (home / "run.json").exists()
    with running_system(home) as system:
        system.dermq("watch", job)
        assert "300 of 300 images have an outcome" in system.dermq("status", job).stdout


def test_parts_do_not_outlive_a_killed_up(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with running_system(home) as system:
        assert len(processes_of(home)) > 4
        system.process.kill()
        system.process.wait()
        until(lambda: processes_of(home) == {}, "every part has gone", patience=40)


def test_two_ups_in_one_home_are_refused(system: RunningSystem) -> None:
    second = system.dermq("up", check=False)
    assert second.returncode == 2
    assert "Another `dermq up`" in second.stderr
    # The first one is still found by the other commands.
    assert system.dermq("check").stdout.count("ok  ") == 6


@pytest.mark.slow
def test_a_job_under_another_bundle_than_the_workers_is_named(system: RunningSystem, tmp_path: Path, archive) -> None:
    other = tmp_path / "other-bundle"
    shutil.copytree(shipped_bundle(), other)
    manifest = json.loads((other / "bundle.json").read_text())
    (other / "bundle.json").write_text(json.dumps({**manifest, "version": "999"}))
    submitted = run_dermq({**system.environment, "DERMQ_BUNDLE": str(other)}, "submit", archive(40))
    job = submitted.stdout.strip()
    until(lambda: "BundleError" in system.log("worker"), "the worker has met the job")

    checked = system.dermq("check", check=False)
    assert checked.returncode == 1
    line, stalled = [line for line in checked.stdout.splitlines() if line.startswith("FAIL")]
    assert line.startswith("FAIL  workers")
    assert stalled.startswith(f"FAIL  jobs      Job {job}: No worker is scoring it. It needs the bundle")
    assert re.search(rf"No worker has the bundle of these jobs: \S+ 999 \(\w+\): job {job}\.", line), line
    assert "It needs the bundle" in system.dermq("status", job).stdout
    time.sleep(4)
    # Its three chunks are hinted again every second.
    refusals = [line for line in system.log("worker").splitlines() if "BundleError" in line]
    assert len(refusals) <= 2, "one line a minute; of two processes one may just pass the other"

    system.dermq("cancel", job)
    assert system.dermq("check").stdout.count("ok  ") == 6


def test_check_has_a_line_for_each_part_whatever_the_addresses_are(tmp_path: Path) -> None:
    environment = environment_for(
        tmp_path, DERMQ_DATABASE_URL="mysql://db/x", DERMQ_BROKER_URL="redis://:correct-horse@127.0.0.1:1/0"
    )
    checked = run_dermq(environment, "check", check=False)
    assert checked.returncode == 1
    assert [line.split()[:2] for line in checked.stdout.splitlines()] == [
        ["ok", "bundle"],
        ["FAIL", "database"],
        ["FAIL", "broker"],
        ["?", "workers"],
        ["?", "sweeper"],
        ["?", "jobs"],
    ]
    assert "does not support databases of kind 'mysql'" in checked.stdout
    assert "The broker does not answer" in checked.stdout
    assert "correct-horse" not in checked.stdout + checked.stderr


def test_a_system_without_its_bundle_does_not_start(tmp_path: Path) -> None:
    """Jobs would wait for ever, and only a log would say why."""
    refused = run_dermq(environment_for(tmp_path, DERMQ_BUNDLE=str(tmp_path / "none")), "up", check=False)
    assert refused.returncode == 2
    assert "Set DERMQ_BUNDLE" in refused.stderr
    assert "dermq is up" not in refused.stdout


def test_check_says_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    environment = environment_for(
        tmp_path, DERMQ_BUNDLE=str(tmp_path / "none"), DERMQ_BROKER_URL="redis://127.0.0.1:1/0"
    )
    checked = run_dermq(environment, "check", check=False)
    assert checked.returncode == 1
    lines = checked.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["FAIL", "bundle"],
        ["FAIL", "database"],
        ["FAIL", "broker"],
        ["?", "workers"],
        ["?", "sweeper"],
        ["?", "jobs"],
    ]
    assert "DERMQ_BUNDLE" in lines[0]
    assert "dermq up" in lines[1]
    assert "dermq up" in lines[2]
    assert "Not checked, because " in lines[3]
