"""Cells that no spreadsheet program runs as a formula, and what such cells stand for when they come back."""

import re
from collections.abc import Iterator
from itertools import product

#: Where a spreadsheet program would see a formula (OWASP, "CSV Injection"): at the start of a cell, or behind a
#: character that another program or locale takes for the end of a cell. The wide characters are of East Asian
#: keyboards.
_FORMULA = re.compile(r"(^|[,;\t|\n])(?=[ \"]*[=+\-@\t＝＋－＠])")  # noqa: RUF001
#: The quote that `safe_cell` puts there. Quotes of one cell that are tried with and without, when it comes back.
_QUOTE = re.compile(_FORMULA.pattern.replace(r"(?=", r"'(?="))
_MAX_QUOTES = 6
#: Of a carriage return `safe_cell` makes two characters. A backslash of a path is doubled.
_ESCAPES = re.compile(r"\\\\|\\r")


def safe_cell(cell: object) -> object:
    """Put a quote before everything that a spreadsheet would run. Numbers stay numbers."""
    if not isinstance(cell, str):
        return cell
    # Some readers end a line at a bare carriage return, and Python's writer quotes it only from 3.13 on.
    return _FORMULA.sub(r"\1'", cell.replace("\r", "\\r"))


def meant_by(cell: str) -> Iterator[str]:
    """The texts of which `safe_cell` may have made a cell: a text may hold such quotes by itself.

    Args:
        cell: of a file that came back. The text as it stands comes first.
    """
    places = [found.end() - 1 for found in _QUOTE.finditer(cell)][:_MAX_QUOTES]
    for left_out in product((False, True), repeat=len(places)):
        out = {place for place, left in zip(places, left_out, strict=True) if left}
        text = "".join(character for place, character in enumerate(cell) if place not in out)
        yield _ESCAPES.sub(lambda found: "\r" if found[0] == "\\r" else found[0], text)
