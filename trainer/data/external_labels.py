"""Images of another clinic: a folder, and a CSV with labels."""

import hashlib
from pathlib import Path

import pandas as pd

from trainer.data.counts import count_classes
from trainer.data.diagnoses import DIAGNOSES, MAX_AGE, melanoma_or_nevus
from trainer.data.splits import UNUSED, never_seen, read_manifest
from trainer.errors import InputError, MissingError
from trainer.run_folder import RunFolder
from worker.images.formats import IMAGE_SUFFIXES
from worker.inference.bundle import TRAINING_IMAGE_DIGITS, Bundle, sha256_of
from worker.tables import MAX_ROW, describe_other_file, read_header, repeated_names

#: Columns of the labels file: required and optional ones.
REQUIRED = ("image", "label")
OPTIONAL = ("lesion_id", "patient_id", "age", "sex", "site", "source", "licence")
#: Optional columns that are taken as they are, with HAM10000's names.
_OURS = {
    "patient_id": "patient_id",
    "sex": "sex",
    "site": "localization",
    "source": "dataset",
    "licence": "licence",
}
#: Numbers of HAM10000's images in their names, ISIC_0024306 to ISIC_0034320: 10,015, none missing.
HAM10000_NUMBERS = range(24_306, 34_321)
#: Entries for an unknown lesion or patient. As a name, they would make one of all these images.
PLACEHOLDERS = ("", "-", "?", "unknown", "none", "na", "n/a", "nan", "null")
#: Labels, with the name in HAM10000. Spreadsheets may write numbers with a decimal point.
_LABELS = {name: name for name in DIAGNOSES} | {
    "melanoma": "mel",
    "nevus": "nv",
    "naevus": "nv",
    "1": "mel",
    "0": "nv",
    "1.0": "mel",
    "0.0": "nv",
}
#: SHA-256 of an empty file.
_EMPTY = hashlib.sha256(b"").hexdigest()
#: Names in an error. The others are counted.
_NAMED = 10


def read_external(folder: Path, labels: Path, *, both_classes: bool = True) -> pd.DataFrame:
    """Read a folder of images and a CSV of what they show.

    Args:
        folder: holds the images.
        labels: CSV with ``image`` or ``path`` (file name, relative to the folder), ``label`` (melanoma or nevus or
            naevus, mel or nv, 1 or 0; or HAM10000's name of another diagnosis), and perhaps ``lesion_id``,
            ``patient_id``, ``age`` (years), ``sex``, ``site``, ``source`` and ``licence``. An image without
            ``lesion_id`` is a lesion.
        both_classes: whether melanomas and nevi must be there: to measure both, and not to train on.

    Returns:
        Rows with ``image_id``, ``lesion_id``, ``lesion_given`` (whether the CSV named it), ``dx`` (HAM10000's name
        of the diagnosis), ``path``, ``sha256`` (of the file), the optional columns under HAM10000's names, and with
        ages ``age_set_aside``: one that no person has, or that is no number, as it was given; empty where it is fine.

    Raises:
        FileNotFoundError: the folder, the CSV or an image is missing; the first images are named.
        ValueError: the CSV is none; a column is missing or stands there twice, a cell of one that is needed is empty, a
            label is unknown, an image is listed twice or is there under two names, a lesion has two labels, or there is
            no melanoma or no nevus.
    """
    if not folder.is_dir():
        raise MissingError(f"{folder} is no folder. Name the folder of the images.")
    if not labels.is_file():
        raise MissingError(f"{labels} is no file. Name a CSV with the columns {', '.join(REQUIRED)}.")
    rows = _read_table(labels)
    absent = [name for name in rows["image"] if not _is_inside(folder, name)]
    if absent:
        raise MissingError(
            f"{len(absent)} of {len(rows)} images of {labels.name} are not in {folder}: {_some(absent)}. Write file "
            "names relative to the folder, with their endings, and / between folders."
        )
    digests = pd.Series([sha256_of(folder / name) for name in rows["image"]], index=rows.index)
    by_bytes = rows["image"].groupby(digests)
    # Empty files are not copies of each other. They are refused later because they do not decode.
    if copies := sorted(" = ".join(sorted(names)) for bytes_, names in by_bytes if len(names) > 1 and bytes_ != _EMPTY):
        raise InputError(
            f"{labels.name} names copies of the same file: {_some(copies)}. Name each once: copies would count as "
            "lesions of their own."
        )
    # A space at the end would make two lesions of one.
    named = rows["lesion_id"].fillna("").str.strip() if "lesion_id" in rows else pd.Series("", index=rows.index)
    given = ~named.str.lower().isin(PLACEHOLDERS)
    images = pd.DataFrame(
        {
            "image_id": rows["image"],
            "lesion_id": named.where(given, rows["image"]),
            "lesion_given": given,
            "dx": rows["label"].map(_LABELS),
            "path": [str(folder / name) for name in rows["image"]],
            "sha256": digests,
        }
    )
    if "age" in rows:
        ages = pd.to_numeric(rows["age"], errors="coerce")
        images["age"] = ages.where(ages.between(0, MAX_AGE))
        images["age_set_aside"] = rows["age"].fillna("").str.strip().where(images["age"].isna(), "")
    for theirs, ours in _OURS.items():
        if theirs in rows:
            images[ours] = rows[theirs]
    found = count_classes(melanoma_or_nevus(images)).images
    if both_classes and not (found.melanoma and found.nevus):
        raise InputError(
            f"{labels.name} has {found.melanoma} melanoma and {found.nevus} nevus images. At least one of each is "
            "needed: sensitivity is measured on melanomas and specificity on nevi."
        )
    labels_of = images.groupby("lesion_id")["dx"].nunique()
    if torn := sorted(labels_of.index[labels_of > 1]):
        raise InputError(f"{labels.name} has lesions with two labels: {_some(torn)}. Give each lesion one label.")
    return images


