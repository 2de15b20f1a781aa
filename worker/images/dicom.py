"""Pixels of DICOM files. Needs the extra ``dicom``.

pydicom reads the data set and decodes with GDCM, CharLS and its own code; JPEG of 8 bits goes the way of every other
JPEG. Names that are burnt into the pixels are neither found nor read.
"""

import struct
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import simplejpeg

from db.status import FailureCode
from worker.errors import ImageFaultError
from worker.images.colour import RGBImage, to_srgb
from worker.images.dicom_header import is_picture_of_skin, name_of_kind, quiet_pydicom
from worker.images.jpeg import declared_size, decode_jpeg
from worker.images.opencv import MAX_IMAGE_PIXELS
from worker.images.samples import scale_to_8_bits

if TYPE_CHECKING:
    from pydicom import Dataset

#: Transfer syntaxes that are decoded (PS3.5, annex A).
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")
_JPEG_8_BITS = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
_JPEG_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_RLE = ("1.2.840.10008.1.2.5",)
_DECODED = (*_NATIVE, *_JPEG_8_BITS, *_JPEG_LOSSLESS, *_JPEG_LS, *_JPEG_2000, *_RLE)
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
_MAX_FRAMES = 10_000


def decode_dicom(data: bytes, frame: int | None = None) -> RGBImage:
    """Decode one picture of a DICOM file: (height, width, 3), uint8, sRGB.

    Args:
        data: the whole file.
        frame: from 1. None for the only one.

    Raises:
        ImageFaultError: ``unsupported_format`` for an object, a transfer syntax or colours that are not read;
            ``truncated``; ``too_large``.
        MemoryError: there is not enough memory for the pixels.
    """
    import pydicom

    with quiet_pydicom():
        try:
            dataset = pydicom.dcmread(BytesIO(data), force=True)
            return _decode(dataset, frame)
        except (ImageFaultError, MemoryError):
            raise
        except Exception:
            raise _damaged("it cannot be decoded") from None


def _decode(dataset: "Dataset", frame: int | None) -> RGBImage:
    sop_class = str(dataset.get("SOPClassUID", ""))
    if not is_picture_of_skin(sop_class):
        raise _unsupported(f"is no picture of skin, but: {name_of_kind(sop_class)}")
    if "PixelData" not in dataset:
        raise _unsupported("has no pixel data where DICOM puts them")
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    if not rows or not columns:
        raise _damaged("it declares no pixels")
    if rows * columns > MAX_IMAGE_PIXELS:
        raise ImageFaultError(
            FailureCode.TOO_LARGE,
            f"the DICOM declares {columns:,} x {rows:,} pixels, the limit is {MAX_IMAGE_PIXELS:,} in all",
        )
    frames = max(1, int(dataset.get("NumberOfFrames") or 1))
    if frames > _MAX_FRAMES or (frames > 1 and frame is None) or not 1 <= (1 if frame is None else frame) <= frames:
        raise _unsupported(f"has {frames:,} frames; each is an image where the file's name ends in .dcm or in nothing")
    index = (frame or 1) - 1
    syntax = _syntax_of(dataset)
    if syntax not in _DECODED:
        raise _unsupported(f"has the transfer syntax {name_of_kind(syntax)}, which is not decoded")
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    if photometric not in (*_GREY, *_COLOUR, "PALETTE COLOR"):
        raise _unsupported(f"has the photometric interpretation {photometric or '(none)'}, which is not read")
    if int(dataset.get("PixelRepresentation") or 0):
        raise _unsupported("has signed samples")
    if photometric in _GREY:
        _refuse_window(dataset)
    if syntax in _NATIVE:
        _refuse_short(dataset, rows * columns * frames)
        image = _with_pydicom(dataset, index, photometric)
    else:
        image = _decode_frame(dataset, index, frames, syntax, photometric)
    if image.shape[:2] != (rows, columns):
        raise _damaged("its picture has another size than it declares")
    return to_srgb(image, _profile(dataset))


def _syntax_of(dataset: "Dataset") -> str:
    """The transfer syntax. Without a preamble, as it was read."""
    syntax = str(dataset.file_meta.get("TransferSyntaxUID", "")) if hasattr(dataset, "file_meta") else ""
    if syntax:
        return syntax
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    implicit, little = dataset.original_encoding
    found = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    dataset.file_meta.TransferSyntaxUID = found
    return str(found)


