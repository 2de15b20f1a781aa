"""Reading a file of an archive: nothing hangs, nothing leads out, and what changed since submission is noticed."""

import errno
import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from db.status import FailureCode
from worker.errors import ImageFaultError
from worker.images.read import FileContent, frame_of, path_to_text, read_file, text_to_path, with_frame

CONTENT = b"not looked at here"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    root = tmp_path / "archive"
    (root / "inside").mkdir(parents=True)
    (root / "inside" / "a.jpg").write_bytes(CONTENT)
    (tmp_path / "secret.jpg").write_bytes(b"of another archive")
    return root


def read(
    root: Path, path: str, *, size: int | None = None, modified: int | None = None, most: int = 1_000
) -> FileContent:
    return read_file(os.path.realpath(root), path, size_bytes=size, mtime_ns=modified, max_bytes=most)


def fault_of(
    root: Path, path: str, *, size: int | None = None, modified: int | None = None, most: int = 1_000
) -> ImageFaultError:
    with pytest.raises(ImageFaultError) as caught:
        read(root, path, size=size, modified=modified, most=most)
    return caught.value


def test_bytes_and_their_hash(archive: Path) -> None:
    content = read(archive, "inside/a.jpg")
    assert content.data == CONTENT
    assert content.sha256 == hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize("path", ["b.jpg", "no-such-folder/a.jpg", "inside/a.jpg/a.jpg"])
def test_missing(archive: Path, path: str) -> None:
    assert fault_of(archive, path).code == FailureCode.MISSING


def test_a_link_to_nothing_is_missing(archive: Path) -> None:
    (archive / "link.jpg").symlink_to("gone.jpg")
    assert fault_of(archive, "link.jpg").code == FailureCode.MISSING


@pytest.mark.parametrize("path", ["inside", ".", "inside/.."])
def test_a_folder_is_unreadable(archive: Path, path: str) -> None:
    assert fault_of(archive, path).code == FailureCode.UNREADABLE


@pytest.mark.timeout(20)
def test_a_named_pipe_is_unreadable_and_is_not_waited_for(archive: Path) -> None:
    os.mkfifo(archive / "pipe.jpg")
    fault = fault_of(archive, "pipe.jpg")
    assert (fault.code, fault.sentence) == (FailureCode.UNREADABLE, "not a regular file")


def test_a_link_to_itself_is_unreadable(archive: Path) -> None:
    (archive / "loop.jpg").symlink_to("loop.jpg")
    assert fault_of(archive, "loop.jpg").code == FailureCode.UNREADABLE


def test_a_name_too_long_for_the_file_system_is_unreadable(archive: Path) -> None:
    assert fault_of(archive, "a" * 400).code == FailureCode.UNREADABLE


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_no_permission_is_unreadable(archive: Path) -> None:
    (archive / "inside" / "a.jpg").chmod(0)
    fault = fault_of(archive, "inside/a.jpg")
    assert fault.code == FailureCode.UNREADABLE
    assert "Permission denied" in fault.sentence


@pytest.mark.parametrize("path", ["../secret.jpg", "inside/../../secret.jpg", "/etc/hostname", "/", ".."])
def test_a_path_that_leads_out_is_refused(archive: Path, path: str) -> None:
    assert fault_of(archive, path).code == FailureCode.OUTSIDE_ROOT


def test_a_folder_whose_name_begins_like_the_root_is_outside(archive: Path) -> None:
    sibling = archive.with_name("archive-of-others")
    sibling.mkdir()
    (sibling / "a.jpg").write_bytes(CONTENT)
    assert fault_of(archive, "../archive-of-others/a.jpg").code == FailureCode.OUTSIDE_ROOT


@pytest.mark.parametrize("target", ["../secret.jpg", "/etc/hostname"])
def test_a_link_that_leads_out_is_refused(archive: Path, target: str) -> None:
    (archive / "link.jpg").symlink_to(target)
    assert fault_of(archive, "link.jpg").code == FailureCode.OUTSIDE_ROOT


