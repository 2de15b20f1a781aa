"""What a source holds: no image is overlooked without a word, and no wrong row of a manifest gets in."""

import os
from pathlib import Path

import pytest

from db.submission import NewImage
from worker.errors import ManifestError
from worker.images.formats import IMAGE_SUFFIXES
from worker.images.read import read_file, text_to_path
from worker.intake.sources.folder import ScanReport, walk_folder


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode("utf-8", "surrogateescape"))


def walked(root: Path) -> tuple[list[str], ScanReport]:
    report = ScanReport()
    return [image.path for image in walk_folder(root, report)], report


class TestWalkFolder:
    """`walk_folder`."""

    def test_every_depth_in_the_order_of_names(self, tmp_path: Path) -> None:
        put(tmp_path, "z.jpg", "b/2.jpg", "b/10.jpg", "b/a/x.png", "a/deep/er/still/y.tif", "c.jpg")
        paths, _ = walked(tmp_path)
        assert paths == ["c.jpg", "z.jpg", "a/deep/er/still/y.tif", "b/10.jpg", "b/2.jpg", "b/a/x.png"]

    def test_size_and_time_are_noted(self, tmp_path: Path) -> None:
        put(tmp_path, "a/b.jpg")
        found = (tmp_path / "a" / "b.jpg").stat()
        (image,) = walk_folder(tmp_path, ScanReport())
        assert image == NewImage(path="a/b.jpg", size_bytes=found.st_size, mtime_ns=found.st_mtime_ns)

    def test_suffixes_in_any_case_and_the_others_counted(self, tmp_path: Path) -> None:
        names = [f"image{number}{suffix}" for number, suffix in enumerate(sorted(IMAGE_SUFFIXES))]
        put(tmp_path, *names, "UPPER.JPG", "letter.docx", "other.docx", "README", "jpg")
        paths, report = walked(tmp_path)
        assert sorted(paths) == sorted([*names, "UPPER.JPG"])
        assert report.others == {".docx": 2, "": 2}

    def test_dicom_is_told_by_name_and_by_content(self, tmp_path: Path) -> None:
        put(tmp_path, "a.jpg", "b.dcm", "c.DICOM", "README", "notes.5", "dicom.txt")
        for name in ("IM0001", "1.2.840.113619.2.5", "letter.txt"):
            (tmp_path / name).write_bytes(bytes(128) + b"DICM" + bytes(20))
        os.mkfifo(tmp_path / "pipe")
        paths, report = walked(tmp_path)
        assert paths == ["a.jpg"]
        assert report.dicom == 4
        # A name that says what the file is is believed: nobody opens a million letters.
        assert report.others == {".txt": 2, "": 2, ".5": 1}

    def test_an_entry_of_which_nobody_can_tell_what_it_is_is_reported(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(tmp_path, "a.jpg", "2019/b.jpg")
        monkeypatch.setattr("worker.intake.sources.folder._is_folder", lambda entry: None)
        paths, report = walked(tmp_path)
        # A worker reads whatever has the name of an image.
        assert paths == ["a.jpg"]
        assert report.unreadable == ["2019"]

    def test_hidden_files_and_folders_are_passed_over_and_counted(self, tmp_path: Path) -> None:
        put(tmp_path, ".hidden.jpg", ".thumbnails/a.jpg", "._a.jpg", "a.jpg")
        paths, report = walked(tmp_path)
        assert paths == ["a.jpg"]
        assert report.hidden == 3

    @pytest.mark.timeout(20)
    def test_linked_folders_are_not_followed_not_even_in_a_circle(self, tmp_path: Path) -> None:
        put(tmp_path / "root", "a/b.jpg")
        put(tmp_path / "elsewhere", "c.jpg")
        (tmp_path / "root" / "a" / "up").symlink_to("..")
        (tmp_path / "root" / "other").symlink_to(tmp_path / "elsewhere")
        paths, report = walked(tmp_path / "root")
        assert paths == ["a/b.jpg"]
        assert report.linked_folders == 2

    def test_links_to_files_and_to_nothing_are_left_to_the_worker(self, tmp_path: Path) -> None:
        put(tmp_path, "a.jpg")
        (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
        (tmp_path / "link.jpg").symlink_to("a.jpg")
        images = {image.path: image for image in walk_folder(tmp_path, ScanReport())}
        assert sorted(images) == ["a.jpg", "gone.jpg", "link.jpg"]
        assert images["gone.jpg"].size_bytes is None
        assert images["link.jpg"].size_bytes == images["a.jpg"].size_bytes

    @pytest.mark.parametrize("target", ["broken.jpg", "a.jpg/b.jpg"])
    def test_a_link_that_cannot_be_resolved_does_not_stop_the_others(self, tmp_path: Path, target: str) -> None:
        put(tmp_path, "a.jpg")
        (tmp_path / "broken.jpg").symlink_to(target)
        assert walked(tmp_path)[0] == ["a.jpg", "broken.jpg"]

    def test_a_folder_named_like_an_image_is_a_folder(self, tmp_path: Path) -> None:
        put(tmp_path, "folder.jpg/a.jpg")
        assert walked(tmp_path)[0] == ["folder.jpg/a.jpg"]

    def test_names_that_are_not_utf_8(self, tmp_path: Path) -> None:
        name = os.fsdecode(b"caf\xe9\\1.jpg")
        put(tmp_path, name)
        (image,) = walk_folder(tmp_path, ScanReport())
        assert image.path == r"caf\xe9\\1.jpg"
        assert text_to_path(image.path) == name
        assert image.size_bytes == len(os.fsencode(name))

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
    def test_a_folder_that_cannot_be_read_is_reported_and_the_rest_goes_on(self, tmp_path: Path) -> None:
        put(tmp_path, "a/locked/x.jpg", "b/y.jpg")
        locked = tmp_path / "a" / "locked"
        locked.chmod(0)
        try:
            paths, report = walked(tmp_path)
        finally:
            locked.chmod(0o700)
        assert paths == ["b/y.jpg"]
        assert report.unreadable == ["a/locked"]

    def test_a_folder_that_is_gone_by_the_time_is_reported(self, tmp_path: Path) -> None:
        put(tmp_path, "a.jpg", "b/y.jpg")
        report = ScanReport()
        images = walk_folder(tmp_path, report)
        assert next(images).path == "a.jpg"
        (tmp_path / "b" / "y.jpg").unlink()
        (tmp_path / "b").rmdir()
        assert list(images) == []
        assert report.unreadable == ["b"]

    def test_a_root_that_is_no_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ManifestError, match="nowhere cannot be read: No such file"):
            walked(tmp_path / "nowhere")

    def test_a_path_longer_than_the_database_takes_is_refused(self, tmp_path: Path) -> None:
        put(tmp_path, "/".join(["d" * 200] * 4) + "/a.jpg")
        with pytest.raises(
            ManifestError, match=r"too long: 809 characters and 809 bytes, where 800 and 2,400 are allowed"
        ):
            walked(tmp_path)

    def test_a_file_from_a_far_future_stops_nobody(self, tmp_path: Path) -> None:
        """Nanoseconds of years after 2262 are more than any database's integer; such a file is read all the same."""
        put(tmp_path, "a.jpg")
        year_2300 = 10_413_792_000
        os.utime(tmp_path / "a.jpg", (year_2300, year_2300))
        if (tmp_path / "a.jpg").stat().st_mtime < year_2300:
            pytest.skip("this file system knows no such year")
        (image,) = walk_folder(tmp_path, ScanReport())
        assert image.mtime_ns == 2**63 - 1
        found = read_file(
            str(tmp_path.resolve()),
            image.path,
            size_bytes=image.size_bytes,
            mtime_ns=image.mtime_ns,
            max_bytes=1_000,
        )
        assert len(found.data) == image.size_bytes
