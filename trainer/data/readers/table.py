"""The table that every reader gives: one row an image, with the same columns whatever the data set."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from trainer.data.diagnoses import DIAGNOSES
from trainer.data.external_labels import PLACEHOLDERS
from trainer.data.readers.ham10000 import NAME as HAM10000
from trainer.errors import DatasetError
from worker.images.formats import IMAGE_SUFFIXES
from worker.tables import MAX_ROW, read_header, repeated_names

#: Columns of the table. Texts are empty where nothing is known; ``age`` is not a number then.
COLUMNS = (
    "image_id",  # unique over all data sets
    "lesion_id",  # the image's own name where the lesion is unknown
    "patient_id",
    "dx",  # one of `trainer.data.diagnoses.DIAGNOSES`
    "dx_type",  # how the diagnosis was made
    "age",  # years
    "sex",
    "localization",  # body site
    "dataset",  # source: the clinic or the camera that the image came from, as HAM10000 names this column
    "collection",  # the data set
    "licence",
    "geometry",  # what was done to the frame
    "path",
)
#: Names in an error; the others are counted.
_NAMED = 20


@dataclass(frozen=True, kw_only=True)
class DatasetTable:
    """What a reader found.

    Args:
        images: rows with `COLUMNS`, sorted by ``image_id``.
        left_out: number of images that are not used, by reason.
    """

    images: pd.DataFrame
    left_out: dict[str, int] = field(default_factory=dict)


def make_table(
    rows: pd.DataFrame, name: str, left_out: dict[str, int] | None = None, *, published: bool = False
) -> DatasetTable:
    """Complete the columns, and check the rows.

    Args:
        rows: with ``image_id``, ``dx``, ``path``, and any other of `COLUMNS`.
        name: of the data set, for errors and as its ``collection``.
        left_out: images that the reader left out, by reason.
        published: whether it is HAM10000 itself, whose name no other may have.

    Raises:
        DatasetError: there is no image, an image is listed twice, a diagnosis is unknown, or a lesion has two.
    """
    if not len(rows):
        raise DatasetError(f"{name} has no image that can be used{_reasons(left_out)}.")
    rows = rows.copy()
    for column in COLUMNS:
        if column not in rows:
            rows[column] = float("nan") if column == "age" else ""
        elif column != "age":
            # By way of objects: a column without any entry is one of floats.
            rows[column] = rows[column].astype(object).where(rows[column].notna(), "").astype(str).str.strip()
    for column in ("lesion_id", "patient_id"):
        rows[column] = without_placeholders(rows[column])
    rows["image_id"] = rows["image_id"].str.strip()
    rows["dx"] = rows["dx"].str.lower()
    rows["age"] = pd.to_numeric(rows["age"], errors="coerce")
    if name == HAM10000 and not published:
        raise DatasetError(f"The folder {name} holds another data set than HAM10000. Give it another name.")
    rows["collection"] = name
    rows["lesion_id"] = rows["lesion_id"].where(rows["lesion_id"] != "", rows["image_id"])
    rows["dataset"] = rows["dataset"].where(rows["dataset"] != "", name)
    if joined := sorted({source for source in rows["dataset"] if "+" in source}):
        raise DatasetError(
            f"{name} has sources with a plus sign: {shortened(joined)}. It joins sources in --fold source:a+b: name "
            "them without."
        )
    if doubled := sorted(set(rows.loc[rows["image_id"].duplicated(), "image_id"])):
        raise DatasetError(f"{name} lists images twice: {shortened(doubled)}. List each once.")
    if unknown := sorted(set(rows["dx"]) - set(DIAGNOSES)):
        raise DatasetError(f"{name} has the diagnoses {shortened(unknown)}; known are {', '.join(DIAGNOSES)}.")
    if torn := lesions_with_two_diagnoses(rows):
        raise DatasetError(f"Lesions with more than one diagnosis in {name}: {shortened(torn)}. Correct its table.")
    return DatasetTable(
        images=rows[list(COLUMNS)].sort_values("image_id", ignore_index=True), left_out=dict(left_out or {})
    )


def without_placeholders(names: "pd.Series[str]") -> "pd.Series[str]":
    """Entries that stand for "unknown" become empty: as a name they would make one patient of all of them."""
    return names.where(~names.str.strip().str.lower().isin(PLACEHOLDERS), "")


def lesions_with_two_diagnoses(rows: pd.DataFrame) -> list[str]:
    """Lesions whose images have different diagnoses, sorted."""
    diagnoses = rows.groupby("lesion_id")["dx"].nunique()
    return sorted(diagnoses.index[diagnoses > 1])


def find_images(folders: Iterable[Path]) -> dict[str, Path]:
    """Image files directly in the folders, by name without ending."""
    return {
        path.stem: path
        for folder in folders
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES
    }


def with_paths(rows: pd.DataFrame, root: Path, folders: Iterable[Path]) -> pd.DataFrame:
    """Add ``path``.

    Raises:
        DatasetError: images are missing; counts and names them.
    """
    rows = rows.assign(image_id=rows["image_id"].str.strip())
    found = find_images(folders)
    if absent := sorted(set(rows["image_id"]) - set(found)):
        raise DatasetError(
            f"{len(absent)} of {len(rows)} images of {root} are missing: {shortened(absent)}. An image is named "
            "without folder and ending. If the names are right, copy the data set again."
        )
    return rows.assign(path=[str(found[name]) for name in rows["image_id"]])


def read_table(file: Path, needed: Iterable[str]) -> pd.DataFrame:
    """A CSV as texts.

    Raises:
        DatasetError: it is no table in UTF-8, or a column is missing.
    """
    try:
        with file.open(encoding="utf-8-sig") as opened:
            header = next((line for line in opened if line.strip()), "")[:MAX_ROW]
        delimiter, names = read_header(header)
        rows = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig", sep=delimiter, index_col=False)
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DatasetError(
            f"{file} cannot be read as a table ({str(error).strip()}). Save it as CSV UTF-8 with commas, semicolons "
            "or tabs."
        ) from None
    if twice := [name for name in repeated_names(names) if name]:
        raise DatasetError(f"{file} has two columns named {shortened(twice)}. Name each column once.")
    rows.columns = rows.columns.str.strip()
    if missing := [name for name in needed if name not in rows.columns]:
        raise DatasetError(
            f"{file} has no column {' and no '.join(missing)}. Its columns are {', '.join(rows.columns)}."
        )
    return rows


def shortened(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _reasons(left_out: dict[str, int] | None) -> str:
    return "".join(f"; {count} left out: {reason}" for reason, count in (left_out or {}).items())
