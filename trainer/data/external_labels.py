"""Images from elsewhere: a folder, and a CSV of what they show."""

import csv
import hashlib
from pathlib import Path

import pandas as pd

from trainer.data.ham10000 import DIAGNOSES, melanoma_or_nevus
from trainer.data.splits import UNUSED, never_seen, read_manifest
from trainer.metrics.assess import counts
from trainer.metrics.subgroups import OLDEST
from trainer.run_folder import RunFolder
from worker.images.formats import IMAGE_SUFFIXES
from worker.inference.bundle import TRAINING_IMAGE_DIGITS, Bundle, sha256_of
from worker.tables import no_table

#: Columns of the labels file; the others are optional.
REQUIRED = ("image", "label")
OPTIONAL = ("lesion_id", "age", "sex", "site")
#: Numbers of HAM10000's images in their names, ISIC_0024306 to ISIC_0034320: 10,015, none missing.
HAM10000_NUMBERS = range(24_306, 34_321)
_SEPARATORS = ",;\t"
#: What stands for a lesion that is not known; as one lesion, all images so marked would count as one.
_UNNAMED = ("", "-", "?", "unknown", "none", "na", "n/a", "nan", "null")
#: Words, HAM10000's names, and numbers, which a spreadsheet may write with a point; each with HAM10000's name.
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
#: Names given in an error; the rest are counted.
_NAMED = 10


