"""DICOM: the pixels to the last bit in each lossless syntax, and a refusal with the true name for all others."""

import os
import zlib
from pathlib import Path

import imagecodecs
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
from tests.picture_files import (
    ALPHA,
    GREY,
    GREY_RGB,
    JPEG,
    PICTURE,
    WIDE,
    by_pillow,
    exif_orientation,
    icc_profile,
    pillow,
)
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
    assert fault.code == FailureCode.UNSUPPORTED_FORMAT
    assert f"says that its colours are {photometric}" in fault.sentence or photometric == "MONOCHROME2"


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


EIGHT_BITS = bytes(imagecodecs.jpeg2k_encode(PICTURE, level=0, reversible=True, codecformat="j2k"))
GREY_DICOM = {"photometric": "MONOCHROME2"}


def sequence(**attributes: object) -> list[Dataset]:
    item = Dataset()
    for name, value in attributes.items():
        setattr(item, name, value)
    return [item]


@pytest.mark.parametrize(
    "attributes",
    [
        {"WindowWidth": 256, "WindowCenter": 0},
        {"WindowWidth": 300, "WindowCenter": 128},
        {"WindowWidth": 256, "WindowCenter": 128, "VOILUTFunction": "SIGMOID"},
        {"PresentationLUTShape": "INVERSE"},
        {"SharedFunctionalGroupsSequence": sequence(FrameVOILUTSequence=sequence(WindowWidth=80, WindowCenter=40))},
        {"PerFrameFunctionalGroupsSequence": sequence(PixelValueTransformationSequence=sequence(RescaleSlope=-1))},
        {"HighBit": 15, "BitsStored": 12},
    ],
)
def test_grey_that_is_shown_otherwise_than_it_is_stored_is_refused(attributes: dict[str, object]) -> None:
    grey = WIDE[..., 0].copy() if "HighBit" in attributes else GREY
    assert fault_of(dicom(grey, **GREY_DICOM, **attributes)).code == FailureCode.UNSUPPORTED_FORMAT
    usual = dicom(GREY, **GREY_DICOM, WindowWidth=256, WindowCenter=128, PresentationLUTShape="IDENTITY")
    assert np.array_equal(decode(usual), GREY_RGB)


def test_the_orientation_and_the_profile_of_a_jpeg_do_not_count_in_dicom() -> None:
    profile = icc_profile(P3, 2.2)
    turned = pillow("JPEG", PICTURE, quality=92, icc_profile=profile)
    turned = (
        turned[:2] + b"\xff\xe1" + (len(exif_orientation(3)) + 2).to_bytes(2, "big") + exif_orientation(3) + turned[2:]
    )
    plain = by_pillow(pillow("JPEG", PICTURE, quality=92))
    data = dicom(PICTURE, syntax=JPEGBaseline8Bit, photometric="YBR_FULL_422", encoded=turned)
    assert np.array_equal(decode(data), plain)
    once = decode(pillow("PNG", plain, icc_profile=profile))
    data = dicom(PICTURE, syntax=JPEGBaseline8Bit, photometric="YBR_FULL_422", encoded=turned, ICCProfile=profile)
    assert np.array_equal(decode(data), once)


@pytest.mark.parametrize(
    "data",
    [
        dicom(PICTURE, syntax=LOSSLESS[3], photometric="YBR_FULL"),
        dicom(PICTURE, syntax=LOSSLESS[1], photometric="YBR_FULL"),
        dicom(WIDE, syntax=LOSSLESS[3], stored=12, encoded=EIGHT_BITS),
        dicom(GREY, photometric="PALETTE COLOR", **{
            f"{name}PaletteColorLookupTable{part}": value
            for name in ("Red", "Green", "Blue")
            for part, value in (("Data", np.arange(256, dtype="<u2").tobytes()), ("Descriptor", [256, 0, 16]))
        }),
    ],
    ids=["JPEG 2000 in YBR", "lossless JPEG in YBR", "bits", "dark palette"],
)  # fmt: skip
def test_other_contradictions_are_refused(data: bytes) -> None:
    assert fault_of(data).code == FailureCode.UNSUPPORTED_FORMAT


@pytest.mark.parametrize("syntax", [LOSSLESS[1], LOSSLESS[2], JPEGBaseline8Bit], ids=lambda uid: uid.keyword)
def test_a_page_of_zeros_in_a_jpeg_is_damage(syntax: UID) -> None:
    encoded = None if syntax != JPEGBaseline8Bit else JPEG
    photometric = "RGB" if encoded is None else "YBR_FULL_422"
    data = bytearray(dicom(PICTURE, syntax=syntax, photometric=photometric, encoded=encoded))
    place = data.index(b"\xff\xd8\xff") + 2_500
    data[place : place + 1_024] = bytes(1_024)
    assert fault_of(bytes(data)).code == FailureCode.TRUNCATED


def test_a_deflated_file_that_inflates_for_ever_is_refused_before_it_does() -> None:
    plain = dicom(PICTURE, syntax=NATIVE[3])
    begin = 144 + int.from_bytes(plain[140:144], "little")
    inflated = zlib.decompress(plain[begin:], -15)
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    parts = [pack.compress(inflated), *(pack.compress(bytes(2**24)) for _ in range(20)), pack.flush()]
    bomb = plain[:begin] + b"".join(parts)
    assert len(bomb) < 10**6
    assert fault_of(bomb).code == FailureCode.TOO_LARGE


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