def _read_table(labels: Path) -> pd.DataFrame:
    """The rows as texts, with column names in lower case. Required columns are filled, images unique, labels known."""
    if other := describe_other_file(labels):
        raise InputError(f"{labels.name} is {other}. Save the table as CSV UTF-8.")
    try:
        with labels.open(encoding="utf-8-sig") as file:
            header = next((line for line in file if line.strip()), "")[:MAX_ROW]
        # Read from the line itself: pandas renames the second of two columns with one name.
        delimiter, names = read_header(header)
        rows = pd.read_csv(labels, dtype=str, skipinitialspace=True, sep=delimiter)
        # A spreadsheet writes rows of delimiters where rows were cleared.
        rows = rows.dropna(how="all")
    except UnicodeDecodeError:
        raise InputError(f'{labels.name} is not in UTF-8. Save it in the spreadsheet program as "CSV UTF-8".') from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        raise InputError(
            f"{labels.name} cannot be read as a table ({str(error).strip()}). Save it as CSV UTF-8 with commas, "
            "semicolons or tabs, and with the names of the columns in the first line."
        ) from None
    if not pd.api.types.is_integer_dtype(rows.index):
        raise InputError(
            f"The rows of {labels.name} have more fields than the first line has "
            "names. Look for a delimiter at the end of the rows."
        )
    if twice := [name for name in repeated_names(names) if name]:
        raise InputError(f"{labels.name} has two columns named {_some(twice)}. Name each column once.")
    rows.columns = rows.columns.str.strip().str.lower()
    if "image" not in rows.columns:
        # The name of this column in a manifest of `dermq submit`.
        rows = rows.rename(columns={"path": "image"})
    if missing := [name for name in REQUIRED if name not in rows.columns]:
        raise InputError(
            f"{labels.name} has no column {' and no '.join(missing)}. Its columns are {', '.join(rows.columns)}. Name "
            f"{', '.join(REQUIRED)} in the first line, and if known {', '.join(OPTIONAL)}."
        )
    for column in REQUIRED:
        rows[column] = rows[column].fillna("").str.strip()
        if empty := [str(row + 1) for row in rows.index[rows[column] == ""]]:
            raise InputError(
                f"{labels.name} has no {column} in row {_some(empty)}, counted from 1 below the header. Fill every row."
            )
    if doubled := sorted(set(rows.loc[rows["image"].duplicated(), "image"])):
        raise InputError(f"{labels.name} lists images twice: {_some(doubled)}. List each once.")
    rows["label"] = rows["label"].str.lower()
    if unknown := sorted(set(rows["label"]) - set(_LABELS)):
        raise InputError(
            f"{labels.name} has the labels {_some([repr(name) for name in unknown])}. Use melanoma and nevus (or mel "
            "and nv, or 1 and 0), and for other diagnoses HAM10000's names akiec, bcc, bkl, df and vasc. Remove "
            "images of anything else."
        )
    return rows


