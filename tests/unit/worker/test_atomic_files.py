"""Files that are whole or absent."""

import subprocess
import sys
from pathlib import Path

import pytest

from worker.atomic_files import replace_file, sweep_unfinished, unfinished_folder, write_text

#: Makes a folder beside the target, says so, and waits to be killed.
_HOLDER = """
import sys, time
from pathlib import Path
from worker.atomic_files import unfinished_folder
with unfinished_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    print("made", flush=True)
    time.sleep(600)
"""


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "last.npz"
    target.write_text("old")
    with replace_file(target) as unfinished:
        unfinished.write_text("new, half")
        assert target.read_text() == "old"
        assert unfinished.suffix == target.suffix
    assert target.read_text() == "new, half"
    assert list(tmp_path.iterdir()) == [target]


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "config.json"
    write_text(target, "old")

    def fail() -> None:
        with replace_file(target) as unfinished:
            unfinished.write_text("new, ha")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_writer_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    left = tmp_path / ".unfinished-abc"
    left.mkdir()
    (left / "last.npz").write_text("half")
    kept = tmp_path / "last.npz"
    kept.write_text("whole")
    sweep_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == [kept]


def test_a_folder_is_made_beside_its_target_and_gone_afterwards(tmp_path: Path) -> None:
    target = tmp_path / "bundles" / "mine"
    with unfinished_folder(target) as scratch:
        assert scratch.parent == target.parent
        made = scratch / "whole"
        made.mkdir()
        made.rename(target)
    assert list(target.parent.iterdir()) == [target]


def test_a_folder_of_a_killed_process_is_swept_by_the_next_one_of_a_live_process_is_not(tmp_path: Path) -> None:
    target, other = tmp_path / "mine", tmp_path / "mine-too"
    with (
        subprocess.Popen([sys.executable, "-c", _HOLDER, str(target)], stdout=subprocess.PIPE, text=True) as process,
        unfinished_folder(other) as of_other,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "made\n"
        (at_work,) = set(tmp_path.iterdir()) - {of_other}
        with unfinished_folder(target) as second:
            assert set(tmp_path.iterdir()) == {at_work, second, of_other}
        process.kill()
        process.wait()
        assert (at_work / "half").is_file()
        with unfinished_folder(target) as third:
            assert set(tmp_path.iterdir()) == {third, of_other}
