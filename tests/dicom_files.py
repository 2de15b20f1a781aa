"""DICOM files of one synthetic picture, in every transfer syntax and photometric interpretation that is read."""

from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

DERMOSCOPY = "1.2.840.10008.5.1.4.1.1.77.1.7"
CT = "1.2.840.10008.5.1.4.1.1.2"
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
LOSSLESS = (RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless)


def dicom(
    *frames: npt.NDArray[np.unsignedinteger[Any]],
    syntax: UID = ExplicitVRLittleEndian,
    photometric: str = "RGB",
    stored: int | None = None,
    kind: str = DERMOSCOPY,
    encoded: bytes | None = None,
    preamble: bool = True,
    **attributes: Any,
) -> bytes:
    """A file of these frames, (height, width) or (height, width, 3).

    Args:
        frames: with the samples as they are stored.
        syntax: transfer syntax.
        photometric: interpretation of the samples.
        stored: bits of a sample; by default all of them.
        kind: SOP class.
        encoded: the compressed frame; by default the frames are compressed by the syntax.
        preamble: whether the file begins with the preamble and the file meta information.
        attributes: further ones by keyword, or other values of those that are set here.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = UID(kind)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid(entropy_srcs=["instance"])
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["series"])
    dataset.PatientName, dataset.PatientID = "Miller^Anna", "P-7"
    dataset.PatientAge, dataset.PatientSex = "047Y", "F"
    dataset.BodyPartExamined = "SKIN"
    first = frames[0]
    dataset.Rows, dataset.Columns = first.shape[:2]
    dataset.SamplesPerPixel = 1 if first.ndim == 2 else 3
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = 8 * first.dtype.itemsize
    dataset.BitsStored = stored or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = 0
    if first.ndim == 3:
        dataset.PlanarConfiguration = 0
    if len(frames) > 1:
        dataset.NumberOfFrames = len(frames)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    native = b"".join(frame.astype(frame.dtype.newbyteorder(order)).tobytes() for frame in frames)
    native += bytes(len(native) % 2)
    dataset.PixelData = native
    dataset["PixelData"].VR = "OW" if first.dtype.itemsize == 2 else "OB"
    if encoded is not None or (syntax.is_compressed and syntax not in NATIVE):
        pieces = [encoded] if encoded is not None else [_compress(frame, syntax) for frame in frames]
        dataset.PixelData = encapsulate(pieces)
        dataset["PixelData"].is_undefined_length = True
    for name, value in attributes.items():
        setattr(dataset, name, value)
    file = BytesIO()
    if preamble:
        dataset.save_as(file, enforce_file_format=True)
    else:
        del dataset.file_meta
        dataset.save_as(file, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
    return file.getvalue()


def _compress(frame: npt.NDArray[Any], syntax: UID) -> bytes:
    if syntax == RLELossless:
        from pydicom.pixels.encoders.base import EncodeRunner
        from pydicom.pixels.encoders.native import _encode_frame

        runner = EncodeRunner(RLELossless)
        runner.set_options(
            rows=frame.shape[0], columns=frame.shape[1], samples_per_pixel=1 if frame.ndim == 2 else 3,
            bits_allocated=8 * frame.dtype.itemsize, bits_stored=8 * frame.dtype.itemsize, pixel_representation=0,
            photometric_interpretation="RGB", number_of_frames=1, planar_configuration=0,
        )  # fmt: skip
        return bytes(_encode_frame(frame.tobytes(), runner))
    if syntax == JPEGLosslessSV1:
        space = {"colorspace": "RGB", "outcolorspace": "RGB"} if frame.ndim == 3 else {}
        return bytes(imagecodecs.jpeg8_encode(frame, lossless=True, **space))
    if syntax == JPEGLSLossless:
        return bytes(imagecodecs.jpegls_encode(frame))
    if syntax == JPEG2000Lossless:
        return bytes(imagecodecs.jpeg2k_encode(frame, level=0, reversible=True, codecformat="j2k"))
    assert syntax == JPEGBaseline8Bit
    space = {"colorspace": "RGB", "outcolorspace": "YCBCR"} if frame.ndim == 3 else {}
    return bytes(imagecodecs.jpeg8_encode(frame, level=95, **space))
