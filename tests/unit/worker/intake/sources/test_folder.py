"""What a source holds: no image is overlooked without a word, and no wrong row of a manifest gets in."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.submission import NewImage
from worker.errors import ManifestError
from worker.images.formats import IMAGE_SUFFIXES
from worker.images.read import read_file, text_to_path
from worker.intake.sources.folder import FolderReport, walk_folder
from worker.intake.sources.manifest import read_manifest


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode("utf-8", "surrogateescape"))


def walked(root: Path) -> tuple[list[str], FolderReport]:
    report = FolderReport()
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
        (image,) = walk_folder(tmp_path, FolderReport())
        assert image == NewImage(path="a/b.jpg", size_bytes=found.st_size, modified_ns=found.st_mtime_ns)

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
        # What is called an image is for a worker to judge.
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

    def test_links_to_files_and_to_nothing_are_for_the_worker_to_judge(self, tmp_path: Path) -> None:
        put(tmp_path, "a.jpg")
        (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
        (tmp_path / "link.jpg").symlink_to("a.jpg")
        images = {image.path: image for image in walk_folder(tmp_path, FolderReport())}
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
        (image,) = walk_folder(tmp_path, FolderReport())
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
        report = FolderReport()
        images = walk_folder(tmp_path, report)
        assert next(images).path == "a.jpg"
        (tmp_path / "b" / "y.jpg").unlink()
        (tmp_path / "b").rmdir()
        assert list(images) == []
        assert report.unreadable == ["b"]

    def test_a_root_that_is_no_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ManifestError, match="nowhere, which cannot be read: No such file"):
            walked(tmp_path / "nowhere")

    def test_a_path_longer_than_the_database_takes_is_refused(self, tmp_path: Path) -> None:
        put(tmp_path, "/".join(["d" * 200] * 4) + "/a.jpg")
        with pytest.raises(ManifestError, match=r"has 809 characters and 809 bytes; .* taken in has 800 and 2,400"):
            walked(tmp_path)

    def test_a_file_from_a_far_future_stops_nobody(self, tmp_path: Path) -> None:
        """Nanoseconds of years after 2262 are more than any database's integer; such a file is read all the same."""
        put(tmp_path, "a.jpg")
        year_2300 = 10_413_792_000
        os.utime(tmp_path / "a.jpg", (year_2300, year_2300))
        if (tmp_path / "a.jpg").stat().st_mtime < year_2300:
            pytest.skip("this file system knows no such year")
        (image,) = walk_folder(tmp_path, FolderReport())
        assert image.modified_ns == 2**63 - 1
        found = read_file(
            tmp_path, image.path, size_bytes=image.size_bytes, modified_ns=image.modified_ns, max_bytes=1_000
        )
        assert len(found.data) == image.size_bytes


