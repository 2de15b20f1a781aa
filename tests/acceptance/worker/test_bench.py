"""`dermq bench` on a small folder."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.acceptance.conftest import environment_for, run_dermq, until
from worker.images.opencv import cv2
from worker.local.bench import STAGES
from worker.synthetic.lesion import draw_lesion


def test_bench_times_every_stage_and_writes_nothing_into_dermqs_database(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    for seed in range(6):
        picture = cv2.cvtColor(draw_lesion(seed, width=320, height=240), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(archive / f"{seed}.jpg"), picture)
    (archive / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    environment = environment_for(tmp_path / "home")
    done = run_dermq(environment, "bench", str(archive))
    for stage in STAGES:
        assert re.search(rf"^{stage} +\d+\.\d\d +\d+%$", done.stdout, re.MULTILINE), done.stdout
    assert "7 images one after another on one processor, 1 of them not scored" in done.stdout
    assert re.search(r"Fastest: DERMQ_CONCURRENCY=\d+, \d+% of what inference", done.stdout)
    assert "chunk claimed" not in done.stdout + done.stderr
    assert list((tmp_path / "home").iterdir()) == [], "nothing is left"


def test_a_process_that_dies_ends_the_measurement_with_a_sentence(tmp_path: Path) -> None:
    """It waited for half an hour, or for ever."""
    archive = tmp_path / "archive"
    archive.mkdir()
    cv2.imwrite(str(archive / "a.png"), draw_lesion(1, width=320, height=240))
    environment = environment_for(tmp_path / "home")
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "worker.cli", "bench", str(archive)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        until(lambda: len(spawned(process.pid)) > 0, "a process of the measurement runs")
        for pid in spawned(process.pid):
            os.kill(pid, signal.SIGKILL)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "ended early" in said
    assert "Traceback" not in said


def spawned(parent: int) -> list[int]:
    """Processes of the measurement, without Python's own resource tracker."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(pid) for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]


def test_bench_without_a_home_to_write_in_says_so(tmp_path: Path) -> None:
    refused = run_dermq(environment_for(Path("/proc/nope")), "bench", check=False)
    assert refused.returncode == 2
    assert "The folder /proc/nope cannot be written" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_bench_of_a_folder_without_images_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused = run_dermq(environment_for(tmp_path), "bench", str(tmp_path / "empty"), check=False)
    assert refused.returncode == 2
    assert "No image found in" in refused.stderr