def _refuse_short(dataset: "Dataset", pixels: int) -> None:
    samples = 2 if dataset.PhotometricInterpretation == "YBR_FULL_422" else int(dataset.SamplesPerPixel)
    if len(dataset.PixelData) * 8 < pixels * samples * int(dataset.BitsAllocated):
        raise _damaged("it has fewer bytes than its pixels need")


def _refuse_window(dataset: "Dataset") -> None:
    """A grey picture is seen through a window or a table; without applying it, the pixels are not what is shown."""
    white = (1 << int(dataset.BitsStored)) - 1
    widths = np.atleast_1d(np.array(dataset.get("WindowWidth", white), dtype=float))
    if not white <= widths[0] <= white + 1:
        raise _unsupported("is grey with a display window")
    if "VOILUTSequence" in dataset or "ModalityLUTSequence" in dataset:
        raise _unsupported("is grey with a display table")
    if float(dataset.get("RescaleSlope", 1) or 1) != 1 or float(dataset.get("RescaleIntercept", 0) or 0) != 0:
        raise _unsupported("has rescaled grey values")


def _with_pydicom(dataset: "Dataset", index: int, photometric: str) -> RGBImage:
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array

    samples = pixel_array(dataset, index=index)
    if photometric == "PALETTE COLOR":
        colours = apply_color_lut(samples, dataset)
        return scale_to_8_bits(colours, 255 if colours.dtype == np.uint8 else 65535)[..., :3]
    bits = int(dataset.BitsStored)
    if not 1 <= bits <= 16:
        raise _unsupported(f"has samples of {bits} bits")
    image = scale_to_8_bits(samples, (1 << bits) - 1)
    if image.ndim == 2:
        if photometric == "MONOCHROME1":
            image = 255 - image
        return np.repeat(image[..., None], 3, axis=2)
    return np.ascontiguousarray(image)


def _decode_frame(dataset: "Dataset", index: int, frames: int, syntax: str, photometric: str) -> RGBImage:
    """Decode a compressed frame, whose own header must declare the size that the data set declares."""
    from pydicom.encaps import get_frame

    frame = get_frame(dataset.PixelData, index, number_of_frames=frames)
    size = (int(dataset.Rows), int(dataset.Columns))
    if syntax in _RLE:
        return _with_pydicom(dataset, index, photometric)
    found = _size_of_jpeg_2000(frame) if syntax in _JPEG_2000 else declared_size(frame)
    if found != size:
        raise _damaged("its compressed picture declares another size than the data set")
    if syntax not in _JPEG_8_BITS:
        return _with_pydicom(dataset, index, photometric)
    _refuse_contradiction(frame, photometric)
    image = decode_jpeg(frame).pixels
    return 255 - image if photometric == "MONOCHROME1" else image


def _refuse_contradiction(jpeg: bytes, photometric: str) -> None:
    """A JPEG says what its colours are, and so does DICOM. Where they differ, viewers show different colours."""
    try:
        _, _, colours, _ = simplejpeg.decode_jpeg_header(jpeg.rstrip(b"\0"), strict=False)
    except (ValueError, KeyError):
        return
    fitting = {"RGB": ("RGB",), "Gray": _GREY}.get(colours, ("YBR_FULL", "YBR_FULL_422"))
    if photometric not in fitting:
        raise _unsupported(f"says that its colours are {photometric}, and its JPEG says {colours}")


def _size_of_jpeg_2000(codestream: bytes) -> tuple[int, int] | None:
    """Height and width by the SIZ segment (ITU-T T.800, A.5.1), also inside a JP2 file."""
    place = codestream.find(b"\xff\x4f\xff\x51")
    if place < 0 or len(codestream) < place + 24:
        return None
    width, height, left, top = struct.unpack_from(">IIII", codestream, place + 8)
    return height - top, width - left


def _profile(dataset: "Dataset") -> bytes | None:
    """The ICC profile, of the image or of its optical path."""
    holders: list[Any] = [dataset, *(dataset.get("OpticalPathSequence") or [])]
    found = next((holder.ICCProfile for holder in holders if "ICCProfile" in holder), None)
    return bytes(found) if found else None


def _unsupported(what: str) -> ImageFaultError:
    return ImageFaultError(FailureCode.UNSUPPORTED_FORMAT, f"the DICOM file {what}. Export it as PNG or JPEG")


def _damaged(what: str) -> ImageFaultError:
    return ImageFaultError(FailureCode.TRUNCATED, f"the DICOM file is cut short or damaged: {what}")
