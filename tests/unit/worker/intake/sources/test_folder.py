"""What a source holds: no image is overlooked without a word, and no wrong row of a manifest gets in."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from db.submission import NewImage
from tests.dicom_files import CT, dicom
from tests.picture_files import GREY, PICTURE
from worker.errors import ManifestError
from worker.images.decode import decode_image
from worker.images.formats import IMAGE_SUFFIXES
from worker.images.read import read_file, text_to_path
from worker.intake.scan_report import ScanReport
from worker.intake.sources.folder import walk_folder
from worker.intake.sources.passed_over import Selection


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

    def test_dicom_is_told_by_name_and_by_content(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("worker.intake.sources.passed_over.dicom_is_installed", lambda: False)
        put(tmp_path, "a.jpg", "b.dcm", "c.DICOM", "README", "notes.5", "dicom.txt")
        for name in ("IM0001", "1.2.840.113619.2.5", "letter.txt"):
            (tmp_path / name).write_bytes(bytes(128) + b"DICM" + bytes(20))
        os.mkfifo(tmp_path / "pipe")
        paths, report = walked(tmp_path)
        assert paths == ["a.jpg"]
        assert report.dicom == 4
        # A name that says what the file is is believed: nobody opens a million letters.
        assert report.others == {".txt": 2, "": 2, ".5": 1}

    def test_dicom_files_become_images_with_what_they_say(self, tmp_path: Path) -> None:
        put(tmp_path, "a.jpg", "DICOMDIR", "not_dicom.dcm")
        (tmp_path / "IM0001").write_bytes(dicom(PICTURE))
        (tmp_path / "1.2.840.7").write_bytes(dicom(PICTURE, preamble=False))
        (tmp_path / "many.dcm").write_bytes(dicom(PICTURE, PICTURE, PatientID="", PatientAge="006M"))
        (tmp_path / "ct.dcm").write_bytes(dicom(GREY, photometric="MONOCHROME2", kind=CT))
        report = ScanReport()
        images = {image.path: image for image in walk_folder(tmp_path, report)}
        assert list(images) == ["1.2.840.7", "IM0001", "a.jpg", r"many.dcm\#1", r"many.dcm\#2", "not_dicom.dcm"]
        image = images["IM0001"]
        assert (image.patient_ref, image.age, image.sex, image.site) == ("P-7", 47.0, "female", "SKIN")
        assert all((image.study_uid, image.series_uid, image.instance_uid))
        assert (images[r"many.dcm\#2"].patient_ref, images[r"many.dcm\#2"].age) == (None, 0.5)
        assert images["not_dicom.dcm"].study_uid is None
        assert (report.unread, report.system) == ({"DICOM CT Image Storage": 1}, {"DICOMDIR": 1})
        assert "Miller" not in repr(images)
        for path, frame in ((r"many.dcm\#1", 1), (r"many.dcm\#2", 2), ("IM0001", None)):
            found = images[path]
            content = read_file(
                str(tmp_path), path, size_bytes=found.size_bytes, mtime_ns=found.mtime_ns, max_bytes=10**6
            )
            assert content.frame == frame
            assert np.array_equal(decode_image(content.data, frame=content.frame).pixels, PICTURE)

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
        # An AppleDouble file is named as such.
        assert (report.hidden, report.system) == (1, {".thumbnails": 1, "._*": 1})

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

    def test_a_path_longer_than_the_database_takes_fails_alone(self, tmp_path: Path) -> None:
        put(tmp_path, "/".join(["d" * 200] * 4) + "/a.jpg", "b.jpg")
        short, long = walk_folder(tmp_path, ScanReport())
        assert (short.path, short.failure) == ("b.jpg", None)
        assert len(long.path) < 400
        assert long.failure is not None
        assert "809 characters and 809 bytes, where 800 and 2,400 are allowed" in long.failure[1]

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

    @pytest.mark.parametrize(
        "name",
        [
            "@eaDir",
            "#recycle",
            "~snapshot",
            "#snapshot",
            "@Recycle",
            "$RECYCLE.BIN",
            "__MACOSX",
            ".Trash-1000",
            ".trashes",
        ],
    )
    def test_folders_of_systems_are_passed_over_and_counted_by_name(self, tmp_path: Path, name: str) -> None:
        put(tmp_path, "a.jpg", f"{name}/b.jpg", f"2019/{name}/deep/c.jpg")
        for hidden in (False, True):
            report = ScanReport()
            images = list(walk_folder(tmp_path, report, Selection(include_hidden=hidden)))
            assert [image.path for image in images] == ["a.jpg"]
            assert sum(report.system.values()) == 2

    def test_ordinary_folders_of_like_names_are_taken(self, tmp_path: Path) -> None:
        names = ["recycle/a.jpg", "snapshot/a.jpg", "snapshots/a.jpg", "trash/a.jpg", "eaDir/a.jpg", "Thumbs/a.jpg"]
        put(tmp_path, *names)
        paths, report = walked(tmp_path)
        assert (sorted(paths), report.passed_over()) == (sorted(names), {})

    def test_files_of_systems(self, tmp_path: Path) -> None:
        put(tmp_path, "a.jpg", "Thumbs.db", "._a.jpg", ".DS_Store", "desktop.ini", "b.jpg@SynoEAStream", "~$cases.xlsx")
        paths, report = walked(tmp_path)
        assert paths == ["a.jpg"]
        assert sum(report.system.values()) == 6

    def test_pictures_that_are_not_read_are_counted_by_suffix(self, tmp_path: Path) -> None:
        put(tmp_path, "a.jpg", "b.HEIC", "c.heic", "d.cr2", "e.jp2", ".f.JPG.icloud", "g.docx")
        paths, report = walked(tmp_path)
        assert paths == ["a.jpg"]
        assert report.unread == {".heic": 2, ".cr2": 1, ".jp2": 1, ".icloud": 1}
        assert any("5 pictures" in note and note.startswith("WARNING") for note in report.notes())

    def test_masks_are_passed_over_by_name(self, tmp_path: Path) -> None:
        drawn = [
            "ISIC_0000001_superpixels.png",
            "masks/ISIC_0000001_segmentation.png",
            "x_mask.png",
            "X_Lesion_Mask.bmp",
        ]
        drawn += ["ISIC_0000001_attribute_pigment_network.png"]
        taken = ["ISIC_0000001.jpg", "x.jpg", "lonely_mask.jpg", "segmentation.png"]
        put(tmp_path, *drawn, *taken)
        paths, report = walked(tmp_path)
        assert (sorted(paths), report.drawn) == (sorted(taken), len(drawn))

    @pytest.mark.timeout(20)
    def test_a_dicom_name_that_is_no_file_hangs_nobody_and_no_link_is_followed(self, tmp_path: Path) -> None:
        secret = tmp_path / "secret.dcm"
        secret.write_bytes(dicom(PICTURE))
        root = tmp_path / "root"
        put(root, "a.jpg")
        os.mkfifo(root / "pipe.dcm")
        (root / "zero.dcm").symlink_to("/dev/zero")
        (root / "out.dcm").symlink_to(secret)
        images = {image.path: image.patient_ref for image in walk_folder(root, ScanReport())}
        assert images == dict.fromkeys(("a.jpg", "out.dcm", "pipe.dcm", "zero.dcm"))

    def test_a_dicom_file_of_a_billion_frames_is_one_image_that_fails(self, tmp_path: Path) -> None:
        (tmp_path / "a.dcm").write_bytes(dicom(PICTURE, NumberOfFrames=2_000_000_000))
        (image,) = walk_folder(tmp_path, ScanReport())
        assert image.failure is not None
        assert "2,000,000,000 frames" in image.failure[1]

    @pytest.mark.parametrize("pattern", ["2003/", "./2003", "/2003", "2003/*"])
    def test_patterns_as_people_write_them(self, tmp_path: Path, pattern: str) -> None:
        put(tmp_path, "a.jpg", "2003/b.jpg")
        selection = Selection(exclude=(pattern, "typo*"))
        assert [image.path for image in walk_folder(tmp_path, ScanReport(), selection)] == ["a.jpg"]
        assert selection.notes() == ["WARNING: --exclude typo* fits nothing."]

    def test_patterns_leave_out_names_paths_and_whole_folders(self, tmp_path: Path) -> None:
        put(tmp_path, "a.jpg", "a_overview.jpg", "2003/b.jpg", "2003/x/c.jpg", "2004/d.jpg", "2004/d.png")
        report = ScanReport()
        selection = Selection(exclude=("*_overview.jpg", "2003", "2004/*.png"))
        assert [image.path for image in walk_folder(tmp_path, report, selection)] == ["a.jpg", "2004/d.jpg"]
        assert report.excluded == 3

    def test_hidden_ones_are_taken_on_request(self, tmp_path: Path) -> None:
        put(tmp_path, ".a.jpg", ".b/c.jpg", "._d.jpg")
        images = walk_folder(tmp_path, ScanReport(), Selection(include_hidden=True))
        assert [image.path for image in images] == [".a.jpg", ".b/c.jpg"]

    def test_an_entry_whose_stat_fails_becomes_an_image_that_a_worker_fails(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A file system without kinds in its entries: each question is a `stat`, which fails (EIO)."""
        put(tmp_path, "a.jpg", "b.jpg", "folder/c.jpg")

        class Failing:
            def __init__(self, entry: os.DirEntry[str]) -> None:
                self.name, self.path = entry.name, entry.path

            def _fail(self, **_: object) -> bool:
                raise OSError(5, "Input/output error")

            is_dir = is_file = is_symlink = stat = _fail

        real = os.scandir

        @contextlib.contextmanager
        def scandir(path: str) -> Iterator[list[object]]:
            with real(path) as found:
                yield [Failing(entry) if entry.name == "b.jpg" else entry for entry in found]

        monkeypatch.setattr(os, "scandir", scandir)
        images = list(walk_folder(tmp_path, ScanReport()))
        assert [(image.path, image.size_bytes is None) for image in images] == [
            ("a.jpg", False),
            ("b.jpg", True),
            ("folder/c.jpg", False),
        ]
