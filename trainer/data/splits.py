"""Splits into training, validation and test, and the split manifest.

Several images of one lesion look alike. A split by image puts siblings of test images into training and makes every
figure too good, so whole lesions are drawn. All seven diagnoses are split together, so that the two-class and the
seven-class task share one test split. The split by image exists for the reference preset alone, to measure its effect.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from trainer.config import fold_and_folds, fold_sources
from trainer.errors import InputError, SplitError
from worker.atomic_files import write_text

TRAIN, VALIDATION, TEST = "train", "validation", "test"
#: Side of images that a run does not use: left out of a balanced draw, or broken.
UNUSED = "unused"
#: Shares of the lesions of each diagnosis.
FRACTIONS = {TRAIN: 0.70, VALIDATION: 0.15, TEST: 0.15}

#: Shares of the images of each class of a source without a published split.
SOURCE_FRACTIONS = {TRAIN: 0.65, VALIDATION: 0.15, TEST: 0.20}
#: Data set whose split was published with the first bundles. Its test images stay the same beside other data sets.
_FIRST = "HAM10000"

#: Kinds of split: whole lesions, or single images as in the reference.
LESION_DISJOINT, RANDOM_IMAGES = "lesion-disjoint", "random-images"
#: Shares of the images of each class in a split by image: the reference's test share, and a little for validation.
IMAGE_FRACTIONS = {TRAIN: 0.70, VALIDATION: 0.10, TEST: 0.20}


def split_by_lesion(frame: pd.DataFrame, seed: int) -> pd.Series:
    """Draw the split: 70/15/15 of the lesions, stratified by diagnosis.

    Args:
        frame: rows with ``lesion_id`` and ``dx``. Each lesion has one diagnosis; each diagnosis has seven lesions or
            more.
        seed: of the draw. The same seed and lesions give the same split, whatever the order of the rows.

    Returns:
        ``train``, ``validation`` or ``test`` for each row, on the frame's index.

    Raises:
        SplitError: a diagnosis has too few lesions for three sides; says how many each has.
    """
    lesions = frame.groupby("lesion_id", sort=True)["dx"].first()
    held_out = FRACTIONS[VALIDATION] + FRACTIONS[TEST]
    try:
        train, rest = train_test_split(lesions, test_size=held_out, stratify=lesions, random_state=seed)
        share = FRACTIONS[TEST] / held_out
        validation, test = train_test_split(rest, test_size=share, stratify=rest, random_state=seed)
    except ValueError as error:
        counts = ", ".join(f"{dx} {count}" for dx, count in lesions.value_counts().items())
        raise SplitError(
            f"The lesions cannot be divided into training, validation and test: {counts}. Each diagnosis needs at "
            "least seven lesions."
        ) from error
    side = {
        lesion: name for name, part in ((TRAIN, train), (VALIDATION, validation), (TEST, test)) for lesion in part.index
    }
    return frame["lesion_id"].map(side).rename("split")


def split_by_source(frame: pd.DataFrame, seed: int) -> "pd.Series[str]":
    """Draw the split of sources that have no published one: of each source a fifth of the images for test.

    Whole groups are drawn, by class: one with a melanoma counts as melanoma.

    Args:
        frame: rows with ``dataset`` (the source), ``group`` (lesions of one patient, and near-duplicates) and ``dx``.
            A group in two sources is drawn with the first one by name.
        seed: of the draw. The same seed and rows give the same split, whatever the order of the rows.

    Returns:
        ``train``, ``validation`` or ``test`` for each row, on the frame's index.
    """
    groups = frame.groupby("group", sort=True).agg(
        source=("dataset", "min"), melanoma=("dx", lambda dx: "mel" in set(dx)), images=("dx", "size")
    )
    rng = np.random.default_rng(seed)
    side: dict[str, str] = {}
    for _, part in groups.groupby(["source", "melanoma"]):
        drawn = part.iloc[rng.permutation(len(part))]
        # By the middle of a group, so that large groups move a share as little as possible.
        place = (drawn["images"].cumsum() - drawn["images"] / 2) / drawn["images"].sum()
        test, validation = SOURCE_FRACTIONS[TEST], SOURCE_FRACTIONS[VALIDATION]
        for name, share in place.items():
            side[str(name)] = TEST if share < test else VALIDATION if share < test + validation else TRAIN
    return frame["group"].map(side).rename("split")


def join_groups(split: "pd.Series[str]", groups: "pd.Series[str]") -> "pd.Series[str]":
    """Move each group of near-duplicates to one side, and leave everything else.

    A group that touches training moves to training; one in validation and test moves to validation. The test split only
    loses images, so a model that was trained under the split before has seen none of the test split after.

    Args:
        split: side of each image, whole lesions on one side.
        groups: group of each image, on the same index. The images of a lesion share one.

    Returns:
        The split with every group on one side.
    """
    order = {TRAIN: 0, VALIDATION: 1, TEST: 2}
    first = split.map(order).groupby(groups).transform("min")
    return first.map({number: side for side, number in order.items()}).rename("split")


def leave_out_source(split: "pd.Series[str]", sources: "pd.Series[str]", name: str) -> "pd.Series[str]":
    """Remove the images of a source from training and validation. The test split stays the same.

    Args:
        split: side of each image.
        sources: source of each image, on the same index.
        name: of the source.

    Raises:
        InputError: no image is of that source; names the sources.
    """
    known = sorted(set(sources.dropna().astype(str)))
    if name not in known:
        raise InputError(f"--without-source {name!r} is no source of these data. They have {', '.join(known)}.")
    return split.mask((sources == name) & (split != TEST), UNUSED)


def hold_out_fold(split: "pd.Series[str]", frame: pd.DataFrame, fold: str, seed: int) -> "pd.Series[str]":
    """Divide training and validation again, into folds of whole groups stratified by diagnosis. Test stays the same.

    Args:
        split: side of each image.
        frame: rows with ``image_id``, ``dx`` and ``group``, on the same index.
        fold: ``2/5`` makes the second of five folds validation and the rest training; ``all`` makes all training;
            ``source:a+b`` makes the sources a and b validation, and leaves out what else is of their groups.
        seed: of the division. The same seed and images give the same folds, whatever the order of the rows.

    Raises:
        SplitError: a diagnosis has fewer groups than there are folds.
        InputError: no image is of that source.
    """
    outside = frame[split.isin((TRAIN, VALIDATION))].sort_values("image_id")
    divided = split.mask(split == VALIDATION, TRAIN)
    if sources := fold_sources(fold):
        return _hold_out_sources(divided, frame, sources)
    if (place := fold_and_folds(fold)) is None:
        return divided
    number, folds = place
    groups = outside.groupby("dx")["group"].nunique()
    if (fewest := int(groups.min())) < folds:
        raise SplitError(
            f"{folds} folds are too many: outside test there are {fewest} lesions of {groups.idxmin()}, and each fold "
            "needs one. Take fewer folds."
        )
    divider = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    held_out = [places for _, places in divider.split(outside, outside["dx"], outside["group"])][number - 1]
    divided.loc[outside.index[held_out]] = VALIDATION
    return divided


def _hold_out_sources(divided: "pd.Series[str]", frame: pd.DataFrame, sources: Sequence[str]) -> "pd.Series[str]":
    known = sorted(set(frame["dataset"].dropna().astype(str)))
    if unknown := [name for name in sources if name not in known]:
        raise InputError(f"--fold names the sources {', '.join(unknown)}. These data have {', '.join(known)}.")
    outside = divided == TRAIN
    held_out = outside & frame["dataset"].isin(sources)
    related = outside & ~held_out & frame["group"].isin(set(frame.loc[held_out, "group"]))
    return divided.mask(held_out, VALIDATION).mask(related, UNUSED)


def split_by_image(frame: pd.DataFrame, seed: int) -> "pd.Series[str]":
    """Draw the split of the reference preset: as many nevi as melanomas, divided at random image by image.

    **It leaks**: most melanoma images of its test split have a sibling, another image of the same lesion, in training.

    Args:
        frame: rows with ``image_id`` and ``dx``, ``mel`` and ``nv`` among them.
        seed: of the draw. The same seed and images give the same split, whatever the order of the rows.

    Returns:
        ``train``, ``validation``, ``test`` or ``unused`` for each row, on the frame's index. All of HAM10000 gives
        223 images of each class in test.
    """
    ordered = frame.sort_values("image_id")
    count = int(min((ordered["dx"] == dx).sum() for dx in ("mel", "nv")))
    held_out = {side: round(IMAGE_FRACTIONS[side] * count) for side in (TEST, VALIDATION)}
    sides = np.repeat([*held_out, TRAIN], [*held_out.values(), count - sum(held_out.values())])
    rng = np.random.default_rng(seed)
    split = pd.Series(UNUSED, index=frame.index, name="split")
    for dx in ("mel", "nv"):
        # Each class by itself, so that every side holds equally many of both.
        split.loc[rng.permutation(ordered.index[ordered["dx"] == dx])[:count]] = sides
    return split


def draw_split(
    frame: pd.DataFrame, *, kind: str, seed: int, without_source: str = "", fold: str = ""
) -> "pd.Series[str]":
    """The split of a data set, as a run is trained under it.

    Args:
        frame: rows with ``image_id``, ``lesion_id``, ``dx``, ``dataset`` and ``group`` (of near-duplicates, see
            `join_groups`).
        kind: `LESION_DISJOINT`, or `RANDOM_IMAGES`, which leaks.
        seed: of the draw.
        without_source: a source to keep out of training and validation. Empty for none.
        fold: as in `hold_out_fold`. Empty leaves training and validation as they were drawn.

    Raises:
        SplitError: too few lesions of a diagnosis.
        InputError: no image is of that source.
    """
    if kind == RANDOM_IMAGES:
        split = split_by_image(frame, seed)
    else:
        # Data sets of one folder, as in older tests, have no other collection.
        first = frame["collection"] == _FIRST if "collection" in frame else pd.Series(True, index=frame.index)
        parts = [split_by_lesion(frame[first], seed)] if first.any() else []
        parts += [split_by_source(frame[~first], seed)] if not first.all() else []
        split = join_groups(pd.concat(parts).reindex(frame.index), frame["group"])
    if fold:
        split = hold_out_fold(split, frame, fold, seed)
    return leave_out_source(split, frame["dataset"], without_source) if without_source else split


def manifest_sha256(manifest: pd.DataFrame) -> str:
    """SHA-256 of the manifest's canonical text: ``image_id,lesion_id,dx,split`` lines in the order of ``image_id``."""
    rows = manifest.sort_values("image_id")[["image_id", "lesion_id", "dx", "split"]]
    return hashlib.sha256(rows.to_csv(index=False, lineterminator="\n").encode()).hexdigest()


