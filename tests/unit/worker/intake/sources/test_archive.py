"""ZIP and TAR archives: every member is an image, passed over by name, or fails by name; nothing is unpacked."""

import errno
import io
import itertools
import os
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db.status import FailureCode
from tests.dicom_files import dicom
from tests.picture_files import PICTURE
from worker.errors import ImageFaultError, ManifestError
from worker.images import read_archive
from worker.images.read_any import reader_of
from worker.intake.scan_report import ScanReport
from worker.intake.sources.archive import list_archive
from worker.intake.sources.passed_over import Selection
from worker.intake.sources.tables import is_archive

FILES = {
    "a.jpg": b"a",
    "2019/b.PNG": b"bb",
    "2019/ü.tif": b"ccc",
    "__MACOSX/._a.jpg": b"x",
    "2019/Thumbs.db": b"x",
    "notes.txt": b"x",
    "c.heic": b"x",
    "inner.zip": b"x",
    "2019/b_mask.png": b"x",
}


def zipped(path: Path, files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, files: Mapping[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_members_are_listed_counted_and_read(tmp_path: Path, pack: object) -> None:
    archive = pack(tmp_path / "archive", FILES)  # type: ignore[operator]
    assert is_archive(archive)
    report = ScanReport()
    images = list(list_archive(archive, report, Selection()))
    assert [image.path for image in images] == ["2019/b.PNG", "2019/ü.tif", "a.jpg"]
    assert report.passed_over() == {
        "unread: .heic": 1, "unread: nested .zip": 1, "masks": 1, "system: Thumbs.db": 1, "system: __MACOSX": 1,
        "other files": 1,
    }  # fmt: skip
    read = reader_of(str(archive))
    for image in images:
        content = read(image.path, size_bytes=image.size_bytes, mtime_ns=image.mtime_ns, max_bytes=100)
        assert content.data == FILES[image.path]


def code_of(archive: Path, path: str, **given: object) -> FailureCode:
    asked = {"size_bytes": None, "mtime_ns": None, "max_bytes": 10**6, **given}
    with pytest.raises(ImageFaultError) as caught:
        reader_of(str(archive))(path, **asked)
    return caught.value.code


def test_what_cannot_be_read_fails_by_its_name(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"../up.jpg": b"x", "/abs.jpg": b"x", "a.jpg": b"abc" * 50, "z.jpg": b"z"})
    data = bytearray(archive.read_bytes())
    # Say that a.jpg is encrypted, in its own header and in the list.
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.index(b"a.jpg", data.index(b"abs.jpg", data.index(mark)) + 5)
        start = data.rindex(mark, 0, place)
        struct.pack_into("<H", data, start + offset, 1)
    archive.write_bytes(data)
    failures = {image.path: image.failure for image in list_archive(archive, ScanReport(), Selection())}
    assert failures.pop("z.jpg") is None
    assert {path: failure and failure[0] for path, failure in failures.items()} == {
        "../up.jpg": FailureCode.OUTSIDE_ROOT,
        "/abs.jpg": FailureCode.OUTSIDE_ROOT,
        "a.jpg": FailureCode.UNSUPPORTED_FORMAT,
    }
    assert "encrypted" in str(failures["a.jpg"])
    assert code_of(archive, "a.jpg") == FailureCode.UNSUPPORTED_FORMAT


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"bomb.jpg": bytes(5 * 10**7)})
    assert archive.stat().st_size < 10**5
    assert code_of(archive, "bomb.jpg") == FailureCode.TOO_LARGE


def test_changes_are_noticed(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"a.jpg": b"abc"})
    (image,) = list_archive(archive, ScanReport(), Selection())
    seen = {"size_bytes": image.size_bytes, "mtime_ns": image.mtime_ns}
    zipped(archive, {"a.jpg": b"xyz"})
    os.utime(archive, ns=(1, 1))
    assert code_of(archive, "a.jpg", **seen) == FailureCode.CHANGED_SINCE_SUBMISSION
    assert code_of(archive, "b.jpg") == FailureCode.MISSING
    archive.unlink()
    assert code_of(archive, "a.jpg", **seen) == FailureCode.MISSING


@pytest.mark.parametrize("damage", ["header", "bit", "cut between", "two in one"])
def test_a_tar_whose_later_members_cannot_be_found_is_refused(tmp_path: Path, damage: str) -> None:
    archive = tarred(tmp_path / "a.tar", {f"{number}.jpg": b"x" * 700 for number in range(20)})
    data = bytearray(archive.read_bytes())
    place = 10 * (512 + 1024)
    if damage == "header":
        data[place : place + 512] = bytes(512)
    elif damage == "bit":
        data[place + 3] ^= 1
    elif damage == "cut between":
        del data[place:]
    else:
        data = data * 2
    archive.write_bytes(data)
    os.utime(archive, ns=(1, len(damage)))
    with pytest.raises(ManifestError, match=f"damaged behind member number {20 if damage == 'two in one' else 10}"):
        list(list_archive(archive, ScanReport(), Selection()))