def without_label(folder: Path, images: pd.DataFrame) -> int:
    """Number of image files in the folder, at any depth, that the labels do not name.

    Args:
        folder: as given to `read_external`.
        images: as `read_external` gives them.
    """
    named = {str(Path(path)) for path in images["path"]}
    found = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    return sum(str(path) not in named for path in found)


def refuse_own(images: pd.DataFrame, run: Path) -> None:
    """Refuse images of the data set that a run was made from.

    They are recognised by their names, without folder and ending, and by their bytes. Images that the run set aside,
    such as those of a source that it left out, are allowed if it has seen no other image of the lesion and no
    near-duplicate.

    Args:
        images: as `read_external` gives them.
        run: the run folder.

    Raises:
        InputError: counts and names them, with their names in the run and the sides of its split.
        SplitError: the run's split was changed since it was written.
    """
    manifest = read_manifest(run)
    RunFolder(run).check_hashes(manifest)
    manifest = manifest[~never_seen(manifest, run)]
    names = manifest["image_id"].astype(str)
    sides = dict(zip(names, manifest["split"].replace(UNUSED, "set aside, but not its lesion"), strict=True))
    name_of = dict(zip(manifest["sha256"], names, strict=True))
    own = []
    for given, digest in zip(images["image_id"], images["sha256"], strict=True):
        name = stem if (stem := Path(given).stem) in sides else name_of.get(digest)
        if name is not None:
            own.append(f"{given} ({'' if name == stem else f'{name}, '}{sides[name]})")
    _refuse(own, images, run.name)


def refuse_training_images(images: pd.DataFrame, bundle: Bundle) -> None:
    """Refuse images of the data set that a bundle's model was made from.

    They are recognised by their bytes; and by their names, without folder and ending, since the images of HAM10000 have
    numbers of a range that no other image has. Bundles from before the list of bytes know the names only.

    Args:
        images: as `read_external` gives them.
        bundle: verified.

    Raises:
        InputError: counts and names them.
    """
    names = {f"ISIC_{number:07}" for number in HAM10000_NUMBERS}
    listed = bundle.manifest.training_images
    digests = set(bundle.read(listed).decode().split()) if listed else set()
    own = [
        name
        for name, digest in zip(images["image_id"], images["sha256"], strict=True)
        if Path(name).stem in names or digest[:TRAINING_IMAGE_DIGITS] in digests
    ]
    _refuse(own, images, f"{bundle.manifest.name} {bundle.manifest.version}")


def _refuse(own: list[str], images: pd.DataFrame, model: str) -> None:
    if own:
        raise InputError(
            f"{len(own)} of {len(images)} images are of the data set that {model} was made from: {_some(own)}. Remove "
            "them: on these images the model was trained or its thresholds were chosen, or they are its test split."
        )


def refuse_recalibrated_on(images: pd.DataFrame, bundle: Bundle) -> None:
    """Refuse images that a bundle's calibration and thresholds were fitted on, recognised by their bytes.

    Args:
        images: as `read_external` gives them.
        bundle: recalibrated or not.

    Raises:
        InputError: counts and names them.
    """
    origin = bundle.manifest.recalibration
    if origin is None:
        return
    fitted_on = set(bundle.read(origin.file).decode().split())
    if own := images.loc[images["sha256"].isin(fitted_on), "image_id"].tolist():
        raise InputError(
            f"{bundle.manifest.name} {bundle.manifest.version} was recalibrated on {len(own)} of {len(images)} images: "
            f"{_some(own)}. Remove them: on these images every figure is too "
            "good. Its MODEL_CARD.md has cross-fitted figures."
        )


def _is_inside(folder: Path, name: str) -> bool:
    # Checks the name only: links in the folder may lead out of it, names must not.
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        return False
    try:
        return (folder / name).is_file()
    except OSError:  # a name longer than any file's
        return False


def _some(names: list[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