def test_a_linked_folder_that_leads_out_is_refused(archive: Path) -> None:
    (archive / "folder").symlink_to("..")
    assert fault_of(archive, "folder/secret.jpg").code == FailureCode.OUTSIDE_ROOT


def test_links_and_absolute_paths_inside_the_root_are_fine(archive: Path) -> None:
    (archive / "link.jpg").symlink_to("inside/a.jpg")
    (archive / "folder").symlink_to("inside")
    for path in ("link.jpg", "folder/a.jpg", str(archive / "inside" / "a.jpg"), "inside/../inside/a.jpg"):
        assert read(archive, path).data == CONTENT


def test_the_root_itself_may_be_a_link(archive: Path) -> None:
    root = archive.with_name("mounted")
    root.symlink_to(archive)
    assert read(root, "inside/a.jpg").data == CONTENT


def test_what_was_submitted_is_read_and_what_changed_since_is_not(archive: Path) -> None:
    file = archive / "inside" / "a.jpg"
    found = file.stat()
    assert read(archive, "inside/a.jpg", size=found.st_size, modified=found.st_mtime_ns).data == CONTENT
    other_size = fault_of(archive, "inside/a.jpg", size=found.st_size + 1, modified=found.st_mtime_ns)
    assert other_size.code == FailureCode.CHANGED_SINCE_SUBMISSION
    # The same number of other bytes, written a nanosecond later.
    file.write_bytes(CONTENT[::-1])
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns + 1))
    other_time = fault_of(archive, "inside/a.jpg", size=found.st_size, modified=found.st_mtime_ns)
    assert other_time.code == FailureCode.CHANGED_SINCE_SUBMISSION


def test_the_largest_file_is_read_and_one_byte_more_is_not(archive: Path) -> None:
    assert read(archive, "inside/a.jpg", most=len(CONTENT)).data == CONTENT
    fault = fault_of(archive, "inside/a.jpg", most=len(CONTENT) - 1)
    assert fault.code == FailureCode.TOO_LARGE
    assert str(len(CONTENT)) in fault.sentence


def test_no_fault_names_a_path(archive: Path) -> None:
    """Sentences may be logged; the names of files may be names of patients."""
    (archive / "link-Miller.jpg").symlink_to("/etc/hostname")
    os.mkfifo(archive / "pipe-Miller.jpg")
    (archive / "loop-Miller.jpg").symlink_to("loop-Miller.jpg")
    for path in ("no-Miller.jpg", "../Miller.jpg", "link-Miller.jpg", "pipe-Miller.jpg", "loop-Miller.jpg"):
        assert "Miller" not in fault_of(archive, path).sentence


@settings(deadline=None)
@given(st.binary(max_size=60).filter(lambda name: b"\0" not in name))
@example(b"\xff\xfe/\xe9t\xe9.jpg")
@example(rb"a\xff.jpg")
@example(b"\\\xff\\\\")
@example("Männer/ß🙂.jpg".encode())
def test_any_name_of_a_file_survives_the_database(name: bytes) -> None:
    text = path_to_text(os.fsdecode(name))
    text.encode("utf-8")  # what a database does with it
    assert os.fsencode(text_to_path(text)) == name


@settings(deadline=None)
@given(st.lists(st.binary(max_size=12).filter(lambda name: b"\0" not in name), unique=True, max_size=20))
def test_different_names_stay_different(names: list[bytes]) -> None:
    assert len({path_to_text(os.fsdecode(name)) for name in names}) == len(names)


@pytest.mark.parametrize("name", [b"caf\xe9.jpg", rb"back\slash.jpg", rb"looks\xe9escaped.jpg"])
def test_a_file_of_any_name_is_read(archive: Path, name: bytes) -> None:
    Path(os.fsdecode(os.path.join(os.fsencode(archive), name))).write_bytes(name)  # noqa: PTH118 - bytes
    assert read(archive, path_to_text(os.fsdecode(name))).data == name