def read_external(folder: Path, labels: Path) -> pd.DataFrame:
    """Read a folder of images and a CSV of what they show.

    Args:
        folder: holds the images.
        labels: CSV with ``image`` or ``path`` (file name, relative to the folder), ``label`` (melanoma or nevus or
            naevus, mel or nv, 1 or 0; or HAM10000's name of another diagnosis), and perhaps ``lesion_id``, ``age``
            (years), ``sex`` and ``site``. An image without ``lesion_id`` is a lesion.

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
        raise FileNotFoundError(f"Received: {folder} as the folder of images, which is none. Expected: a folder.")
    if not labels.is_file():
        raise FileNotFoundError(
            f"Received: {labels} as labels, which is no file. Expected: a CSV with the columns {', '.join(REQUIRED)}."
        )
    rows = _read_table(labels)
    absent = [name for name in rows["image"] if not _is_inside(folder, name)]
    if absent:
        raise FileNotFoundError(
            f"Received: {labels.name} with {len(absent)} of {len(rows)} images that are not in {folder}: "
            f"{_some(absent)}. Expected: file names relative to the folder, with their endings, and / between folders."
        )
    digests = pd.Series([sha256_of(folder / name) for name in rows["image"]], index=rows.index)
    by_bytes = rows["image"].groupby(digests)
    # Empty files are no copies of each other; that they do not decode is said later.
    if copies := sorted(" = ".join(sorted(names)) for bytes_, names in by_bytes if len(names) > 1 and bytes_ != _EMPTY):
        raise ValueError(
            f"Received: {labels.name} with images of the same bytes under several names: {_some(copies)}. Expected: "
            "each once, for copies would count as lesions of their own."
        )
    # A blank would make two lesions of one.
    named = rows["lesion_id"].fillna("").str.strip() if "lesion_id" in rows else pd.Series("", index=rows.index)
    given = ~named.str.lower().isin(_UNNAMED)
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
        images["age"] = ages.where(ages.between(0, OLDEST))
        images["age_set_aside"] = rows["age"].fillna("").str.strip().where(images["age"].isna(), "")
    for theirs, ours in (("sex", "sex"), ("site", "localization")):
        if theirs in rows:
            images[ours] = rows[theirs]
    found = counts(melanoma_or_nevus(images))["images"]
    if not (found["melanoma"] and found["nevus"]):
        raise ValueError(
            f"Received: {labels.name} with {found['melanoma']} melanoma and {found['nevus']} nevus images. Expected: "
            "at least one of each; sensitivity needs the one and specificity the other."
        )
    labels_of = images.groupby("lesion_id")["dx"].nunique()
    if torn := sorted(labels_of.index[labels_of > 1]):
        raise ValueError(
            f"Received: {labels.name} with lesions of two labels: {_some(torn)}. Expected: one label a lesion."
        )
    return images


def _read_table(labels: Path) -> pd.DataFrame:
    """The rows as texts, columns under small letters: those that are needed filled, images once, labels known."""
    if other := no_table(labels):
        raise ValueError(f"Received: {labels.name}, which is {other}. Expected: a table in text; save it as CSV UTF-8.")
    try:
        with labels.open(encoding="utf-8-sig") as file:
            header = next((line for line in file if line.strip()), "")
        separator = max(_SEPARATORS, key=header.count)
        # Asked of the line itself: Pandas gives a second column of the same name another one.
        names = [name.strip().lower() for name in next(csv.reader([header], delimiter=separator), [])]
        rows = pd.read_csv(labels, dtype=str, skipinitialspace=True, sep=separator)
        # A spreadsheet writes separators alone for rows that once held something.
        rows = rows.dropna(how="all")
    except UnicodeDecodeError:
        raise ValueError(
            f"Received: {labels.name}, which is not in UTF-8. Expected: a CSV in UTF-8; a spreadsheet "
            'program saves one as "CSV UTF-8".'
        ) from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        raise ValueError(
            f"Received: {labels.name}, which is not read as a table ({str(error).strip()}). Expected: a CSV in UTF-8 "
            "with commas, semicolons or tabs, and with the names of its columns in the first line."
        ) from None
    if not pd.api.types.is_integer_dtype(rows.index):
        raise ValueError(
            f"Received: {labels.name}, whose rows have more fields than its first line has names, by a separator at "
            "their end perhaps. Expected: as many in each line."
        )
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise ValueError(f"Received: {labels.name} with two columns {_some(twice)}. Expected: each name once.")
    rows.columns = rows.columns.str.strip().str.lower()
    if "image" not in rows.columns:
        # The name that a manifest of `dermq submit` has for it.
        rows = rows.rename(columns={"path": "image"})
    if missing := [name for name in REQUIRED if name not in rows.columns]:
        raise ValueError(
            f"Received: {labels.name} with the columns {', '.join(rows.columns)}. Missing: {', '.join(missing)}. "
            f"Expected: {', '.join(REQUIRED)}, and if known {', '.join(OPTIONAL)}; name them in the first line."
        )
    for column in REQUIRED:
        rows[column] = rows[column].fillna("").str.strip()
        if empty := [str(row + 1) for row in rows.index[rows[column] == ""]]:
            raise ValueError(
                f"Received: {labels.name} without {column} in row {_some(empty)}, counted from 1 below the header. "
                "Expected: one in each row."
            )
    if doubled := sorted(set(rows.loc[rows["image"].duplicated(), "image"])):
        raise ValueError(f"Received: {labels.name} with images listed twice: {_some(doubled)}. Expected: each once.")
    rows["label"] = rows["label"].str.lower()
    if unknown := sorted(set(rows["label"]) - set(_LABELS)):
        raise ValueError(
            f"Received: {labels.name} with the labels {_some([repr(name) for name in unknown])}. Expected: melanoma or "
            "nevus (or mel and nv, or 1 and 0), or of what is neither HAM10000's name: akiec, bcc, bkl, df or vasc. "
            "Take out images of anything else."
        )
    return rows


def without_label(folder: Path, images: pd.DataFrame) -> int:
    """How many image files of the folder, at any depth, the labels do not name.

    Args:
        folder: as given to `read_external`.
        images: as `read_external` gives them.
    """
    named = {str(Path(path)) for path in images["path"]}
    found = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    return sum(str(path) not in named for path in found)


def refuse_own(images: pd.DataFrame, run: Path) -> None:
    """Refuse images of the data set that a run was made from: they are no images from elsewhere.

    Known by their names, without folder and ending, and by their bytes, whatever their names; a run from before it
    listed the bytes knows the names alone. Images that it set aside, of a source that it left out for example, may be
    judged where it has seen no other image of the lesion and no near-duplicate.

    Args:
        images: as `read_external` gives them.
        run: the run folder.

    Raises:
        ValueError: counts and names them, with the run's name for them and the side of its split that they are on.
        SplitError: the run's split was changed since it was written.
    """
    manifest = read_manifest(run)
    RunFolder(run).check_hashes(manifest)
    manifest = manifest[~never_seen(manifest, run)]
    names = manifest["image_id"].astype(str)
    sides = dict(zip(names, manifest["split"].replace(UNUSED, "set aside, its lesion was not"), strict=True))
    name_of = dict(zip(manifest["sha256"], names, strict=True)) if "sha256" in manifest else {}
    own = []
    for given, digest in zip(images["image_id"], images["sha256"], strict=True):
        name = stem if (stem := Path(given).stem) in sides else name_of.get(digest)
        if name is not None:
            own.append(f"{given} ({'' if name == stem else f'{name}, '}{sides[name]})")
    _refuse(own, images, run.name)


def refuse_training_images(images: pd.DataFrame, bundle: Bundle) -> None:
    """Refuse images of the data set that a bundle's model was made from.

    Known by their bytes, whatever their names; and by their names, without folder and ending, since those of HAM10000
    have numbers of one range that no other image has. A bundle from before it listed the bytes knows the names alone.

    Args:
        images: as `read_external` gives them.
        bundle: verified.

    Raises:
        ValueError: counts and names them.
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
        raise ValueError(
            f"Received: {len(own)} of {len(images)} images of the data set that the model was made from: {_some(own)}. "
            f"Expected: images that {model} has never seen; on its own it was trained, or its thresholds were chosen, "
            "or they are its sealed test split."
        )


def refuse_recalibrated_on(images: pd.DataFrame, bundle: Bundle) -> None:
    """Refuse images that a bundle's calibration and thresholds were fitted on; known by their bytes.

    Args:
        images: as `read_external` gives them.
        bundle: recalibrated or not.

    Raises:
        ValueError: counts and names them.
    """
    origin = bundle.manifest.recalibration
    if origin is None:
        return
    fitted_on = set(bundle.read(origin.file).decode().split())
    if own := images.loc[images["sha256"].isin(fitted_on), "image_id"].tolist():
        raise ValueError(
            f"Received: {len(own)} of {len(images)} images that {bundle.manifest.name} {bundle.manifest.version} was "
            f"recalibrated to: {_some(own)}. Expected: images that had no part in it, for on these every figure is too "
            "good. What it gives there, cross-fitted, stands in its MODEL_CARD.md."
        )


def _is_inside(folder: Path, name: str) -> bool:
    # By its name only: a folder of links to images elsewhere is fine, a name that leads out of it is a mistake.
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        return False
    try:
        return (folder / name).is_file()
    except OSError:  # a name longer than any file's
        return False


def _some(names: list[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