def write_manifest(
    frame: pd.DataFrame, folder: Path, seed: int, *, kind: str = LESION_DISJOINT, near_duplicates: int = -1
) -> str:
    """Write ``split.csv`` and ``split.json`` (seed, kind, counts, groups, SHA-256) into a run folder.

    Args:
        frame: rows with ``image_id``, ``lesion_id``, ``dx``, ``split``, ``sha256`` (of each file, by which a run knows
            its images under other names; not part of the manifest's own SHA-256) and perhaps ``group``.
        folder: the run folder.
        seed: of the draw, recorded.
        kind: `LESION_DISJOINT` or `RANDOM_IMAGES`.
        near_duplicates: bits of the perceptual hash that may differ, -1 when near-duplicates were not looked for;
            recorded.

    Returns:
        The manifest's SHA-256 in hexadecimal.
    """
    rows = frame.sort_values("image_id")[["image_id", "lesion_id", "dx", "split", "sha256"]]
    write_text(folder / "split.csv", rows.to_csv(index=False, lineterminator="\n"))
    digest = manifest_sha256(rows)
    counts = {
        name: {"lesions": int(part["lesion_id"].nunique()), "images": len(part)} for name, part in rows.groupby("split")
    }
    described = {
        "seed": seed,
        "kind": kind,
        "sha256": digest,
        "counts": counts,
        "near_duplicates": {"distance": near_duplicates, "groups": _groups_of_several(frame)},
    }
    write_text(folder / "split.json", json.dumps(described, indent=2) + "\n")
    return digest


