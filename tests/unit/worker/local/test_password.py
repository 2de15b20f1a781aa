"""The password of Flower stays the same across restarts, and only its account can read it."""

import os
import stat
from pathlib import Path

import pytest

from worker.errors import SettingsError
from worker.local.password import PASSWORD_FILE, kept_password


def test_it_is_the_same_at_the_next_start_and_private(tmp_path: Path) -> None:
    first = kept_password(tmp_path)
    assert len(first) >= 12
    assert kept_password(tmp_path) == first
    file = tmp_path / PASSWORD_FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    other = tmp_path / "other"
    other.mkdir()
    assert kept_password(other) != first


@pytest.mark.parametrize("content", [b"", b"short", b"\xff\xfe", b"two words here\n", b"x" * 10_000])
def test_a_file_that_holds_something_else_is_replaced(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / PASSWORD_FILE
    file.write_bytes(content)
    file.chmod(0o600)
    password = kept_password(tmp_path)
    assert password.encode() != content.strip()
    assert kept_password(tmp_path) == password


def test_a_file_that_others_could_read_is_replaced(tmp_path: Path) -> None:
    first = kept_password(tmp_path)
    (tmp_path / PASSWORD_FILE).chmod(0o644)
    assert kept_password(tmp_path) != first
    assert stat.S_IMODE((tmp_path / PASSWORD_FILE).stat().st_mode) == 0o600


def test_a_link_and_a_pipe_are_replaced_and_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("A" * 16)
    elsewhere.chmod(0o600)
    file = tmp_path / PASSWORD_FILE
    file.symlink_to(elsewhere)
    assert kept_password(tmp_path) != "A" * 16
    assert elsewhere.read_text() == "A" * 16
    file.unlink()
    os.mkfifo(file, 0o600)
    assert kept_password(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot be kept in .*flower-password .*set DERMQ_FLOWER_PASSWORD"):
        kept_password(tmp_path / "nowhere")
