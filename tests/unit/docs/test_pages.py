"""Every page: links lead somewhere, lines wrap, table cells are short."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
#: Longest line of text, and most words in a cell of a table.
WIDTH, WORDS = 105, 12


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target} does not exist"
        assert not anchor or anchor in anchors(file), f"{target}: there is no such heading"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_lines_wrap_and_cells_are_short(page: Path) -> None:
    code = False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            code = not code
        if code:
            continue
        if line.startswith("|"):
            for cell in line.strip("|").split("|"):
                # Text in backquotes counts as one word.
                words = re.sub(r"`[^`]*`", "x", cell).split()
                assert len(words) <= WORDS, f"more than {WORDS} words in a cell: {cell}"
        elif "](" not in line:
            assert len(line) <= WIDTH, f"longer than {WIDTH}: {line}"
