"""Pixels of DICOM files. Needs the extra ``dicom``.

pydicom reads the data set, native pixels and RLE; imagecodecs decodes JPEG-LS and JPEG 2000; JPEG goes the way of
every other JPEG. Names that are burnt into the pixels are neither found nor read.
"""

import struct
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
import simplejpeg

from db.status import FailureCode
from worker.errors import ImageFaultError
from worker.images.colour import RGBImage, to_srgb
from worker.images.dicom_header import MAX_FRAMES, inflates_too_far, is_picture_of_skin, name_of_kind, quiet_pydicom
from worker.images.holes import has_hole
from worker.images.jpeg import decode_jpeg, read_frame, without_exif_and_profile
from worker.images.opencv import MAX_IMAGE_PIXELS
from worker.images.samples import scale_to_8_bits

if TYPE_CHECKING:
    import numpy.typing as npt
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
_PALETTE = "PALETTE COLOR"
#: Attributes that change how grey values are shown, of all frames or of one.
_FRAME_DISPLAYS = ("FrameVOILUTSequence", "PixelValueTransformationSequence")
_WINDOW = ("WindowWidth", "WindowCenter")
#: Bytes before the data set.
_PREAMBLE = 132
#: Bytes in which a JPEG names its container.
_HEAD = 64


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
            if inflates_too_far(BytesIO(data)):
                raise ImageFaultError(
                    FailureCode.TOO_LARGE, "the DICOM file inflates to far more than any picture needs"
                )
            dataset = pydicom.dcmread(BytesIO(data), force=True)
            image = _decode(dataset, frame)
            # Behind the preamble. The decoders of these two go over a hole without a word.
            if _syntax_of(dataset) in (*_RLE, *_JPEG_2000) and has_hole(data, _PREAMBLE):
                raise _damaged("it has a hole of zeros")
            return image
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
    if frames > MAX_FRAMES or (frames > 1 and frame is None) or not 1 <= (1 if frame is None else frame) <= frames:
        raise _unsupported(f"has {frames:,} frames. Submit the folder or the archive that it is in")
    index = (frame or 1) - 1
    syntax = _syntax_of(dataset)
    if syntax not in _DECODED:
        raise _unsupported(f"has the transfer syntax {name_of_kind(syntax)}, which is not decoded")
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    if photometric not in (*_GREY, *_COLOUR, _PALETTE):
        raise _unsupported(f"has the photometric interpretation {photometric or '(none)'}, which is not read")
    if int(dataset.get("PixelRepresentation") or 0):
        raise _unsupported("has signed samples")
    if photometric in _GREY:
        _refuse_window(dataset)
    bits = int(dataset.get("BitsStored") or 0)
    if not 1 <= bits <= 16 or int(dataset.get("HighBit", bits - 1)) != bits - 1:
        raise _unsupported(f"has samples of {bits} bits, or such that do not begin with the lowest bit")
    if int(dataset.get("SamplesPerPixel") or 0) != (3 if photometric in _COLOUR else 1):
        raise _unsupported("has another number of samples a pixel than its photometric interpretation")
    if photometric.startswith("YBR") and bits != 8:
        raise _unsupported(f"has YBR colours of {bits} bits")
    if syntax in (*_NATIVE, *_RLE):
        from pydicom.pixels.utils import pixel_array

        if syntax in _NATIVE:
            _refuse_short(dataset, rows * columns * frames)
        samples = pixel_array(dataset, index=index)
        image = _through_palette(samples, dataset) if photometric == _PALETTE else _scaled(samples, dataset)
    else:
        image = _decode_frame(dataset, index, frames, syntax)
    if image.shape[:2] != (rows, columns):
        raise _damaged("its picture has another size than it declares")
    return to_srgb(image, _profile(dataset), deep=bits > 8)


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
    groups = [*(dataset.get("SharedFunctionalGroupsSequence") or []), *_first_frames(dataset)]
    frames = [item for group in groups for name in _FRAME_DISPLAYS for item in group.get(name) or []]
    for holder in [dataset, *frames]:
        for name in ("VOILUTSequence", "ModalityLUTSequence"):
            if name in holder:
                raise _unsupported("is grey with a display table")
        if str(holder.get("VOILUTFunction") or "LINEAR") not in ("LINEAR", "LINEAR_EXACT"):
            raise _unsupported("is grey with a curved display window")
        if "WindowWidth" in holder or "WindowCenter" in holder:
            width, centre = (np.atleast_1d(np.array(holder.get(name, 0), float))[0] for name in _WINDOW)
            if abs(width - (white + 0.5)) > 1 or abs(centre - (white + 1) / 2) > 1:
                raise _unsupported("is grey with a display window")
        if float(holder.get("RescaleSlope", 1) or 1) != 1 or float(holder.get("RescaleIntercept", 0) or 0) != 0:
            raise _unsupported("has rescaled grey values")
    shape = str(dataset.get("PresentationLUTShape") or "")
    usual = "INVERSE" if dataset.PhotometricInterpretation == "MONOCHROME1" else "IDENTITY"
    if shape not in ("", usual) or "PresentationLUTSequence" in dataset:
        raise _unsupported("is grey with a display curve that contradicts its photometric interpretation")


def _first_frames(dataset: "Dataset") -> list["Dataset"]:
    return list(dataset.get("PerFrameFunctionalGroupsSequence") or [])[:MAX_FRAMES]