def test_plain_names_are_kept_as_they_are() -> None:
    assert path_to_text("2019/Klinik Süd/IMG 0001.jpg") == "2019/Klinik Süd/IMG 0001.jpg"


def test_a_file_that_was_submitted_without_its_time_is_read_whatever_it_is_now(archive: Path) -> None:
    """As after a retry: it may have been repaired."""
    assert read(archive, "inside/a.jpg", size=1, modified=None).data == CONTENT
    assert "no longer there" in fault_of(archive, "gone.jpg", size=1, modified=None).sentence


@pytest.mark.parametrize("grown", [True, False])
def test_a_file_that_changes_while_it_is_read_has_changed(
    archive: Path, monkeypatch: pytest.MonkeyPatch, grown: bool
) -> None:
    file, fstat = archive / "inside" / "a.jpg", os.fstat

    def fstat_and_change(descriptor: int) -> os.stat_result:
        found = fstat(descriptor)
        file.write_bytes(CONTENT * 2 if grown else CONTENT[:5])
        return found

    monkeypatch.setattr(os, "fstat", fstat_and_change)
    assert fault_of(archive, "inside/a.jpg").code == FailureCode.CHANGED_SINCE_SUBMISSION


def test_a_high_limit_takes_no_memory_for_a_small_file(archive: Path) -> None:
    assert read(archive, "inside/a.jpg", most=10**15).data == CONTENT


def test_a_folder_that_becomes_a_link_after_it_was_looked_at_leads_nobody_out(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = archive.with_name("outside")
    outside.mkdir()
    (outside / "a.jpg").write_bytes(b"a secret")
    commonpath, swapped = os.path.commonpath, []

    def commonpath_and_swap(paths: tuple[str, ...]) -> str:
        common = commonpath(paths)
        if not swapped:
            swapped.append((archive / "inside").rename(archive / "before"))
            (archive / "inside").symlink_to(outside)
        return common

    monkeypatch.setattr(os.path, "commonpath", commonpath_and_swap)
    assert fault_of(archive, "inside/a.jpg").code == FailureCode.OUTSIDE_ROOT
    assert swapped


@pytest.mark.parametrize("error", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
@pytest.mark.parametrize("place", ["open", "fstat"])
def test_an_error_of_a_share_that_is_over_in_a_moment_costs_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, place: str
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"abc")
    monkeypatch.setattr("worker.images.read._PAUSES", (0.01, 0.01))
    real, failures = getattr(os, place), [1, 1]

    def unsteady(*given: object, **more: object) -> object:
        if failures:
            failures.pop()
            raise OSError(error, os.strerror(error))
        return real(*given, **more)

    monkeypatch.setattr(os, place, unsteady)
    content = read_file(str(tmp_path.resolve()), "a.jpg", size_bytes=None, mtime_ns=None, max_bytes=10)
    assert content.data == b"abc"
    failures += [1, 1, 1]
    with pytest.raises(ImageFaultError) as caught:
        read_file(str(tmp_path.resolve()), "a.jpg", size_bytes=None, mtime_ns=None, max_bytes=10)
    assert (caught.value.code, failures) == (FailureCode.UNREADABLE, [])


@pytest.mark.parametrize(
    ("path", "frame", "name"),
    [
        (r"a.dcm\#2", 2, "a.dcm"),
        (r"a\\#2", None, r"a\#2"),
        (r"a\\\#12", 12, "a\\"),
        (r"a\#2.jpg", None, r"a\#2.jpg"),
        ("a#2", None, "a#2"),
    ],
)
def test_a_frame_is_the_end_of_a_path_that_no_file_name_gives(path: str, frame: int | None, name: str) -> None:
    assert frame_of(path) == frame
    assert text_to_path(path) == name
    if frame is not None:
        assert path == with_frame(path_to_text(name), frame)
    assert frame_of(path_to_text(name)) is None