def _groups_of_several(frame: pd.DataFrame) -> list[list[str]]:
    if "group" not in frame.columns:
        return []
    lesions = frame.groupby("group")["lesion_id"].unique()
    return [sorted(names) for names in lesions if len(names) > 1]


def split_kind(folder: Path) -> str:
    """Kind of the split of a run folder: `LESION_DISJOINT` or `RANDOM_IMAGES`."""
    return str(json.loads((folder / "split.json").read_text())["kind"])


def read_manifest(folder: Path) -> pd.DataFrame:
    """Read the manifest of a run folder.

    Raises:
        SplitError: it was changed since it was written, or a lesion or a group of near-duplicates is on two sides of a
            lesion-disjoint split.
    """
    # As texts: names may be numbers, or NA.
    rows = pd.read_csv(folder / "split.csv", dtype=str, keep_default_na=False)
    described = json.loads((folder / "split.json").read_text())
    recorded = described["sha256"]
    if (digest := manifest_sha256(rows)) != recorded:
        raise SplitError(
            f"The split of {folder} was changed after the run began: split.csv has SHA-256 {digest}, and split.json "
            f"names {recorded}. Restore both files, or start a new run."
        )
    if split_kind(folder) == LESION_DISJOINT:
        check_lesion_disjoint(rows)
        check_groups_together(rows, described["near_duplicates"]["groups"])
    return rows


