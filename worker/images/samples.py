"""Samples of more than 8 bits, scaled to 8 by the white that the file states."""

import numpy as np
import numpy.typing as npt

from db.status import FailureCode
from worker.errors import ImageFaultError

#: Samples of 16 bits whose greatest value is below this, the half of white, may have fewer bits than their file says.
_DOUBTFUL_BELOW = 1 << 15
#: Share of samples that may be above it all the same: defects of a sensor.
_FEW = 1e-4
#: Rows that are scaled at once: the sums need 32 bits.
_ROWS = 512


def scale_to_8_bits(samples: npt.NDArray[np.generic], white: int) -> npt.NDArray[np.uint8]:
    """Scale samples so that ``white`` becomes 255, rounded.

    Args:
        samples: (height, ...), unsigned.
        white: 1 to 65535.

    Raises:
        ImageFaultError: ``unsupported_format`` where a sample is brighter than white.
    """
    if white == 255 and samples.dtype == np.uint8:
        return samples.astype(np.uint8, copy=False)
    if samples.size and int(samples.max()) > white:
        raise ImageFaultError(
            FailureCode.UNSUPPORTED_FORMAT,
            f"the file says that white is {white}, but holds samples up to {int(samples.max())}. "
            "Export it again as 8 bits",
        )
    scaled = np.empty(samples.shape, np.uint8)
    for start in range(0, len(samples), _ROWS):
        rows = samples[start : start + _ROWS].astype(np.uint32)
        scaled[start : start + _ROWS] = (rows * 255 + white // 2) // white
    return scaled


def white_of_16_bits(samples: npt.NDArray[np.uint16], kind: str, significant_bits: int | None = None) -> int:
    """White of samples in 16 bits.

    Args:
        samples: of one picture.
        kind: format of the file, for the message.
        significant_bits: of each sample, where the file says so. Such a file should spread them over all 16 bits (PNG,
            section 11.3.2.5), and many do not.

    Returns:
        65535, or the white of that many bits when the samples are not spread.

    Raises:
        ImageFaultError: ``unsupported_format`` where the file says nothing and the upper bits are empty: a dark
            picture, or one of 10, 12 or 14 bits.
    """
    greatest = int(samples.max()) if samples.size else 0
    if significant_bits is not None and significant_bits < 16:
        white = (1 << significant_bits) - 1
        if greatest > white:
            return 65535
        # Spread samples this dark have zeros in the lower bits, whether these repeat the upper ones or are empty.
        lower = (1 << (16 - significant_bits)) - 1
        return 65535 if greatest and not (samples & np.uint16(lower)).any() else white
    bright = int(np.count_nonzero(samples >= _DOUBTFUL_BELOW))
    if significant_bits == 16 or bright > _FEW * samples.size or _repeats_its_bytes(samples):
        return 65535
    raise ImageFaultError(
        FailureCode.UNSUPPORTED_FORMAT,
        f"the {kind} has samples of 16 bits of which hardly any uses the upper half, and does not say which value is "
        "white: a dark picture, or one of 10, 12 or 14 bits. Export it again as 8 bits",
    )


def _repeats_its_bytes(samples: npt.NDArray[np.uint16]) -> bool:
    """Whether each sample is one of 8 bits, spread: both of its bytes are equal. Then white is 65535."""
    return bool((samples >> 8 == samples & 0xFF).all())
