"""What an export to a store leaves on this machine: nothing, however it ends."""

import os
import signal
import tempfile
from pathlib import Path

import pytest

from worker.atomic_files import replace_file
from worker.cli.session import tidied_when_ended
from worker.output.remote_target import put_when_complete


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_a_killed_export_left_goes_with_the_next(temporary: Path) -> None:
    left = temporary / f".dermq-export-{os.getuid()}.unfinished-killed"
    left.mkdir()
    (left / "names.ndjson").write_text("of patients")
    # Of another export that still runs.
    with put_when_complete("https://127.0.0.1:9/a") as running:
        running.write_text("x")
        assert not left.exists()
        with put_when_complete("https://127.0.0.1:9/b"):
            assert running.read_text() == "x"
        assert running.parent.stat().st_mode & 0o777 == 0o700
        running.unlink()
    assert list(temporary.iterdir()) == []


def test_a_link_or_a_folder_of_another_user_is_left_alone(temporary: Path) -> None:
    precious = temporary / "precious"
    precious.mkdir()
    (precious / "file").touch()
    link, foreign = (temporary / f".dermq-export-{os.getuid()}.unfinished-{name}" for name in ("link", "foreign"))
    link.symlink_to(precious)
    foreign.mkdir()
    if os.getuid() == 0:
        os.chown(foreign, 65534, 65534)
    with put_when_complete("https://127.0.0.1:9/a"):
        pass
    assert (precious / "file").exists()
    assert link.is_symlink()
    assert foreign.exists() == (os.getuid() == 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_unfinished_file(tmp_path: Path, number: signal.Signals) -> None:
    usual = signal.getsignal(number)

    def write() -> None:
        with tidied_when_ended(), replace_file(tmp_path / "worklist.html") as file:
            file.write_text("half")
            os.kill(os.getpid(), number)

    with pytest.raises(SystemExit) as ended:
        write()
    assert ended.value.code == 128 + number
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(number) is usual
