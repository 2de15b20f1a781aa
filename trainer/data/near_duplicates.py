"""Find images of different lesions that are one photograph or of one patient, so that a split keeps them together.

Two steps, because in dermoscopy one is not enough (docs/decisions/0007-near-duplicates.md). The 64-bit perceptual hash
(Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010) proposes pairs; it sees a dark
blob on bright skin, and thousands of unrelated lesions share that. A pair counts when the finer detail agrees too, the
part of the thumbnail that the hash does not hold.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from trainer.data.scan import Thumbnails
from worker.images.opencv import cv2

#: Bits that may differ between two hashes for a pair to be looked at closely.
DISTANCE = 10
#: Least correlation of the detail of two thumbnails that are one photograph. In HAM10000 the unrelated pairs end at
#: 0.92 (as do pairs with one image mirrored, which cannot be real), and photographs taken twice begin there.
DETAIL = 0.93
#: Side of the block of lowest frequencies that the hash holds.
_BLOCK = 8
#: Images that are compared with all others at once; only memory depends on it.
_ROWS = 1_000
#: Pairs whose details are compared at once.
_PAIRS = 10_000

Hashes = npt.NDArray[np.uint64]


def perceptual_hashes(thumbnails: Thumbnails) -> Hashes:
    """64-bit perceptual hash: which of the 8 x 8 lowest frequencies of a thumbnail lie above their median.

    Args:
        thumbnails: (n, 32, 32), uint8, grey.

    Returns:
        (n,), uint64; the first bit is the mean brightness, rows from top to bottom.
    """
    lowest = _spectra(thumbnails)[:, :_BLOCK, :_BLOCK].reshape(len(thumbnails), -1)
    bits = lowest > np.median(lowest, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)


def near_duplicate_pairs(thumbnails: Thumbnails, distance: int = DISTANCE) -> npt.NDArray[np.intp]:
    """Pairs of images that are one photograph, perhaps scanned, coloured or compressed differently.

    Args:
        thumbnails: (n, 32, 32), uint8, grey.
        distance: bits of the hash that may differ.

    Returns:
        (pairs, 2), numbers of the images, the smaller first.
    """
    hashes, detail = perceptual_hashes(thumbnails), _detail(thumbnails)
    found = [np.empty((0, 2), np.intp)]
    for start in range(0, len(hashes), _ROWS):
        near = np.bitwise_count(hashes[start : start + _ROWS, None] ^ hashes[None, :]) <= distance
        first, second = np.nonzero(near)
        first += start
        first, second = first[first < second], second[first < second]
        # In parts: with a great distance these are millions of pairs, of 8 KB each.
        for part in range(0, len(first), _PAIRS):
            one, other = first[part : part + _PAIRS], second[part : part + _PAIRS]
            agree = np.einsum("nd,nd->n", detail[one], detail[other]) >= DETAIL
            found.append(np.column_stack((one[agree], other[agree])))
    return np.concatenate(found)


def linked_groups(
    lesions: "pd.Series[str]", thumbnails: Thumbnails, distance: int, patients: "pd.Series[str] | None" = None
) -> "pd.Series[str]":
    """Join lesions of one patient and lesions that share a near-duplicate image, over as many steps as it takes.

    Args:
        lesions: lesion of each image.
        thumbnails: (n, 32, 32), uint8, grey, in the same order.
        distance: bits of the hash that may differ; -1 finds no near-duplicates.
        patients: patient of each image, on the same index; empty where unknown. None: no patient is known.

    Returns:
        Name of the group of each image, on the index of `lesions`: the first lesion in it by name. A lesion without
        near-duplicates is a group of its own.
    """
    group = {lesion: lesion for lesion in lesions}

    def first(lesion: str) -> str:
        while group[lesion] != lesion:
            lesion = group[lesion]
        return lesion

    def join(one: str, other: str) -> None:
        # The first by name stands for both, so the result does not depend on the order of the pairs.
        low, high = sorted((first(one), first(other)))
        group[high] = low

    if patients is not None:
        for _, of_patient in lesions[patients != ""].groupby(patients):
            for lesion in of_patient.iloc[1:]:
                join(of_patient.iloc[0], lesion)
    if distance >= 0:
        names = lesions.to_numpy(object)
        for one, other in near_duplicate_pairs(thumbnails, distance):
            join(names[one], names[other])
    return lesions.map(first).rename("group")


def _spectra(thumbnails: Thumbnails) -> npt.NDArray[np.float32]:
    return np.stack([cv2.dct(thumbnail.astype(np.float32)) for thumbnail in thumbnails])


def _detail(thumbnails: Thumbnails) -> npt.NDArray[np.float32]:
    """Unit vectors of what is left of each thumbnail without the block of frequencies that the hash holds."""
    spectra = _spectra(thumbnails)
    spectra[:, :_BLOCK, :_BLOCK] = 0
    flat = spectra.reshape(len(spectra), -1)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    # A plain image has no detail and agrees with nothing.
    unit: npt.NDArray[np.float32] = np.divide(flat, length, out=np.zeros_like(flat), where=length > 1e-3)
    return unit
