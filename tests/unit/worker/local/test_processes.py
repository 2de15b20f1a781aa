"""The child processes of `dermq up`."""

import os
import subprocess
from pathlib import Path

import pytest

from worker.local.system import _DERMQ


@pytest.mark.parametrize("name", ["worker/__init__.py", "click.py", "celery.py", "sitecustomize.py"])
def test_a_child_process_imports_nothing_from_the_callers_folder(tmp_path: Path, name: str) -> None:
    """`dermq up` in an archive that holds a click.py would run it."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("raise SystemExit('a file of the archive ran')")
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    done = subprocess.run(
        [*_DERMQ, "worker", "--help"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, "Run a worker" in done.stdout) == (0, True), done.stderr
