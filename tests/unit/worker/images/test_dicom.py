"""DICOM: the pixels to the last bit in each lossless syntax, and a refusal with the true name for all others."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import (
    MPEG2MPML,
    UID,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)

from db.status import FailureCode
from tests.dicom_files import CT, LOSSLESS, NATIVE, dicom
from tests.picture_files import ALPHA, GREY, GREY_RGB, JPEG, PICTURE, WIDE, by_pillow, icc_profile, pillow
from tests.picture_files import DISPLAY_P3 as P3
from worker.errors import ImageFaultError
from worker.images import decode as decode_module
from worker.images.decode import decode, decode_image
from worker.images.opencv import cv2


def fault_of(data: bytes, frame: int | None = None) -> ImageFaultError:
    with pytest.raises(ImageFaultError) as caught:
        decode_image(data, frame=frame)
    return caught.value


@pytest.mark.parametrize("syntax", [*NATIVE, *LOSSLESS], ids=lambda uid: uid.keyword)
def test_each_lossless_syntax_gives_the_pixels_to_the_last_bit(syntax: UID) -> None:
    assert np.array_equal(decode(dicom(PICTURE, syntax=syntax)), PICTURE)
    assert np.array_equal(decode(dicom(GREY, syntax=syntax, photometric="MONOCHROME2")), GREY_RGB)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian], ids=lambda uid: uid.keyword)
def test_a_data_set_without_a_preamble_is_read(syntax: UID) -> None:
    assert np.array_equal(decode(dicom(PICTURE, syntax=syntax, preamble=False)), PICTURE)


def test_jpeg_is_read_as_every_other_jpeg() -> None:
    assert np.array_equal(
        decode(dicom(PICTURE, syntax=JPEGBaseline8Bit, photometric="YBR_FULL_422", encoded=JPEG)), by_pillow(JPEG)
    )
    as_rgb = pillow("JPEG", PICTURE, keep_rgb=True, quality=95)
    assert np.array_equal(decode(dicom(PICTURE, syntax=JPEGBaseline8Bit, encoded=as_rgb)), by_pillow(as_rgb))


@pytest.mark.parametrize("photometric", ["RGB", "MONOCHROME2"])
def test_a_jpeg_and_a_data_set_that_contradict_each_other_are_refused(photometric: str) -> None:
    fault = fault_of(dicom(PICTURE, syntax=JPEGBaseline8Bit, photometric=photometric, encoded=JPEG))
    assert (fault.code, f"says that its colours are {photometric}" in fault.sentence) == (
        FailureCode.UNSUPPORTED_FORMAT,
        True,
    )


def test_each_photometric_interpretation() -> None:
    assert np.array_equal(decode(dicom(255 - GREY, photometric="MONOCHROME1")), GREY_RGB)
    planes = np.ascontiguousarray(PICTURE.transpose(2, 0, 1)).reshape(PICTURE.shape)
    assert np.array_equal(decode(dicom(planes, PlanarConfiguration=1)), PICTURE)
    as_ybr = cv2.cvtColor(PICTURE, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    found = decode(dicom(np.ascontiguousarray(as_ybr), photometric="YBR_FULL"))
    assert np.abs(found.astype(int) - PICTURE).max() <= 2
    table = {
        f"{name}PaletteColorLookupTableData": (np.arange(256, dtype="<u2") * factor).tobytes()
        for name, factor in (("Red", 257), ("Green", 128), ("Blue", 0))
    }
    descriptors = {name.replace("Data", "Descriptor"): [256, 0, 16] for name in table}
    image = decode(dicom(GREY, photometric="PALETTE COLOR", **table, **descriptors))
    expected = np.stack([GREY, np.rint(GREY * (128 / 257)).astype(np.uint8), np.zeros_like(GREY)], axis=-1)
    assert np.abs(image.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_samples_are_scaled_by_the_stored_bits(bits: int) -> None:
    image = decode(dicom(WIDE >> (16 - bits), stored=bits))
    assert np.abs(image.astype(int) - PICTURE).max() <= 1
    dark = (PICTURE // 9).astype(np.uint16) * 257
    assert np.array_equal(decode(dicom(dark)), PICTURE // 9)


def test_an_icc_profile_is_converted() -> None:
    profile = icc_profile(P3, 2.2)
    expected = decode(pillow("PNG", PICTURE, icc_profile=profile))
    path = Dataset()
    path.ICCProfile = profile
    assert np.array_equal(decode(dicom(PICTURE, ICCProfile=profile)), expected)
    assert np.array_equal(decode(dicom(PICTURE, OpticalPathSequence=[path])), expected)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless], ids=lambda uid: uid.keyword)
def test_frames_are_numbered_from_one(syntax: UID) -> None:
    data = dicom(PICTURE, 255 - PICTURE, PICTURE[::-1].copy(), syntax=syntax)
    assert np.array_equal(decode_image(data, frame=2).pixels, 255 - PICTURE)
    assert np.array_equal(decode_image(data, frame=3).pixels, PICTURE[::-1])
    for frame in (None, 0, 4):
        assert "3 frames" in fault_of(data, frame).sentence


@pytest.mark.parametrize(
    ("data", "code", "says"),
    [
        (dicom(GREY, photometric="MONOCHROME2", kind=CT), "unsupported_format", "CT Image Storage"),
        (dicom(PICTURE, syntax=HTJ2KLossless, encoded=b"\xff\x4f\xff\x51"), "unsupported_format", "High-Throughput"),
        (dicom(PICTURE, syntax=MPEG2MPML, encoded=b"\0\0\1\xb3"), "unsupported_format", "MPEG2"),
        (dicom(PICTURE, photometric="CMYK"), "unsupported_format", "CMYK"),
        (dicom(PICTURE, PixelRepresentation=1), "unsupported_format", "signed"),
        (dicom(WIDE[..., 0].copy(), photometric="MONOCHROME2", WindowWidth=400), "unsupported_format", "window"),
        (dicom(PICTURE, PixelData=PICTURE.tobytes()[:-1000]), "truncated", "fewer bytes"),
        (dicom(PICTURE, Rows=60_000, Columns=60_000), "too_large", "60,000"),
        (dicom(PICTURE, syntax=LOSSLESS[3], Rows=97), "truncated", "another size"),
        (dicom(PICTURE)[:3000], "truncated", "damaged"),
        (dicom(PICTURE, syntax=JPEGBaseline8Bit, photometric="YBR_FULL_422", encoded=JPEG[:-900]), "truncated", "JPEG"),
    ],
    ids=["CT", "HTJ2K", "video", "CMYK", "signed", "window", "short", "large", "other size", "cut", "cut JPEG"],
)  # fmt: skip
def test_what_is_not_read_is_refused_by_its_name(data: bytes, code: str, says: str) -> None:
    fault = fault_of(data)
    assert (fault.code, says in fault.sentence) == (code, True), fault.sentence
    assert "Miller" not in fault.sentence


def test_pixels_in_another_attribute_are_refused() -> None:
    data = dicom(PICTURE)
    place = data.rindex(b"\xe0\x7f\x10\0")
    assert "no pixel data" in fault_of(data[:place] + b"\xe1" + data[place + 1 :]).sentence


def test_without_its_support_a_file_is_refused_as_dicom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_module, "dicom_is_installed", lambda: False)
    fault = fault_of(dicom(PICTURE))
    assert "a DICOM file" in fault.sentence
    assert "pip install 'dermq[dicom]'" in fault.sentence


@pytest.mark.ham10000
def test_real_images_wrapped_as_dermoscopy_have_their_pixels_to_the_last_bit() -> None:
    folder = os.environ.get("DERMQ_HAM10000")
    if folder is None:
        pytest.skip("DERMQ_HAM10000 is not set to the folder of HAM10000")
    for number, file in enumerate(sorted(Path(folder).rglob("*.jpg"))[::1000]):
        picture = decode(file.read_bytes())
        assert np.array_equal(decode(dicom(picture, syntax=(*NATIVE, *LOSSLESS)[number % 8])), picture)


@settings(deadline=None, max_examples=150)
@given(data=st.data(), syntax=st.sampled_from([*NATIVE, *LOSSLESS]))
def test_a_damaged_file_is_a_picture_or_a_fault_and_nothing_else(data: st.DataObject, syntax: UID) -> None:
    damaged = bytearray(dicom(ALPHA[:20, :20].copy(), photometric="MONOCHROME2", syntax=syntax))
    for place in data.draw(st.lists(st.integers(128, len(damaged) - 1), min_size=1, max_size=8)):
        damaged[place] = data.draw(st.integers(0, 255))
    try:
        image = decode(bytes(damaged))
    except ImageFaultError:
        return
    assert (image.dtype, image.shape[2:]) == (np.uint8, (3,))
