"""A manifest as a source: checked from beginning to end, then streamed row by row.

What can be read of a row is read; the rest is left empty and counted. A row without a path is no image, and named.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from db.submission import NewImage
from worker.errors import ManifestError
from worker.images.formats import IMAGE_SUFFIXES
from worker.images.read import path_to_text
from worker.intake.scan_report import ScanReport
from worker.intake.sources.ages import years_of
from worker.intake.sources.base import MAX_LENGTHS, is_too_long, shorten, size_and_time
from worker.intake.sources.folder import walk_folder
from worker.intake.sources.manifest_columns import ColumnPlan, plan_columns
from worker.intake.sources.names import FileFinder
from worker.intake.sources.passed_over import Selection
from worker.intake.sources.tables import open_table

#: Lines of one problem that a message names, and that a report keeps.
_NAMED_LINES, _KEPT_LINES = 10, 100_000
#: A relative path that is stored as it is: most are. The others take the way through `os.path.normpath`.
_PLAIN = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9_. -]*/)*[A-Za-z0-9_-][A-Za-z0-9_. -]*")

_NO_PATH = "without a path"
_TOO_MANY_CELLS = "with more cells than columns"
_NUL = "with a NUL in the path"
#: Problems for which a row becomes no image.
_NOT_SUBMITTED = (_NO_PATH, _TOO_MANY_CELLS, _NUL)


@dataclass(kw_only=True)
class ManifestReport:
    """What was noticed in a manifest. Reading it fills it."""

    #: Lines by problem, the first ones; and how many there are of each.
    lines: dict[str, list[int]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    #: Files that were found in another way than by their path as it stands, by that way.
    found: Counter[str] = field(default_factory=Counter)
    columns: ColumnPlan | None = None
    #: Of the table itself.
    note: str = ""
    #: Rows whose path a pattern of ``--exclude`` fits.
    excluded: int = 0

    def add(self, problem: str, line: int) -> None:
        """Count a problem of a line. Its content is not kept: it may be a patient's."""
        self.counts[problem] += 1
        lines = self.lines.setdefault(problem, [])
        if len(lines) < _KEPT_LINES:
            lines.append(line)

    def not_submitted_by_kind(self) -> dict[str, int]:
        """Rows that became no image, by problem."""
        return {problem: self.counts[problem] for problem in _NOT_SUBMITTED if self.counts[problem]}

    def notes(self) -> list[str]:
        """What the submitter should know, one line each."""
        notes = []
        for problem, count in self.counts.items():
            where = self._lines_of(problem)
            if problem in _NOT_SUBMITTED:
                notes.append(f"WARNING: {count:,} row{'s' if count != 1 else ''} {problem} NOT submitted: {where}.")
            else:
                notes.append(f"Left empty, {problem}: {count:,} row{'s' if count != 1 else ''}, {where}.")
        notes += [f"Found {way}: {count:,} file{'s' if count != 1 else ''}." for way, count in self.found.items()]
        if self.excluded:
            notes.append(f"Skipped, excluded rows: {self.excluded:,}.")
        return [*([self.note] if self.note else []), *notes, *(self.columns.notes() if self.columns else [])]

    def problems(self) -> Iterator[str]:
        """Every problem with its line, in the order of lines."""
        for line, problem in sorted((line, problem) for problem, lines in self.lines.items() for line in lines):
            yield f"line {line}: {f'a row {problem}' if problem in _NOT_SUBMITTED else problem}"

    def _lines_of(self, problem: str) -> str:
        lines = self.lines[problem]
        more = self.counts[problem] - _NAMED_LINES
        shown = ", ".join(map(str, lines[:_NAMED_LINES])) + (f" … and {more:,} more" if more > 0 else "")
        return f"line{'s' if len(lines) != 1 else ''} {shown}"


def read_manifest(
    manifest: Path,
    root: Path,
    report: ManifestReport | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    selection: Selection | None = None,
) -> Iterator[NewImage]:
    """Check a manifest from beginning to end, then stream its rows.

    Args:
        manifest: CSV (a comma, a semicolon or a tab; UTF-8), an Excel or OpenDocument workbook, or Parquet. Columns:
            see `worker.intake.sources.manifest_columns`.
        root: folder that its paths are relative to.
        report: filled with what is noticed while the rows are streamed.
        columns: name of a column by dermq's own name, where it is another.
        selection: patterns of paths that are left out.

    Returns:
        Iterator of one image per row, in order, repeated paths included.

    Raises:
        ManifestError: it cannot be read, or has no column for the path.
    """
    if not root.is_dir():
        raise ManifestError(f"No folder at {root}. With --root, name the folder that the manifest's paths start from.")
    if manifest.suffix.lower() in IMAGE_SUFFIXES:
        raise ManifestError(f"{manifest} is an image. Submit the folder that holds it, or a manifest.")
    reader = _Reader(manifest, root, columns or {}, selection or Selection())
    # Errors in the middle are found before anything is recorded.
    for _ in reader.rows(ManifestReport(), look=False):
        pass
    return reader.rows(report if report is not None else ManifestReport(), look=True)


