"""A real PACS for tests: Orthanc with its DICOMweb plugin, on a free port, with an account."""

import base64
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from worker.images.read_dicomweb import _instance, dicomweb_client
from worker.local.broker import free_port
from worker.settings import load_settings

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
Store = Callable[[bytes], None]


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Store]]:
    """An Orthanc with an account, its address, and a function that stores a file there."""
    program = shutil.which("Orthanc")
    if program is None or not PLUGIN.exists():
        pytest.skip("Orthanc and its DICOMweb plugin are not installed (Debian: orthanc, orthanc-dicomweb)")
    folder = tmp_path_factory.mktemp("orthanc")
    port = free_port()
    configuration = {
        "HttpPort": port, "DicomServerEnabled": False, "StorageDirectory": str(folder), "IndexDirectory": str(folder),
        "Plugins": [str(PLUGIN)], "RemoteAccessAllowed": True, "AuthenticationEnabled": True,
        "RegisteredUsers": {"dermq": "secret"}, "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    address = f"http://127.0.0.1:{port}"
    token = base64.b64encode(b"dermq:secret").decode()

    def ask(path: str, data: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"{address}{path}", data, {"Authorization": f"Basic {token}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())

    with (folder / "log").open("w") as log:
        process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log)
        try:
            for _ in range(100):
                try:
                    ask("/system")
                    break
                except (urllib.error.URLError, ConnectionError):
                    assert process.poll() is None, (folder / "log").read_text()
                    time.sleep(0.1)
            yield f"{address}/dicom-web", lambda data: void(ask("/instances", data))
        finally:
            process.terminate()
            process.wait(20)


def void(_: object) -> None:
    pass


@pytest.fixture
def pacs_account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The account of `pacs` in the settings."""
    monkeypatch.setenv("DERMQ_DICOMWEB_USER", "dermq")
    monkeypatch.setenv("DERMQ_DICOMWEB_PASSWORD", "secret")
    for cached in (load_settings, dicomweb_client, _instance):
        cached.cache_clear()
    yield
    for cached in (load_settings, dicomweb_client, _instance):
        cached.cache_clear()
