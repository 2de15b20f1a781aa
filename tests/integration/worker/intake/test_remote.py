"""Remote stores: an S3 server on this machine, and a web server; listed, read, changed, gone, and silent."""

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from db.status import FailureCode
from tests.dicom_files import dicom
from tests.picture_files import PICTURE, pillow
from tests.s3_server import s3_server
from worker.errors import ImageFaultError, ManifestError
from worker.images import read_remote
from worker.images.read_any import reader_of
from worker.images.read_remote import open_store
from worker.intake.scan_report import ScanReport
from worker.intake.sources.passed_over import Selection
from worker.intake.sources.remote import list_store

PNG = pillow("PNG", PICTURE)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[fsspec.AbstractFileSystem]:
    """A bucket ``archive`` on a server of its own."""
    with s3_server() as (files, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(read_remote, "_PAUSES", (0.05, 0.05))
        open_store.cache_clear()
        yield files
        open_store.cache_clear()


def put(files: fsspec.AbstractFileSystem, **objects: bytes) -> None:
    for name, data in objects.items():
        files.pipe_file(f"archive/{name}", data)


def test_objects_are_listed_counted_and_read(s3: fsspec.AbstractFileSystem) -> None:
    put(s3, **{"2019/a.png": PNG, "2019/deep/ü b.png": PNG, "2019/x.heic": b"x", "2019/@eaDir/a.png": b"x"})
    put(s3, **{"2019/IM1": dicom(PICTURE), "2019/README": b"x", "2020/other.png": PNG})
    report = ScanReport()
    images = list(list_store("s3://archive/2019", report, Selection()))
    assert sorted(image.path for image in images) == ["IM1", "a.png", "deep/ü b.png"]
    assert report.passed_over() == {"unread: .heic": 1, "system: @eaDir": 1, "other files": 1}
    read = reader_of("s3://archive/2019")
    for image in images:
        content = read(image.path, size_bytes=image.size_bytes, mtime_ns=image.mtime_ns, max_bytes=10**6)
        assert content.data == (PNG if image.path.endswith("png") else dicom(PICTURE))
    assert next(image for image in images if image.path == "IM1").patient_ref == "P-7"


def test_a_changed_object_is_noticed_by_its_etag_and_a_large_one_is_refused(s3: fsspec.AbstractFileSystem) -> None:
    put(s3, **{"a.png": PNG})
    (image,) = list_store("s3://archive", ScanReport(), Selection())
    put(s3, **{"a.png": PNG[:-1] + b"x"})
    read = reader_of("s3://archive")

    def code(path: str, **given: object) -> FailureCode:
        with pytest.raises(ImageFaultError) as caught:
            read(path, **{"size_bytes": None, "mtime_ns": None, "max_bytes": 10**6, **given})
        return caught.value.code

    seen = {"size_bytes": image.size_bytes, "mtime_ns": image.mtime_ns}
    assert code("a.png", **seen) == FailureCode.CHANGED_SINCE_SUBMISSION
    assert code("a.png", max_bytes=10) == FailureCode.TOO_LARGE
    assert code("gone.png") == FailureCode.MISSING


def test_a_store_that_does_not_answer_costs_its_images_alone(
    s3: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(s3, **{"a.png": PNG})
    store, answers = open_store("s3://archive"), [OSError("reset"), TimeoutError()]
    info = store.files.info

    def unsteady(address: str) -> object:
        if answers:
            raise answers.pop()
        return info(address)

    monkeypatch.setattr(store.files, "info", unsteady)
    read = reader_of("s3://archive")
    assert read("a.png", size_bytes=None, mtime_ns=None, max_bytes=10**6).data == PNG
    answers += [OSError("reset")] * 3
    with pytest.raises(ImageFaultError, match="did not answer in three attempts"):
        read("a.png", size_bytes=None, mtime_ns=None, max_bytes=10**6)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("s3://no-such-bucket/x", "cannot be listed"),
        ("s3://key:secret@archive/x", "must not hold a name or a password"),
        ("ftp://host/x", "ftp:// is not read"),
    ],
)
def test_a_wrong_address_is_refused(s3: fsspec.AbstractFileSystem, address: str, says: str) -> None:
    with pytest.raises(ManifestError, match=says) as caught:
        list(list_store(address, ScanReport(), Selection()))
    assert "secret" not in str(caught.value)


def test_a_web_server_is_read(tmp_path: Path) -> None:
    (tmp_path / "2019").mkdir()
    (tmp_path / "2019" / "a.png").write_bytes(PNG)
    (tmp_path / "2019" / "notes.txt").write_bytes(b"x")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            root = f"http://127.0.0.1:{server.server_port}/2019"
            images = list(list_store(root, ScanReport(), Selection()))
            assert [image.path for image in images] == ["a.png"]
            content = reader_of(root)("a.png", size_bytes=None, mtime_ns=None, max_bytes=10**6)
            assert content.data == PNG
        finally:
            server.shutdown()
            thread.join()
            open_store.cache_clear()