class TestReadManifest:
    """`read_manifest`."""

    @staticmethod
    def rows(root: Path, content: str | bytes) -> Iterator[NewImage]:
        manifest = root / "manifest.csv"
        manifest.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_manifest(manifest, root)

    def refusal(self, root: Path, content: str | bytes) -> str:
        with pytest.raises(ManifestError) as caught:
            self.rows(root, content)
        return str(caught.value)

    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    @pytest.mark.parametrize("mark", ["", "\ufeff"])
    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    def test_separators_byte_order_mark_and_ends_of_lines(
        self, tmp_path: Path, separator: str, mark: str, end: str
    ) -> None:
        lines = [
            ["path", "lesion_id", "patient_ref", "age", "sex", "site"],
            ["a.jpg", "L1", "P1", "45.5", "female", "back"],
            ["b/ü.jpg", "", "", "", "", ""],
        ]
        first, second = self.rows(tmp_path, mark + "".join(separator.join(line) + end for line in lines))
        assert first == NewImage(
            path="a.jpg",
            size_bytes=None,
            modified_ns=None,
            lesion_id="L1",
            patient_ref="P1",
            age=45.5,
            sex="female",
            site="back",
        )
        assert second == NewImage(path="b/ü.jpg", size_bytes=None, modified_ns=None)

    def test_columns_in_any_order_and_blanks_around_cells(self, tmp_path: Path) -> None:
        (image,) = self.rows(tmp_path, "age , path\n 45 , a.jpg \n")
        assert (image.path, image.age) == ("a.jpg", 45.0)

    def test_quoted_separators_quotes_and_line_breaks(self, tmp_path: Path) -> None:
        first, second = self.rows(tmp_path, 'path,site\n"a, b.jpg","left ""upper"" arm"\n"c;d.jpg","two\nlines"\n')
        assert (first.path, first.site) == ("a, b.jpg", 'left "upper" arm')
        assert (second.path, second.site) == ("c;d.jpg", "two\nlines")

    def test_sizes_of_files_that_are_there(self, tmp_path: Path) -> None:
        put(tmp_path, "a.jpg")
        here, gone = self.rows(tmp_path, "path\na.jpg\nb.jpg\n")
        assert here.size_bytes == len("a.jpg")
        assert here.modified_ns == (tmp_path / "a.jpg").stat().st_mtime_ns
        assert (gone.size_bytes, gone.modified_ns) == (None, None)

    def test_absolute_paths_inside_the_root_become_relative_and_others_stay(self, tmp_path: Path) -> None:
        inside, outside, up = self.rows(
            tmp_path, f"path\n{tmp_path}/a/../b.jpg\n{tmp_path}-other/b.jpg\n../secret.jpg\n"
        )
        assert inside.path == "b.jpg"
        assert outside.path == f"{tmp_path}-other/b.jpg"
        assert up.path == "../secret.jpg"

    def test_one_file_written_two_ways_has_one_path(self, tmp_path: Path) -> None:
        assert {image.path for image in self.rows(tmp_path, "path\na/b.jpg\n./a//b.jpg\na/c/../b.jpg\n")} == {"a/b.jpg"}

    def test_repeated_rows_are_kept_for_intake_to_count(self, tmp_path: Path) -> None:
        assert len(list(self.rows(tmp_path, "path\na.jpg\na.jpg\n"))) == 2

    def test_blank_lines_are_nothing(self, tmp_path: Path) -> None:
        assert [image.path for image in self.rows(tmp_path, "path\n\na.jpg\n\n")] == ["a.jpg"]

    def test_a_header_in_capitals_is_understood(self, tmp_path: Path) -> None:
        assert [image.path for image in self.rows(tmp_path, "Path,Age\na.jpg,40\n")] == ["a.jpg"]

    def test_every_wrong_line_is_named_at_once(self, tmp_path: Path) -> None:
        lines = [f"{number}.jpg,{'old' if number % 2 else number}" for number in range(30)]
        said = self.refusal(tmp_path, "path,age\n" + "\n".join(lines) + "\n")
        assert "line 3: age" in said
        assert "line 21: age" in said
        assert "and 5 more" in said

    def test_a_header_alone_is_a_manifest_without_rows(self, tmp_path: Path) -> None:
        assert list(self.rows(tmp_path, "path\n")) == []

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("file,age\na.jpg,4\n", "with the columns file, age. Expected: path"),
            ("file,age\na.jpg,4\n", "it lacks 'path', 'file' is none of them."),
            ("path,diagnosis\na.jpg,nv\n", "no others; 'diagnosis' is none of them."),
            ("path,path\na.jpg,b.jpg\n", "no others; 'path' stands there twice."),
            ("", "an empty file. Expected: a CSV manifest"),
        ],
    )
    def test_wrong_columns_are_named(self, tmp_path: Path, content: str, said: str) -> None:
        assert said in self.refusal(tmp_path, content)

    @pytest.mark.parametrize(
        ("content", "line", "said"),
        [
            ("path,age\na.jpg,4\nb.jpg,old\n", 3, "age is not a number of years from 0 to 130"),
            ("path,age\na.jpg,-1\n", 2, "age is not"),
            ("path,age\na.jpg,131\n", 2, "age is not"),
            ("path,age\na.jpg,nan\n", 2, "age is not"),
            ("path;age\na.jpg;45,5\n", 2, "age is not"),
            ("path,age\na.jpg\n", 2, "more or fewer cells"),
            ("path,age\na.jpg,4\n\nb.jpg,4,5\n", 4, "more or fewer cells"),
            ("path,age\n  ,4\n", 2, "path is empty"),
            ('path,site\n"a.jpg","two\nlines"\n,x\n', 4, "path is empty"),
            ("path\na\0b.jpg\n", 2, "holds a NUL"),
            ("path,sex\na.jpg," + "x" * 51 + "\n", 2, "sex is longer than 50 characters"),
            ("path\n" + "x" * 801 + "\n", 2, "path is longer than 800 characters"),
            ("path\n" + "\U0001f984" * 601 + "\n", 2, "path is longer than 2,400 bytes"),
        ],
    )
    def test_a_wrong_row_is_refused_by_its_line(self, tmp_path: Path, content: str, line: int, said: str) -> None:
        message = self.refusal(tmp_path, content)
        assert f"line {line}: " in message
        assert said in message

    def test_a_wrong_row_is_not_repeated_in_the_message(self, tmp_path: Path) -> None:
        """The message may end up in a log."""
        assert "Miller" not in self.refusal(tmp_path, "path,patient_ref,age\na.jpg,Miller,Miller\n")

    def test_ten_wrong_rows_are_named_and_the_others_counted(self, tmp_path: Path) -> None:
        message = self.refusal(tmp_path, "path,age\n" + "a.jpg,old\n" * 25)
        assert message.count("line ") == 10
        assert message.endswith("… and 15 more.")

    def test_a_linked_root_holds_what_is_named_by_its_real_path_too(self, tmp_path: Path) -> None:
        real, linked = tmp_path / "real", tmp_path / "linked"
        put(real, "a.jpg", "b.jpg")
        linked.symlink_to(real)
        manifest = tmp_path / "cases.csv"
        manifest.write_text(f"path\n{real}/a.jpg\n{linked}/b.jpg\n{tmp_path}/elsewhere.jpg\n")
        paths = [image.path for image in read_manifest(manifest, linked)]
        assert paths == ["a.jpg", "b.jpg", f"{tmp_path}/elsewhere.jpg"]

    def test_the_last_row_is_checked_before_the_first_is_given(self, tmp_path: Path) -> None:
        rows = "".join(f"{number}.jpg,4\n" for number in range(5_000))
        assert "line 5002: " in self.refusal(tmp_path, f"path,age\n{rows}last.jpg,old\n")

    @pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
    def test_not_utf_8(self, tmp_path: Path, encoding: str) -> None:
        assert "not UTF-8" in self.refusal(tmp_path, "path\nMännerrücken.jpg\n".encode(encoding))

    @pytest.mark.parametrize("begins", [b"PK\x03\x04\x14\x00", b"\xd0\xcf\x11\xe0\xa1\xb1"])
    def test_a_workbook_is_called_one(self, tmp_path: Path, begins: bytes) -> None:
        assert "which is a workbook. Expected: a table in text" in self.refusal(tmp_path, begins + bytes(range(256)))

    def test_a_dicom_file_and_other_bytes_are_no_table(self, tmp_path: Path) -> None:
        assert "which is a DICOM file" in self.refusal(tmp_path, bytes(128) + b"DICM" + bytes(700))
        assert "which is no text" in self.refusal(tmp_path, b"\x7fELF\0\0")

    def test_of_many_and_long_columns_the_first_and_their_beginnings_are_shown(self, tmp_path: Path) -> None:
        said = self.refusal(tmp_path, ",".join(f"{number}{'x' * 90}" for number in range(30)) + "\n")
        assert f"0{'x' * 39}…, 1{'x' * 39}…" in said
        assert "and 23 more. Expected: path" in said
        assert "nor are 25 more" in said
        assert len(said) < 1_000

    def test_broken_quotes_are_not_csv(self, tmp_path: Path) -> None:
        assert "is not CSV" in self.refusal(tmp_path, 'path\n"a"b.jpg\n')

    def test_no_such_manifest(self, tmp_path: Path) -> None:
        with pytest.raises(ManifestError, match="cannot be read: No such file or directory"):
            read_manifest(tmp_path / "nowhere.csv", tmp_path)

    def test_no_such_root(self, tmp_path: Path) -> None:
        with pytest.raises(ManifestError, match="Expected: the folder that the manifest's paths are relative to"):
            read_manifest(tmp_path / "manifest.csv", tmp_path / "nowhere")
