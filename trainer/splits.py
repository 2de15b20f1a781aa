"""Lesion-disjoint split into training, validation and test, and its manifest.

Several images of one lesion look alike. A split by image puts siblings of test images into training and inflates every
figure, so whole lesions are drawn. All seven diagnoses are split together: the two-class and the seven-class task
share one sealed test split.
"""

import hashlib
import json
from pathlib import Path

import pandas as pd
from sklearn.model_selection import train_test_split

TRAIN, VALIDATION, TEST = "train", "validation", "test"
#: Shares of the lesions of each diagnosis.
FRACTIONS = {TRAIN: 0.70, VALIDATION: 0.15, TEST: 0.15}


class SplitError(Exception):
    """The split manifest does not fit the data or its own hash."""


def split_by_lesion(frame: pd.DataFrame, seed: int) -> pd.Series:
    """Draw the split: 70/15/15 of the lesions, stratified by diagnosis.

    Args:
        frame: rows with ``lesion_id`` and ``dx``; each lesion has one diagnosis, each diagnosis seven lesions or more.
        seed: of the draw; the same seed and lesions give the same split in whatever order the rows come.

    Returns:
        ``train``, ``validation`` or ``test`` for each row, on the frame's index.
    """
    lesions = frame.groupby("lesion_id", sort=True)["dx"].first()
    held_out = FRACTIONS[VALIDATION] + FRACTIONS[TEST]
    train, rest = train_test_split(lesions, test_size=held_out, stratify=lesions, random_state=seed)
    validation, test = train_test_split(rest, test_size=FRACTIONS[TEST] / held_out, stratify=rest, random_state=seed)
    side = {
        lesion: name for name, part in ((TRAIN, train), (VALIDATION, validation), (TEST, test)) for lesion in part.index
    }
    return frame["lesion_id"].map(side).rename("split")


def manifest_sha256(manifest: pd.DataFrame) -> str:
    """SHA-256 of the manifest's canonical text: ``image_id,lesion_id,dx,split`` lines in the order of ``image_id``."""
    rows = manifest.sort_values("image_id")[["image_id", "lesion_id", "dx", "split"]]
    return hashlib.sha256(rows.to_csv(index=False, lineterminator="\n").encode()).hexdigest()


def write_manifest(frame: pd.DataFrame, folder: Path, seed: int) -> str:
    """Write ``split.csv`` and ``split.json`` (seed, counts, SHA-256) into a run folder.

    Args:
        frame: rows with ``image_id``, ``lesion_id``, ``dx`` and ``split``.
        folder: the run folder.
        seed: of the draw, recorded.

    Returns:
        The manifest's SHA-256 in hexadecimal.
    """
    rows = frame.sort_values("image_id")[["image_id", "lesion_id", "dx", "split"]]
    rows.to_csv(folder / "split.csv", index=False, lineterminator="\n")
    digest = manifest_sha256(rows)
    counts = {
        name: {"lesions": int(part["lesion_id"].nunique()), "images": len(part)} for name, part in rows.groupby("split")
    }
    (folder / "split.json").write_text(json.dumps({"seed": seed, "sha256": digest, "counts": counts}, indent=2) + "\n")
    return digest


def read_manifest(folder: Path) -> pd.DataFrame:
    """Read the manifest of a run folder back.

    Raises:
        SplitError: it was changed since it was written, or a lesion is on two sides.
    """
    rows = pd.read_csv(folder / "split.csv")
    recorded = json.loads((folder / "split.json").read_text())["sha256"]
    if (digest := manifest_sha256(rows)) != recorded:
        raise SplitError(
            f"split.csv has SHA-256 {digest}, split.json recorded {recorded}: the split was changed after the run "
            "began. Restore it or start a new run."
        )
    check_lesion_disjoint(rows)
    return rows


def images_with_split(everything: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """The data set's rows with the side that a run's manifest gave each.

    Args:
        everything: from `trainer.ham10000.read_ham10000`.
        folder: the run folder.

    Raises:
        SplitError: data set and manifest do not hold the same images, or the manifest was changed.
    """
    manifest = read_manifest(folder)
    if set(manifest["image_id"]) != set(everything["image_id"]):
        raise SplitError(
            f"The run was made with {len(manifest)} images, this data set has {len(everything)}, and they are not the "
            "same. Pass the data set that the run was made with."
        )
    return everything.merge(manifest[["image_id", "split"]], on="image_id", validate="one_to_one")


def check_lesion_disjoint(rows: pd.DataFrame) -> None:
    """Refuse a split that has a lesion on two sides.

    Raises:
        SplitError: names the first such lesions.
    """
    sides = rows.groupby("lesion_id")["split"].nunique()
    if len(torn := sides.index[sides > 1]):
        raise SplitError(f"{len(torn)} lesions are on two sides of the split: {', '.join(sorted(torn)[:10])}.")
