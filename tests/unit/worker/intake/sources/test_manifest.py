"""CSV manifests: every row becomes an image, or the line is named."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.submission import NewImage
from worker.errors import ManifestError
from worker.intake.sources.manifest import read_manifest


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode("utf-8", "surrogateescape"))


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
            mtime_ns=None,
            lesion_id="L1",
            patient_ref="P1",
            age=45.5,
            sex="female",
            site="back",
        )
        assert second == NewImage(path="b/ü.jpg", size_bytes=None, mtime_ns=None)

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
        assert here.mtime_ns == (tmp_path / "a.jpg").stat().st_mtime_ns
        assert (gone.size_bytes, gone.mtime_ns) == (None, None)

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

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("x," * 200_000 + "\n", "The first line of"),
            (
                "path\na.jpg\n" + "x," * 200_000 + "\nb.jpg\n",
                "the row that begins in line 3 has more than 65,536 characters",
            ),
            (
                'path,site\na.jpg,"' + "x\n" * 200_000,
                "begins in line 2 has more than 65,536 characters. Is a quotation",
            ),
            ('path,site\na.jpg,"' + '","x\n' * 200_000, "begins in line 2 has more than 65,536 characters"),
        ],
        ids=["header", "line", "cell", "row of many lines"],
    )
    def test_a_row_of_absurd_size_is_refused_before_it_is_read(self, tmp_path: Path, content: str, said: str) -> None:
        """A row of 256 MB took 4.3 GB of memory, 200,000 columns a minute."""
        tracemalloc.start()
        try:
            message = self.refusal(tmp_path, content)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert said in message
        assert len(message) < 500
        # Of which the content itself takes most.
        assert peak < 3 * len(content) + 4_000_000

    def test_a_missing_quotation_mark_is_found_where_it_is_missing(self, tmp_path: Path) -> None:
        rows = [f'{number}.jpg,"{"x" * 20}"\n' for number in range(20)]
        rows[8] = '8.jpg,"open\n'
        message = self.refusal(tmp_path, "path,site\n" + "".join(rows))
        assert "in the row that begins in line 10" in message

    def test_a_manifest_that_changes_while_it_is_submitted_is_refused(self, tmp_path: Path) -> None:
        images = self.rows(tmp_path, "path,age\na.jpg,4\nb.jpg,5\n")
        (tmp_path / "manifest.csv").write_text("path,age\na.jpg,4\nb.jpg,old\n")
        with pytest.raises(ManifestError, match="was changed while it was submitted: line 3: age"):
            list(images)

    def test_many_columns_are_refused_at_once(self, tmp_path: Path) -> None:
        message = self.refusal(tmp_path, ",".join(f"c{number % 9_000}" for number in range(10_000)) + "\n")
        assert "and 9993 more" in message
        assert "9995 more are unknown, 'c0' occurs twice" in message

    def test_rows_after_a_long_quoted_cell_have_their_own_length(self, tmp_path: Path) -> None:
        rows = "".join(f'{number}.jpg,"{"x" * 90}\n{"y" * 90}"\n' for number in range(2_000))
        assert len(list(self.rows(tmp_path, "path,site\n" + rows))) == 2_000

    def test_a_header_alone_is_a_manifest_without_rows(self, tmp_path: Path) -> None:
        assert list(self.rows(tmp_path, "path\n")) == []

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("file,age\na.jpg,4\n", "has the columns file, age"),
            ("file,age\na.jpg,4\n", "the column path is missing, 'file' is unknown"),
            ("path,diagnosis\na.jpg,nv\n", "'diagnosis' is unknown"),
            ("path,path\na.jpg,b.jpg\n", "'path' occurs twice"),
            ("", "is empty. A manifest needs at least the column path"),
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
            ("path,age\na.jpg\n", 2, "the number of cells differs from the number of columns"),
            ("path,age\na.jpg,4\n\nb.jpg,4,5\n", 4, "the number of cells differs from the number of columns"),
            ("path,age\n  ,4\n", 2, "path is empty"),
            ('path,site\n"a.jpg","two\nlines"\n,x\n', 4, "path is empty"),
            ("path\na\0b.jpg\n", 2, "contains a NUL"),
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
        assert "is a workbook, not a CSV manifest" in self.refusal(tmp_path, begins + bytes(range(256)))

    def test_a_dicom_file_and_other_bytes_are_no_table(self, tmp_path: Path) -> None:
        assert "is a DICOM file" in self.refusal(tmp_path, bytes(128) + b"DICM" + bytes(700))
        assert "is a binary file" in self.refusal(tmp_path, b"\x7fELF\0\0")

    def test_of_many_and_long_columns_the_first_and_their_beginnings_are_shown(self, tmp_path: Path) -> None:
        said = self.refusal(tmp_path, ",".join(f"{number}{'x' * 90}" for number in range(30)) + "\n")
        assert f"0{'x' * 39}…, 1{'x' * 39}…" in said
        assert "more are unknown" in said
        assert "25 more are unknown" in said
        assert len(said) < 1_000

    def test_broken_quotes_are_not_csv(self, tmp_path: Path) -> None:
        assert "is not a valid CSV file" in self.refusal(tmp_path, 'path\n"a"b.jpg\n')

    def test_no_such_manifest(self, tmp_path: Path) -> None:
        with pytest.raises(ManifestError, match="cannot be read: No such file or directory"):
            read_manifest(tmp_path / "nowhere.csv", tmp_path)

    def test_no_such_root(self, tmp_path: Path) -> None:
        with pytest.raises(ManifestError, match="name the folder that the manifest's paths start from"):
            read_manifest(tmp_path / "manifest.csv", tmp_path / "nowhere")
