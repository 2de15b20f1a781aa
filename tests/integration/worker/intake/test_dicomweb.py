"""DICOMweb against a real Orthanc: what is found, what is passed over, and the pixels that come back."""

import numpy as np
import pytest
from click.testing import CliRunner
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from db.status import FailureCode
from tests.dicom_files import CT, dicom
from tests.integration.orthanc import Store
from tests.picture_files import GREY, PICTURE
from worker.cli import main
from worker.errors import ImageFaultError, ManifestError
from worker.images.decode import decode_image
from worker.images.read_any import reader_of
from worker.images.read_dicomweb import dicomweb_client
from worker.intake.scan_report import ScanReport
from worker.intake.sources.dicomweb import dicomweb_root, list_pacs, shown_search
from worker.intake.sources.passed_over import Selection
from worker.settings import load_settings

pytestmark = pytest.mark.usefixtures("pacs_account")


def test_pictures_are_found_and_come_back_to_the_last_bit(pacs: tuple[str, Store]) -> None:
    address, store = pacs
    store(dicom(PICTURE, syntax=RLELossless, SOPInstanceUID="1.2.3.1", StudyDate="20190102"))
    store(dicom(GREY, photometric="MONOCHROME2", kind=CT, SOPInstanceUID="1.2.3.2", StudyDate="20190102"))
    frames = dicom(
        PICTURE, 255 - PICTURE, syntax=ExplicitVRLittleEndian, kind="1.2.840.10008.5.1.4.1.1.7.4",
        SOPInstanceUID="1.2.3.3", StudyInstanceUID="1.2.9", SeriesInstanceUID="1.2.9.1", StudyDate="20210102",
        PatientID="P-8",
    )  # fmt: skip
    store(frames)
    report = ScanReport()
    images = {image.instance_uid: image for image in list_pacs(dicomweb_root(address, ()), report, Selection())}
    assert report.unread == {"DICOM CT Image Storage": 1}
    assert set(images) == {"1.2.3.1", "1.2.3.3"}
    single, last = images["1.2.3.1"], images["1.2.3.3"]
    assert (single.patient_ref, single.sex, last.patient_ref) == ("P-7", "female", "P-8")
    assert last.path.endswith(r"1.2.9/1.2.9.1/1.2.3.3.dcm\#2")
    read = reader_of(dicomweb_root(address, ()))
    for image, expected in ((single, PICTURE), (last, 255 - PICTURE)):
        content = read(image.path, size_bytes=0, mtime_ns=0, max_bytes=10**7)
        assert np.array_equal(decode_image(content.data, frame=content.frame).pixels, expected)
    assert read(single.path, size_bytes=0, mtime_ns=0, max_bytes=10**7).sha256 == (
        read(single.path, size_bytes=0, mtime_ns=0, max_bytes=10**7).sha256
    )
    query = dicomweb_root(address, ["StudyDate=20210101-20211231"])
    assert {image.study_uid for image in list_pacs(query, ScanReport(), Selection())} == {"1.2.9"}


def test_a_search_is_stored_without_what_names_a_patient() -> None:
    root = dicomweb_root("https://pacs/dicom-web", ["StudyDate=2019", "PatientID=P-7"])
    shown = shown_search(root)
    assert shown is not None
    assert "P-7" not in shown
    assert "StudyDate=2019" in shown
    assert shown == shown_search(root) != shown_search(root.replace("P-7", "P-8"))
    assert shown_search(dicomweb_root("https://pacs", ())) is None


def test_what_is_gone_or_too_large_fails_alone(pacs: tuple[str, Store]) -> None:
    address, store = pacs
    store(dicom(PICTURE, SOPInstanceUID="1.2.4.1", StudyInstanceUID="1.2.4", SeriesInstanceUID="1.2.4.9"))
    read = reader_of(dicomweb_root(address, ()))
    for path, most, code in (
        ("1.2.4/1.2.4.9/1.2.4.1.dcm", 1_000, FailureCode.TOO_LARGE),
        ("1.2.4/1.2.4.9/1.2.4.7.dcm", 10**7, FailureCode.MISSING),
    ):
        with pytest.raises(ImageFaultError) as caught:
            read(path, size_bytes=0, mtime_ns=0, max_bytes=most)
        assert caught.value.code == code


def test_a_wrong_password_and_a_wrong_address_are_said(
    pacs: tuple[str, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, _ = pacs
    monkeypatch.setenv("DERMQ_DICOMWEB_PASSWORD", "wrong")
    load_settings.cache_clear()
    dicomweb_client.cache_clear()
    with pytest.raises(ManifestError, match="refuses access"):
        list(list_pacs(dicomweb_root(address, ()), ScanReport(), Selection()))
    for wrong in ("pacs/dicom-web", "https://a:b@pacs/x", "ftp://pacs"):
        with pytest.raises(ManifestError):
            dicomweb_root(wrong, ())
    with pytest.raises(ManifestError, match="write Attribute=value"):
        dicomweb_root(address, ["2019"])


def test_the_command_shows_what_it_would_submit(pacs: tuple[str, Store]) -> None:
    address, store = pacs
    store(dicom(PICTURE, SOPInstanceUID="1.2.5.1", StudyInstanceUID="1.2.5", SeriesInstanceUID="1.2.5.9"))
    arguments = ["submit", address, "--dicomweb", "--query", "StudyInstanceUID=1.2.5", "--dry-run"]
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, "1 image would be submitted" in result.stderr) == (0, True), result.stderr
