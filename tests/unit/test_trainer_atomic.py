"""Files that are whole or absent."""

from pathlib import Path

import pytest

from trainer.atomic import replace_file, sweep_unfinished, write_text


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
