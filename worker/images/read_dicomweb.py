"""Reading DICOM instances from a PACS by WADO-RS (PS3.18, section 10.4), through dicomweb-client."""

from functools import lru_cache
from io import BytesIO
from typing import Any

from db.status import FailureCode
from worker.errors import ImageFaultError
from worker.images.read import FileContent, frame_of, sha256_of, text_to_path
from worker.settings import load_settings

#: Beginning of the root of a job whose images are in a PACS.
DICOMWEB = "dicomweb+"
#: Seconds to wait for a connection, and for each part of an answer.
_TIMEOUT = (10, 60)
_ATTEMPTS = 4
#: Any transfer syntax: the PACS sends what it stores.
_AS_STORED = (("application/dicom", "*"),)
_NOT_THERE, _REFUSED = (404, 410), (401, 403)


class DicomWebError(ValueError):
    """A PACS cannot be used. The text says why and what to do."""


@lru_cache(maxsize=4)
def dicomweb_client(root: str) -> Any:
    """The client of a PACS, with the credentials of the settings.

    Args:
        root: such as ``dicomweb+https://pacs/dicom-web``.

    Raises:
        DicomWebError: its support is not installed, or the address is none.
    """
    try:
        from dicomweb_client.api import DICOMwebClient
        from requests import Session
    except ImportError:
        raise DicomWebError("for DICOMweb install its support: pip install 'dermq[dicom]'") from None
    settings, session = load_settings(), Session()
    headers = {}
    if settings.dicomweb_token is not None:
        headers["Authorization"] = f"Bearer {settings.dicomweb_token.get_secret_value()}"
    elif settings.dicomweb_user and settings.dicomweb_password is not None:
        session.auth = (settings.dicomweb_user, settings.dicomweb_password.get_secret_value())
    try:
        client = DICOMwebClient(root.removeprefix(DICOMWEB), session=session, headers=headers, timeout=_TIMEOUT)
    except (ValueError, TypeError):
        raise DicomWebError(f"{root.removeprefix(DICOMWEB)} is no address of a PACS") from None
    # Of busy servers; pauses of 1 s, 2 s and so on.
    client.set_http_retry_params(retry=True, max_attempts=_ATTEMPTS, wait_exponential_multiplier=500)
    return client


def explain(error: Exception) -> tuple[FailureCode, str]:
    """What an error of the client means."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in _NOT_THERE:
        return FailureCode.MISSING, "the PACS has no such object"
    if status in _REFUSED:
        return (
            FailureCode.UNREADABLE,
            "the PACS refuses access. Set DERMQ_DICOMWEB_USER and DERMQ_DICOMWEB_PASSWORD, or DERMQ_DICOMWEB_TOKEN",
        )
    said = f"HTTP status {status}" if status is not None else type(error).__name__
    return FailureCode.UNREADABLE, f"the PACS did not answer as it should ({said})"


def read_instance(root: str, path: str, *, size_bytes: int | None, mtime_ns: int | None, max_bytes: int) -> FileContent:
    """Read one instance, as `worker.images.read.read_file` reads a file of a folder.

    Args:
        root: of the PACS.
        path: ``study/series/instance.dcm``, with the number of a frame where there are several.
        size_bytes: not used: an instance never changes under its identifier.
        mtime_ns: as ``size_bytes``.
        max_bytes: size of the largest instance that is read.

    Raises:
        ImageFaultError: ``missing``, ``unreadable`` or ``too_large``.
    """
    data = _instance(root, text_to_path(path))
    if len(data) > max_bytes:
        raise ImageFaultError(
            FailureCode.TOO_LARGE, f"the instance has {len(data):,} bytes, the limit is {max_bytes:,}"
        )
    frame = frame_of(path)
    return FileContent(data=data, sha256=sha256_of(data, frame), frame=frame)


@lru_cache(maxsize=1)
def _instance(root: str, path: str) -> bytes:
    """The bytes of an instance, kept for its next frame."""
    study, series, instance = path.removesuffix(".dcm").split("/")
    try:
        dataset = dicomweb_client(root).retrieve_instance(study, series, instance, media_types=_AS_STORED)
        file = BytesIO()
        dataset.save_as(file, enforce_file_format=True)
    except MemoryError:
        raise
    except DicomWebError as error:
        raise ImageFaultError(FailureCode.UNREADABLE, str(error)) from None
    except Exception as error:
        # Of requests and of pydicom: a dozen classes.
        raise ImageFaultError(*explain(error)) from None
    return file.getvalue()
