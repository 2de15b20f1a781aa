"""A path that an export wrote is accepted in a manifest again, whatever is in it, and no cell of the export is run."""

import csv
import os
from dataclasses import replace
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from db.status import ImageStatus
from tests.unit.worker.output.test_csv import ROW
from worker.images.read import path_to_text, text_to_path
from worker.intake.sources.manifest import read_manifest
from worker.output.csv import write_csv

#: Bytes of hostile names: formulas, quotes, delimiters, line ends, escapes, and what is not UTF-8.
_PIECES = st.sampled_from(
    [
        b"=1+1", b"@", b"-", b"+", b"\t", b"\r", b"\n", b",", b";", b"|", b'"', b"'", b"\\", b"\\x41", b" ", b"a",
        b"\xe9", "ü".encode(), b"\xef\xbc\x9d", b".jpg",
    ]
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(pieces=st.lists(_PIECES, min_size=1, max_size=6))
@example(pieces=[b"'=1"])
@example(pieces=[b"\\r"])
@example(pieces=[b" a "])
def test_every_path_of_an_export_is_found_again(pieces: list[bytes]) -> None:
    name = os.fsdecode(b"".join(pieces) + b".jpg")
    with TemporaryDirectory() as folder:
        root = Path(folder)
        (root / name).write_bytes(b"")
        text = path_to_text(name)
        exported = StringIO(newline="")
        write_csv([replace(ROW, path=text)], exported)
        cell = next(csv.DictReader(StringIO(exported.getvalue(), newline="")))["path"]
        assert not cell.lstrip(' "').startswith(("=", "+", "-", "@", "\t"))
        manifest = root / "again.csv"
        manifest.write_text(exported.getvalue(), encoding="utf-8", newline="")
        (image,) = read_manifest(manifest, root)
        assert (text_to_path(image.path), image.size_bytes) == (name, 0)


@pytest.mark.parametrize("status", list(ImageStatus))
def test_rows_of_every_outcome_are_accepted(tmp_path: Path, status: ImageStatus) -> None:
    exported = StringIO(newline="")
    write_csv([replace(ROW, path="a.jpg", status=status)], exported)
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "again.csv").write_text(exported.getvalue())
    (image,) = read_manifest(tmp_path / "again.csv", tmp_path)
    assert image.path == "a.jpg"