def _through_palette(samples: "npt.NDArray[Any]", dataset: "Dataset") -> RGBImage:
    from pydicom.pixels.processing import apply_color_lut

    descriptor = dataset.RedPaletteColorLookupTableDescriptor
    entries, bits = int(descriptor[0]) or 65536, int(descriptor[2])
    table = bytes(dataset.get("RedPaletteColorLookupTableData") or b"")
    expected = entries * 2 if bits == 16 else entries + entries % 2
    if bits not in (8, 16) or len(table) != expected:
        raise _unsupported("has a palette whose descriptor does not fit its colours")
    colours = apply_color_lut(samples, dataset)
    if bits == 16 and int(colours.max()) <= 255:
        raise _unsupported("has a palette of 16 bits that uses 8")
    return scale_to_8_bits(colours, 255 if colours.dtype == np.uint8 else 65535)[..., :3]


def _scaled(samples: "npt.NDArray[Any]", dataset: "Dataset") -> RGBImage:
    image = scale_to_8_bits(samples, (1 << int(dataset.BitsStored)) - 1)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.ndim == 2:
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            image = 255 - image
        return np.repeat(image[..., None], 3, axis=2)
    return np.ascontiguousarray(image)


def _decode_frame(dataset: "Dataset", index: int, frames: int, syntax: str) -> RGBImage:
    """Decode a frame in JPEG, JPEG-LS or JPEG 2000. Its own header must declare what the data set declares."""
    from pydicom.encaps import get_frame

    frame = get_frame(dataset.PixelData, index, number_of_frames=frames)
    photometric, bits = str(dataset.PhotometricInterpretation), int(dataset.BitsStored)
    size = (int(dataset.Rows), int(dataset.Columns))
    found = _jpeg_2000_header(frame) if syntax in _JPEG_2000 else _jpeg_header(frame)
    if found is None or found.size != size:
        raise _damaged("its compressed picture declares another size than the data set")
    if found.bits != bits or found.components != int(dataset.SamplesPerPixel):
        raise _unsupported("declares other samples than its compressed picture")
    if syntax in _JPEG_8_BITS:
        _refuse_contradiction(frame, photometric)
        # The orientation and the profile of a JPEG do not count in DICOM.
        image = decode_jpeg(without_exif_and_profile(frame)).pixels
        return 255 - image if photometric == "MONOCHROME1" else image
    transformed = ("YBR_RCT", "YBR_ICT") if found.transformed else ()
    if photometric not in (*_GREY, "RGB", *transformed):
        raise _unsupported(f"says that its colours are {photometric}, and its compressed picture says otherwise")
    try:
        if syntax in _JPEG_LOSSLESS:
            if bits != 8 or (found.components == 3 and b"JFIF\0" in frame[:_HEAD]):
                raise _unsupported("holds a lossless JPEG of more than 8 bits, or one in other colours than it says")
            # libjpeg-turbo tells of damage.
            return _scaled(
                simplejpeg.decode_jpeg(frame, "RGB" if found.components == 3 else "GRAY", strict=True), dataset
            )
        decode = imagecodecs.jpegls_decode if syntax in _JPEG_LS else imagecodecs.jpeg2k_decode
        return _scaled(decode(frame), dataset)
    except (ImageFaultError, MemoryError):
        raise
    except Exception:
        raise _damaged("the decoder of its compressed picture failed") from None


@dataclass(frozen=True, kw_only=True)
class _CompressedHeader:
    """What a compressed frame declares: height and width, bits of a sample, components, and for JPEG 2000 whether its
    colours are transformed, which its decoder undoes.
    """

    size: tuple[int, int]
    bits: int
    components: int
    transformed: bool = False


def _jpeg_header(frame: bytes) -> _CompressedHeader | None:
    try:
        found = read_frame(frame)
    except ImageFaultError:
        return None
    return _CompressedHeader(size=(found.height, found.width), bits=found.precision, components=found.components)


def _jpeg_2000_header(codestream: bytes) -> _CompressedHeader | None:
    """By the segments SIZ and COD (ITU-T T.800, A.5.1 and A.6.1), also inside a JP2 file."""
    place = codestream.find(b"\xff\x4f\xff\x51")
    style = codestream.find(b"\xff\x52", place)
    if place < 0 or style < 0 or len(codestream) < max(place + 44, style + 10):
        return None
    width, height, left, top = struct.unpack_from(">IIII", codestream, place + 8)
    components, depth = struct.unpack_from(">HB", codestream, place + 40)
    return _CompressedHeader(
        size=(height - top, width - left),
        bits=(depth & 0x7F) + 1,
        components=components,
        transformed=codestream[style + 8] == 1,
    )


def _refuse_contradiction(jpeg: bytes, photometric: str) -> None:
    """A JPEG says what its colours are, and so does DICOM. Where they differ, viewers show different colours."""
    try:
        _, _, colours, _ = simplejpeg.decode_jpeg_header(jpeg.rstrip(b"\0"), strict=False)
    except (ValueError, KeyError):
        return
    fitting = {"RGB": ("RGB",), "Gray": _GREY}.get(colours, ("YBR_FULL", "YBR_FULL_422"))
    if photometric not in fitting:
        raise _unsupported(f"says that its colours are {photometric}, and its JPEG says {colours}")


def _profile(dataset: "Dataset") -> bytes | None:
    """The ICC profile, of the image or of its optical path."""
    holders: list[Any] = [dataset, *(dataset.get("OpticalPathSequence") or [])]
    found = next((holder.ICCProfile for holder in holders if "ICCProfile" in holder), None)
    return bytes(found) if found else None


def _unsupported(what: str) -> ImageFaultError:
    return ImageFaultError(FailureCode.UNSUPPORTED_FORMAT, f"the DICOM file {what}. Export it as PNG or JPEG")


def _damaged(what: str) -> ImageFaultError:
    return ImageFaultError(FailureCode.TRUNCATED, f"the DICOM file is cut short or damaged: {what}")
