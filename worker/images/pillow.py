"""Opening a picture with Pillow under dermq's limits, and its pixels with the EXIF orientation applied."""

from io import BytesIO

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from db.status import FailureCode
from worker.errors import ImageFaultError
from worker.images.colour import RGBImage
from worker.images.opencv import MAX_IMAGE_PIXELS

# Its limit is a warning at once the number of pixels and an error at twice. Here the size is checked before decoding.
Image.MAX_IMAGE_PIXELS = None
# A file that ends early is an error, and never a picture with a grey rest.
ImageFile.LOAD_TRUNCATED_IMAGES = False


def open_with_pillow(data: bytes, kind: str) -> Image.Image:
    """Read a file's header. Its pixels stay undecoded.

    Args:
        data: the whole file.
        kind: its format as Pillow names it; no other decoder is tried.

    Raises:
        ImageFaultError: ``truncated`` or ``too_large``.
    """
    try:
        image = Image.open(BytesIO(data), formats=[kind])
    except UnidentifiedImageError:
        raise ImageFaultError(FailureCode.TRUNCATED, f"the {kind} is cut short, damaged, or of a rare kind") from None
    except MemoryError:
        raise
    except Exception as error:
        raise _damaged(kind, error) from None
    if image.width * image.height > MAX_IMAGE_PIXELS:
        raise ImageFaultError(
            FailureCode.TOO_LARGE,
            f"the {kind} declares {image.width:,} x {image.height:,} pixels, the limit is {MAX_IMAGE_PIXELS:,} in all",
        )
    return image


def pixels_of(image: Image.Image, kind: str) -> RGBImage:
    """Decode: (height, width, 3), uint8, RGB, upright. Transparency is dropped, the colours under it stay.

    Raises:
        ImageFaultError: ``truncated``.
        MemoryError: there is not enough memory for the pixels.
    """
    try:
        image.load()
        # Only where there is a turn: it would copy.
        if image.getexif().get(0x0112, 1) != 1:
            image = ImageOps.exif_transpose(image)
        return np.asarray(image.convert("RGB"))
    except MemoryError:
        raise
    except Exception as error:
        raise _damaged(kind, error) from None


def _damaged(kind: str, error: Exception) -> ImageFaultError:
    said = str(error).lower()
    if isinstance(error, NotImplementedError) or said.startswith("unsupported"):
        return ImageFaultError(
            FailureCode.UNSUPPORTED_FORMAT, f"the {kind} is of a rare kind that is not read. Save it as PNG"
        )
    return ImageFaultError(FailureCode.TRUNCATED, f"the {kind} is cut short or damaged: its decoder failed")
