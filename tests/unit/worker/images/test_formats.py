"""Every kind of file that docs/formats.md lists: the right pixels, or a refusal that names the true thing."""

import re
from pathlib import Path

import numpy as np
import pytest

from tests.format_cases import CASES, READ, Case
from worker.errors import ImageFaultError
from worker.images.decode import decode

PAGE = (Path(__file__).parents[4] / "docs" / "formats.md").read_text(encoding="utf-8")
#: Rows of its table: what the file is, and what happens to it.
ROWS = dict(re.findall(r"^\| ([^|]+?) \| (read|`[a-z_]+`(?: or `[a-z_]+`)?) \|", PAGE, re.MULTILINE))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.row}: {case.name}")
def test_each_kind_of_file_is_read_right_or_refused_by_its_name(case: Case) -> None:
    data = case.make()
    if case.outcome != READ:
        with pytest.raises(ImageFaultError) as caught:
            decode(data)
        assert (caught.value.code, case.says in caught.value.sentence) == (case.outcome, True), caught.value.sentence
        return
    image = decode(data)
    assert (image.dtype, image.shape[2:]) == (np.uint8, (3,))
    for other in [case.expected] + ([case.second(data)] if case.second else []):
        if other is not None:
            assert image.shape == other.shape
            assert int(np.abs(image.astype(int) - other).max()) <= case.within


@pytest.mark.parametrize("row", ROWS)
def test_the_page_tells_the_outcome_of_each_row(row: str) -> None:
    assert {case.outcome for case in CASES if case.row == row} == set(re.findall(r"[a-z_]+", ROWS[row])) - {"or"}


def test_the_page_has_every_row() -> None:
    assert {case.row for case in CASES} == set(ROWS)
