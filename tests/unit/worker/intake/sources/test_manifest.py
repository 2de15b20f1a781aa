"""CSV manifests: every row becomes an image, or the line is named."""

import contextlib
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import openpyxl
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from db.submission import NewImage
from worker.errors import ManifestError
from worker.intake.sources.manifest import ManifestReport, read_manifest

AGE = "age is not a number of years from 0 to 130"


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

    def test_many_columns_are_refused_at_once(self, tmp_path: Path) -> None:
        message = self.refusal(tmp_path, ",".join(f"c{number % 9_000}" for number in range(10_000)) + "\n")
        assert "and 9993 more: the column path is missing" in message

    def test_rows_after_a_long_quoted_cell_have_their_own_length(self, tmp_path: Path) -> None:
        rows = "".join(f'{number}.jpg,"{"x" * 90}\n{"y" * 90}"\n' for number in range(2_000))
        assert len(list(self.rows(tmp_path, "path,site\n" + rows))) == 2_000

    def test_a_header_alone_is_a_manifest_without_rows(self, tmp_path: Path) -> None:
        assert list(self.rows(tmp_path, "path\n")) == []

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("picture,age\na.jpg,4\n", "has the columns picture, age: the column path is missing"),
            ("picture,age\na.jpg,4\n", "--column path=NAME"),
            ("path,path\na.jpg,b.jpg\n", "'path' occurs twice"),
            ("", "is empty. A manifest needs at least the column path"),
        ],
    )
    def test_wrong_columns_are_named(self, tmp_path: Path, content: str, said: str) -> None:
        assert said in self.refusal(tmp_path, content)

    def noticed(self, root: Path, content: str) -> tuple[list[NewImage], ManifestReport]:
        (root / "manifest.csv").write_text(content)
        report = ManifestReport()
        return list(read_manifest(root / "manifest.csv", root, report)), report

    @pytest.mark.parametrize(
        ("cell", "age"),
        [
            ("45", 45.0), ("45.5", 45.5), ('"45,0"', 45.0), ("85+", 85.0), ("047Y", 47.0), ("006M", 0.5), ("0", 0.0),
            ("", None), ("unknown", None), ("old", None), ("-1", None), ("131", None), ("nan", None),
            ("1e9", None), ("52 years", 52.0), ("45 m", None), ("45-50", None),
        ],
    )  # fmt: skip
    def test_ages_as_people_write_them(self, tmp_path: Path, cell: str, age: float | None) -> None:
        images, report = self.noticed(tmp_path, f"path,age,sex\na.jpg,{cell},male\n")
        assert [(image.age, image.sex) for image in images] == [(age, "male")]
        assert report.lines == ({} if age is not None or not cell else {AGE: [2]})

    @pytest.mark.parametrize(
        ("content", "problem", "line", "images"),
        [
            ("path,age\na.jpg,4\n\nb.jpg,4,5\n", "with more cells than columns", 4, 1),
            ("path,age\n  ,4\n", "without a path", 2, 0),
            ('path,site\n"a.jpg","two\nlines"\n,x\n', "without a path", 4, 1),
            ("path\na\0b.jpg\n", "with a NUL in the path", 2, 0),
            ("path,sex\na.jpg," + "x" * 51 + "\n", "sex has more than 50 characters, or a NUL", 2, 1),
        ],
    )
    def test_what_is_wrong_in_a_row_costs_that_row_alone(
        self, tmp_path: Path, content: str, problem: str, line: int, images: int
    ) -> None:
        found, report = self.noticed(tmp_path, content)
        assert (len(found), report.lines) == (images, {problem: [line]})
        (note,) = [note for note in report.notes() if problem in note]
        assert note.startswith("WARNING") == ("row " in note.split(problem)[0])

    @pytest.mark.parametrize("path", ["x" * 801, "\U0001f984" * 601])
    def test_a_path_that_is_too_long_is_an_image_that_fails_by_name(self, tmp_path: Path, path: str) -> None:
        (image, other), _ = self.noticed(tmp_path, f"path,age\n{path},4\na.jpg,5\n")
        assert image.path.startswith(path[:100])
        assert image.failure is not None
        assert "800 and 2,400 are allowed" in image.failure[1]
        assert (image.age, other.failure) == (4.0, None)

    def test_short_blank_and_long_rows_as_excel_writes_them(self, tmp_path: Path) -> None:
        content = "sep=;\n;;;\n;;\npath;age;;sex;\n;;;;\na.jpg\nb.jpg;4\nc.jpg;5;;female;;;\n;;\n"
        images, report = self.noticed(tmp_path, content)
        assert [(image.path, image.age, image.sex) for image in images] == [
            ("a.jpg", None, None),
            ("b.jpg", 4.0, None),
            ("c.jpg", 5.0, "female"),
        ]
        assert report.lines == {}

    def test_lines_are_right_behind_blank_ones(self, tmp_path: Path) -> None:
        _, report = self.noticed(tmp_path, "\n\npath,age\na.jpg,4\nb.jpg,old\n")
        assert report.lines == {AGE: [5]}

    def test_no_content_of_a_row_is_in_the_notes(self, tmp_path: Path) -> None:
        """They may end up in a log."""
        _, report = self.noticed(tmp_path, "path,patient_ref,age\na.jpg,Miller,Miller\n,Miller,Miller\n")
        assert "Miller" not in " ".join([*report.notes(), *report.problems()])

    def test_ten_lines_are_named_and_the_others_counted(self, tmp_path: Path) -> None:
        _, report = self.noticed(tmp_path, "path,age\n" + "a.jpg,old\n" * 25)
        assert "25 rows, lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 … and 15 more." in report.notes()[0]
        assert len(list(report.problems())) == 25

    def test_metadata_of_ham10000_and_isic_is_read_as_it_is(self, tmp_path: Path) -> None:
        put(tmp_path, "part_1/ISIC_0000001.jpg", "part_2/ISIC_0000002.JPG", "ISIC_0000003.jpg")
        ham = "lesion_id,image_id,dx,dx_type,age,sex,localization\nL1,ISIC_0000001,nv,histo,45.0,male,back\n"
        (image,), report = self.noticed(tmp_path, ham)
        assert (image.path, image.lesion_id, image.age, image.site) == ("part_1/ISIC_0000001.jpg", "L1", 45.0, "back")
        assert report.found == {"by their identifiers, at any depth": 1}
        assert "Columns read: path from image_id, site from localization." in report.notes()
        isic = "isic_id,attribution,age_approx,sex,patient_id,diagnosis\nISIC_0000002,x,30,male,IP_1,nevus\n"
        (image,), report = self.noticed(tmp_path, isic)
        assert (image.path, image.patient_ref, image.age) == ("part_2/ISIC_0000002.JPG", "IP_1", 30.0)
        (image,), _ = self.noticed(tmp_path, "image_name\nISIC_0000009\n")
        assert (image.path, image.size_bytes) == ("ISIC_0000009", None)

    def test_columns_may_be_mapped(self, tmp_path: Path) -> None:
        manifest = tmp_path / "cases.csv"
        manifest.write_text("Picture;LesionID;path;Note\na.jpg;L7;ignored;x\n")
        report = ManifestReport()
        columns = {"path": "Picture", "lesion_id": "LesionID"}
        (image,) = read_manifest(manifest, tmp_path, report, columns=columns)
        assert (image.path, image.lesion_id) == ("a.jpg", "L7")
        assert "Columns not read: path, note. To read one, name it with --column." in report.notes()
        with pytest.raises(ManifestError, match="has no column patient, which --column names"):
            read_manifest(manifest, tmp_path, columns={"patient_ref": "Patient"})

    @pytest.mark.parametrize(
        ("written", "on_disk", "found"),
        [
            ("Mu\u0308ller.jpg", "M\u00fcller.jpg", True),
            ("M\u00fcller.jpg", "Mu\u0308ller.jpg", True),
            ("a.JPG", "a.jpg", True),
            ("Photos/A.jpg", "photos/a.JPG", True),
            ("a.jpg", "b.jpg", False),
            ("Weiß.jpg", "Weiss.jpg", False),
            ("img².jpg", "img2.jpg", False),
        ],
    )
    def test_names_that_look_equal_are_found(self, tmp_path: Path, written: str, on_disk: str, found: bool) -> None:
        put(tmp_path, on_disk)
        (image,), report = self.noticed(tmp_path, f"path\n{written}\n")
        assert image.path == (on_disk if found else written)
        assert (image.size_bytes is not None, bool(report.found)) == (found, found)

    def test_of_two_that_look_equal_none_is_taken(self, tmp_path: Path) -> None:
        put(tmp_path, "A.jpg", "a.JPG")
        (image,), report = self.noticed(tmp_path, "path\na.jpg\n")
        assert (image.path, image.size_bytes, report.found) == ("a.jpg", None, {})
        (image,), _ = self.noticed(tmp_path, "path\nA.jpg\n")
        assert image.path == "A.jpg"

    @pytest.mark.parametrize("kind", [".xlsx", ".parquet"])
    def test_workbooks_and_parquet(self, tmp_path: Path, kind: str) -> None:
        table = pd.DataFrame(
            {"path": ["a.jpg", "b.jpg"], "age": [45.0, None], "lesion_id": [7, 8], "sex": ["male", None]}
        )
        manifest = tmp_path / f"cases{kind}"
        table.to_excel(manifest, index=False) if kind == ".xlsx" else table.to_parquet(manifest)
        first, second = read_manifest(manifest, tmp_path)
        assert (first.path, first.age, first.lesion_id, first.sex) == ("a.jpg", 45.0, "7", "male")
        assert (second.path, second.age, second.lesion_id, second.sex) == ("b.jpg", None, "8", None)

    def test_of_a_workbook_the_first_visible_sheet_is_read_and_merged_cells_are_refused(self, tmp_path: Path) -> None:
        book = openpyxl.Workbook()
        hidden = book.active
        hidden.append(["path"])
        hidden.append(["hidden.jpg"])
        hidden.sheet_state = "hidden"
        for name in ("first", "second"):
            sheet = book.create_sheet(name)
            sheet.append(["path", "lesion_id"])
            sheet.append([f"{name}.jpg", "L1"])
            sheet.append([f"{name}2.jpg", None])
        book.save(tmp_path / "cases.xlsx")
        report = ManifestReport()
        images = list(read_manifest(tmp_path / "cases.xlsx", tmp_path, report))
        assert [image.path for image in images] == ["first.jpg", "first2.jpg"]
        assert "WARNING: only the sheet first is read, and not second." in report.notes()
        book["first"].merge_cells("B2:B3")
        book.save(tmp_path / "merged.xlsx")
        with pytest.raises(ManifestError, match="has merged cells"):
            read_manifest(tmp_path / "merged.xlsx", tmp_path)

    @pytest.mark.parametrize("begins", [b"PAR1", b"\xd0\xcf\x11\xe0\xa1\xb1"])
    def test_a_damaged_table_is_refused(self, tmp_path: Path, begins: bytes) -> None:
        assert "damaged" in self.refusal(tmp_path, begins + bytes(range(256)) * 10)

    def test_a_linked_root_holds_what_is_named_by_its_real_path_too(self, tmp_path: Path) -> None:
        real, linked = tmp_path / "real", tmp_path / "linked"
        put(real, "a.jpg", "b.jpg")
        linked.symlink_to(real)
        manifest = tmp_path / "cases.csv"
        manifest.write_text(f"path\n{real}/a.jpg\n{linked}/b.jpg\n{tmp_path}/elsewhere.jpg\n")
        paths = [image.path for image in read_manifest(manifest, linked)]
        assert paths == ["a.jpg", "b.jpg", f"{tmp_path}/elsewhere.jpg"]

    @pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
    def test_not_utf_8(self, tmp_path: Path, encoding: str) -> None:
        assert "not UTF-8" in self.refusal(tmp_path, "path\nMännerrücken.jpg\n".encode(encoding))

    def test_a_dicom_file_and_other_bytes_are_no_table(self, tmp_path: Path) -> None:
        assert "is a DICOM file" in self.refusal(tmp_path, bytes(128) + b"DICM" + bytes(700))
        assert "is a binary file" in self.refusal(tmp_path, b"\x7fELF\0\0")

    def test_of_many_and_long_columns_the_first_and_their_beginnings_are_shown(self, tmp_path: Path) -> None:
        said = self.refusal(tmp_path, ",".join(f"{number}{'x' * 90}" for number in range(30)) + "\n")
        assert f"0{'x' * 39}…, 1{'x' * 39}…" in said
        assert "and 23 more" in said
        assert len(said) < 1_000

    def test_broken_quotes_are_not_csv(self, tmp_path: Path) -> None:
        assert "is not a valid CSV file" in self.refusal(tmp_path, 'path\n"a"b.jpg\n')

    def test_no_such_manifest(self, tmp_path: Path) -> None:
        with pytest.raises(ManifestError, match="cannot be read: No such file or directory"):
            read_manifest(tmp_path / "nowhere.csv", tmp_path)

    def test_no_such_root(self, tmp_path: Path) -> None:
        with pytest.raises(ManifestError, match="name the folder that the manifest's paths start from"):
            read_manifest(tmp_path / "manifest.csv", tmp_path / "nowhere")


@settings(deadline=None, max_examples=200)
@given(content=st.one_of(st.binary(max_size=400), st.text(alphabet=',;\t\n\r" path.jpg\x00éage85+', max_size=200)))
def test_whatever_is_in_a_manifest_it_is_read_or_refused(content: bytes | str) -> None:
    with TemporaryDirectory() as folder:
        manifest = Path(folder) / "cases.csv"
        manifest.write_bytes(content if isinstance(content, bytes) else b"path,age\n" + content.encode())
        with contextlib.suppress(ManifestError):
            list(read_manifest(manifest, Path(folder)))