def never_seen(manifest: pd.DataFrame, folder: Path) -> "pd.Series[bool]":
    """Which images a run set aside together with every image of the lesion and every near-duplicate.

    Args:
        manifest: from `read_manifest`.
        folder: the run folder.
    """
    described = json.loads((folder / "split.json").read_text())
    groups = described["near_duplicates"]["groups"]
    group_of = {lesion: group[0] for group in groups for lesion in group}
    group = manifest["lesion_id"].map(lambda lesion: group_of.get(lesion, lesion))
    unused = manifest["split"] == UNUSED
    return unused & ~group.isin(set(group[~unused]))


def images_with_split(everything: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """The data set's rows with the side that a run's manifest gave each.

    Args:
        everything: from `trainer.data.readers.ham10000.read_ham10000`.
        folder: the run folder.

    Raises:
        SplitError: data set and manifest do not hold the same images, or the manifest was changed.
    """
    manifest = read_manifest(folder)
    if set(manifest["image_id"]) != set(everything["image_id"]):
        raise SplitError(
            f"The run {folder} was made with {len(manifest)} images, and this data set has {len(everything)} others. "
            "Pass the data set that the run was made with."
        )
    return everything.merge(manifest[["image_id", "split"]], on="image_id", validate="one_to_one")


def first_lesions(images: pd.DataFrame, limit: int) -> pd.DataFrame:
    """Keep the images of the first ``limit`` lesions of each diagnosis on each side of the split. 0 keeps all."""
    if not limit:
        return images
    lesions = images[["split", "dx", "lesion_id"]].drop_duplicates()
    kept = lesions.groupby(["split", "dx"]).head(limit)["lesion_id"]
    return images[images["lesion_id"].isin(kept)].reset_index(drop=True)


def check_lesion_disjoint(rows: pd.DataFrame) -> None:
    """Refuse a split with a lesion on two sides. Unused images are on no side.

    Raises:
        SplitError: names the first such lesions.
    """
    used = rows[rows["split"] != UNUSED]
    sides = used.groupby("lesion_id")["split"].nunique()
    if len(torn := sides.index[sides > 1]):
        raise SplitError(
            f"{len(torn)} lesions are on two sides of the split: {', '.join(sorted(torn)[:10])}. Start a new run."
        )


def check_groups_together(rows: pd.DataFrame, groups: Sequence[Sequence[str]]) -> None:
    """Refuse a split with near-duplicates on two sides. Unused images are on no side.

    Args:
        rows: with ``lesion_id`` and ``split``.
        groups: lesions that share near-duplicate images.

    Raises:
        SplitError: names the first such group.
    """
    used = rows[rows["split"] != UNUSED]
    for group in groups:
        sides = sorted(used.loc[used["lesion_id"].isin(group), "split"].unique())
        if len(sides) > 1:
            raise SplitError(f"Near-duplicate lesions {', '.join(group)} are on two sides: {' and '.join(sides)}.")