class _Reader:
    """Reads a manifest, more than once.

    Args:
        manifest: the file.
        root: folder that its paths are relative to.
        columns: as `read_manifest`.
        selection: as `read_manifest`.
    """

    def __init__(self, manifest: Path, root: Path, columns: Mapping[str, str], selection: Selection) -> None:
        self._manifest, self._root, self._columns, self._selection = manifest, root, columns, selection
        # An absolute path may begin with the root as given, or with its target when the root is a link.
        self._roots = (str(root), os.path.realpath(root))
        self._finder = FileFinder(root)

    def rows(self, report: ManifestReport, *, look: bool) -> Iterator[NewImage]:
        """Yield the images of the rows.

        Args:
            report: filled.
            look: whether to find each file, its size and its modification time.
        """
        with open_table(self._manifest) as table:
            plan = plan_columns(str(self._manifest), table.names, self._columns)
            report.columns, report.note = plan, table.note
            width = len(table.names)
            for line, cells in table.rows:
                if len(cells) > width and any(cell.strip() for cell in cells[width:]):
                    report.add(_TOO_MANY_CELLS, line)
                    continue
                # Excel leaves out empty cells at the end of a row.
                cells += [""] * (width - len(cells))
                image = self._image(cells, plan, report, line, look=look)
                if image is not None and self._selection.excludes(image.path):
                    report.excluded += 1
                elif image is not None:
                    yield image

    def _image(
        self, cells: list[str], plan: ColumnPlan, report: ManifestReport, line: int, *, look: bool
    ) -> NewImage | None:
        path = cells[plan.places["path"]].strip()
        if not path or "\0" in path:
            report.add(_NUL if path else _NO_PATH, line)
            return None
        texts: dict[str, str | None] = {}
        for name in ("lesion_id", "patient_ref", "sex", "site"):
            cell = cells[plan.places[name]].strip() if name in plan.places else ""
            if len(cell) > MAX_LENGTHS[name] or "\0" in cell:
                report.add(f"{name} has more than {MAX_LENGTHS[name]} characters, or a NUL", line)
                cell = ""
            texts[name] = cell or None
        age = _age(cells[plan.places["age"]], report, line) if "age" in plan.places else None
        text = path if _PLAIN.fullmatch(path) else self._relative(path)
        size_bytes, mtime_ns = None, None
        if look:
            size_bytes, mtime_ns = size_and_time(self._root, text)
            if (
                size_bytes is None
                and (other := self._written_otherwise(cells[plan.places["path"]], text, plan, report)) is not None
            ):
                text = other
                size_bytes, mtime_ns = size_and_time(self._root, text)
        failure = None
        if is_too_long(text):
            text, failure = shorten(text)
        return NewImage(
            path=text,
            size_bytes=size_bytes,
            mtime_ns=mtime_ns,
            lesion_id=texts["lesion_id"],
            patient_ref=texts["patient_ref"],
            age=age,
            sex=texts["sex"],
            site=texts["site"],
            failure=failure,
        )

    def _written_otherwise(self, cell: str, text: str, plan: ColumnPlan, report: ManifestReport) -> str | None:
        """The path of the one file that is meant by a path that leads to none."""
        exported = self._finder.from_export(cell)
        if exported is not None and not exported.startswith(("/", "../")):
            report.found["by their paths as an export writes them"] += 1
            return exported
        cell = cell.strip()
        if text.startswith(("/", "../")):
            return None
        if (similar := self._finder.similar(os.path.normpath(cell))) is not None:
            report.found["by names that differ in Unicode form or case only"] += 1
            return path_to_text(similar)
        if plan.by_identifier and "/" not in cell:
            found = self._finder.by_identifier(cell, self._all_images)
            if found is not None:
                report.found["by their identifiers, at any depth"] += 1
            return found
        return None

    def _all_images(self) -> Iterator[str]:
        return (image.path for image in walk_folder(self._root, ScanReport()))

    def _relative(self, cell: str) -> str:
        """The path as the database stores it. One that leads out of the root stays, and a worker refuses it."""
        path = os.path.normpath(cell)
        if os.path.isabs(path):  # noqa: PTH117
            root = next((root for root in self._roots if os.path.commonpath((path, root)) == root), None)
            path = os.path.relpath(path, root) if root is not None else path
        return path_to_text(path)


def _age(cell: str, report: ManifestReport, line: int) -> float | None:
    age = years_of(cell)
    if age is None and cell.strip():
        report.add("age is not a number of years from 0 to 130", line)
    return age
