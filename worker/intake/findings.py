"""A file of findings: the page's own, or a table with a path or a lesion in each row."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from sqlalchemy import Connection

from db.feedback import NewFinding, images_by_lesion, images_by_path
from worker.errors import ManifestError
from worker.intake.sources.tables import open_table
from worker.output.safe_cells import meant_by

#: Columns that are read. A row needs a path or a lesion, and one of the texts.
COLUMNS = ("path", "lesion_id", "finding", "diagnosis", "comment", "reviewed", "reviewer", "date")
_TEXTS = {"finding": 200, "diagnosis": 200, "comment": 500}
_NAMED_LINES = 10


@dataclass(kw_only=True)
class FindingsFile:
    """What a file of findings holds.

    Args:
        findings: one for each image; of a row with a lesion only, one for each of its images.
        problems: lines by what is wrong with them. They are left out.
        empty: rows in which nothing was found.
    """

    findings: list[NewFinding] = field(default_factory=list)
    problems: dict[str, list[int]] = field(default_factory=dict)
    empty: int = 0

    def notes(self) -> list[str]:
        """What the person should know, one line each."""
        notes = []
        for problem, lines in self.problems.items():
            shown = ", ".join(map(str, lines[:_NAMED_LINES])) + (" …" if len(lines) > _NAMED_LINES else "")
            count = f"{len(lines):,} row{'s' if len(lines) != 1 else ''}"
            notes.append(f"WARNING: {count} NOT recorded, {problem}: line{'s' if len(lines) != 1 else ''} {shown}.")
        if self.empty:
            notes.append(f"Rows without a finding: {self.empty:,}.")
        return notes


def read_findings(connection: Connection, job_id: int, file: Path, reviewer: str) -> FindingsFile:
    """Read a file and find its images.

    Args:
        connection: to the database.
        job_id: the job that was reviewed.
        file: a CSV, a workbook or Parquet.
        reviewer: who, where a row does not say.

    Raises:
        ManifestError: it is no table, has no column for the image, or none with a finding.
    """
    with open_table(file) as table:
        places = {name: table.names.index(name) for name in COLUMNS if name in table.names}
        if not {"path", "lesion_id"} & places.keys() or not set(_TEXTS) & places.keys():
            raise ManifestError(
                f"{file} has the columns {', '.join(table.names[:10])}. It needs path or lesion_id, and finding, "
                "diagnosis or comment."
            )
        width = len(table.names)
        rows = [(line, [cell.strip() for cell in cells + [""] * (width - len(cells))]) for line, cells in table.rows]

    def cell(cells: Sequence[str], name: str) -> str:
        return cells[places[name]] if name in places else ""

    candidates = [text for _, cells in rows if (path := cell(cells, "path")) for text in meant_by(path)]
    by_path = images_by_path(connection, job_id, candidates)
    only_lesions = [lesion for _, cells in rows if not cell(cells, "path") and (lesion := cell(cells, "lesion_id"))]
    by_lesion = images_by_lesion(connection, job_id, only_lesions)
    read = FindingsFile()
    seen = Counter[int]()
    for line, cells in rows:
        texts = {name: cell(cells, name) or None for name in _TEXTS}
        if not any(texts.values()) and cell(cells, "reviewed").lower() != "yes":
            read.empty += 1
            continue
        path, lesion = cell(cells, "path"), cell(cells, "lesion_id")
        images = by_lesion.get(lesion, [])
        if path:
            images = [by_path[text] for text in meant_by(path) if text in by_path][:1]
        problem = _problem(texts, cell(cells, "date"), images)
        if problem is None and any(seen[image] for image in images):
            problem = "the image stands in an earlier row"
        if problem is not None:
            read.problems.setdefault(problem, []).append(line)
            continue
        seen.update(images)
        read.findings += [
            NewFinding(
                image_id=image,
                finding=texts["finding"],
                diagnosis=texts["diagnosis"],
                comment=texts["comment"],
                reviewer=(cell(cells, "reviewer") or reviewer)[:200],
                reviewed_on=date.fromisoformat(found) if (found := cell(cells, "date")) else None,
            )
            for image in images
        ]
    return read


def _problem(texts: dict[str, str | None], day: str, images: Sequence[int]) -> str | None:
    if not images:
        return "the job has no such image or lesion"
    for name, most in _TEXTS.items():
        if len(texts[name] or "") > most:
            return f"{name} has more than {most} characters"
    try:
        date.fromisoformat(day or "2000-01-01")
    except ValueError:
        return "the date is not of the form 2026-12-31"
    return None