def test_a_name_that_occurs_twice_is_counted(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.jpg", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.jpg", b"2")
    report = ScanReport()
    assert len(list(list_archive(tmp_path / "a.zip", report, Selection()))) == 1
    assert report.passed_over() == {"repeated names": 1}
    assert any(note.startswith("WARNING: 1 member NOT submitted") for note in report.notes())


def test_links_in_a_tar_fail_and_compressed_ones_are_refused_with_advice(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        entry = tarfile.TarInfo("a.jpg")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry)
    (image,) = list_archive(tmp_path / "a.tar", ScanReport(), Selection())
    assert image.failure is not None
    assert code_of(tmp_path / "a.tar", "a.jpg") in (FailureCode.MISSING, FailureCode.UNREADABLE)
    packed = tarred(tmp_path / "a.tar.gz", {"a.jpg": b"x"}, "w:gz")
    with pytest.raises(ManifestError, match="pack it as ZIP or as TAR without compression"):
        list(list_archive(packed, ScanReport(), Selection()))


def test_dicom_members_become_images_with_what_they_say(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"IM1": dicom(PICTURE), "IM2": b"no DICOM", "b.dcm": dicom(PICTURE, PICTURE)})
    report = ScanReport()
    images = list(list_archive(archive, report, Selection()))
    assert [(image.path, image.patient_ref) for image in images] == [
        ("IM1", "P-7"), (r"b.dcm\#1", "P-7"), (r"b.dcm\#2", "P-7"),
    ]  # fmt: skip
    assert report.others == {"": 1}
    image = images[2]
    content = reader_of(str(archive))(image.path, size_bytes=image.size_bytes, mtime_ns=image.mtime_ns, max_bytes=10**6)
    assert content.frame == 2


def test_dicom_members_without_dicom_support_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.intake.sources.passed_over.dicom_is_installed", lambda: False)
    archive = zipped(tmp_path / "a.zip", {"IM1": dicom(PICTURE), "b.dcm": dicom(PICTURE), "a.jpg": b"x"})
    report = ScanReport()
    assert [image.path for image in list_archive(archive, report, Selection())] == ["a.jpg"]
    assert report.passed_over() == {"DICOM": 2}


@pytest.mark.parametrize("error", [errno.EIO, errno.ESTALE])
def test_an_error_of_a_share_that_is_over_in_a_moment_costs_no_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    archive = zipped(tmp_path / "a.zip", {"a.jpg": b"x"})
    monkeypatch.setattr("worker.images.read._PAUSES", (0.01, 0.01))
    failures, real = [1, 1], read_archive.open_archive

    def unsteady(path: str) -> object:
        if failures:
            failures.pop()
            raise OSError(error, os.strerror(error))
        return real(path)

    monkeypatch.setattr(read_archive, "open_archive", unsteady)
    read = reader_of(str(archive))
    assert read("a.jpg", size_bytes=None, mtime_ns=None, max_bytes=10).data == b"x"
    failures += [1, 1, 1]
    assert code_of(archive, "a.jpg") == FailureCode.UNREADABLE


def test_a_member_without_a_name_is_counted_and_the_others_are_taken(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"a.jpg": b"abc", "b.jpg": b"xyz"})
    # `zipfile` ends a name at its first zero.
    archive.write_bytes(archive.read_bytes().replace(b"b.jpg", b"\0.jpg"))
    report = ScanReport()
    assert [image.path for image in list_archive(archive, report, Selection())] == ["a.jpg"]
    assert sum(report.others.values()) == 1


#: Changed with each damaged archive: a process keeps an archive open until its time or size changes.
_TIMES = itertools.count(1)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), method=st.sampled_from([None, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
def test_a_damaged_archive_is_refused_or_its_members_fail_alone(
    tmp_path: Path, data: st.DataObject, method: int | None
) -> None:
    files = {"a.jpg": b"abc" * 40, "b.jpg": b"xyz" * 9}
    if method is None:
        archive = tarred(tmp_path / "fuzzed", files)
        damaged = bytearray(archive.read_bytes())[:1500]
    else:
        archive = zipped(tmp_path / "fuzzed", files, method)
        damaged = bytearray(archive.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=6)):
        damaged[place] = data.draw(st.integers(0, 255))
    archive.write_bytes(damaged)
    os.utime(archive, (next(_TIMES),) * 2)
    try:
        images = list(list_archive(archive, ScanReport(), Selection()))
    except ManifestError:
        return
    for image in images:
        if image.failure is None:
            try:
                reader_of(str(archive))(image.path, size_bytes=None, mtime_ns=None, max_bytes=10**6)
            except ImageFaultError:
                continue
