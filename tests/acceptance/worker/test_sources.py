"""The same pictures from a folder, a ZIP, a TAR, S3, and as DICOM: the same probabilities, to the last bit."""

import csv
import tarfile
import zipfile
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from tests.acceptance.conftest import running_system
from tests.dicom_files import dicom
from tests.picture_files import pillow
from tests.s3_server import s3_server
from worker.synthetic.lesion import draw_lesion

PICTURES = 200
SYNTAXES = (ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless)


@pytest.mark.slow
def test_every_way_in_gives_equal_probabilities(tmp_path: Path) -> None:
    folder, as_dicom = tmp_path / "folder", tmp_path / "dicom"
    folder.mkdir()
    as_dicom.mkdir()
    archive, packed = tmp_path / "pictures.zip", tmp_path / "pictures.tar"
    with s3_server() as (files, environment), zipfile.ZipFile(archive, "w") as zipped, tarfile.open(packed, "w") as tar:
        for number in range(PICTURES):
            picture = draw_lesion(number, width=300, height=240)
            data, name = pillow("PNG", picture), f"{number:03}.png"
            (folder / name).write_bytes(data)
            zipped.writestr(name, data)
            tar.add(folder / name, name)
            files.pipe_file(f"archive/2019/{name}", data)
            (as_dicom / f"{number:03}.dcm").write_bytes(dicom(picture, syntax=SYNTAXES[number % len(SYNTAXES)]))
        zipped.close()
        tar.close()
        with running_system(tmp_path / "home", **environment) as system:
            found = {}
            for source in (folder, archive, packed, "s3://archive/2019", as_dicom):
                job = system.dermq("submit", source, "--force", "--watch").stdout.strip()
                rows = csv.DictReader(system.dermq("export", job).stdout.splitlines())
                found[str(source)] = {row["path"][:3]: (row["status"], row["probability"]) for row in rows}
    first, *others = found.values()
    assert len(first) == PICTURES
    assert sum(status == "scored" for status, _ in first.values()) > PICTURES / 2
    for other in others:
        assert other == first
