"""A remote store as a source: s3://, gs:// or https://, listed folder by folder."""

import os
from collections.abc import Iterator
from dataclasses import replace

from db.submission import NewImage
from worker.errors import ManifestError
from worker.images.identify import is_dicom
from worker.images.read import path_to_text
from worker.images.read_remote import RemoteError, RemoteStore, open_store
from worker.intake.scan_report import ScanReport
from worker.intake.sources.base import is_too_long, shorten
from worker.intake.sources.dicom import dicom_images
from worker.intake.sources.passed_over import Kind, Selection, kind_of_dicom, kind_of_path
from worker.url_redaction import without_password

#: Bytes by which a DICOM file is recognised, and that are fetched together.
_HEAD_BYTES, _PART_BYTES = 132, 256 * 1024


def list_store(root: str, report: ScanReport, selection: Selection) -> Iterator[NewImage]:
    """Find the images below an address.

    Args:
        root: such as ``s3://bucket/2019``.
        report: filled with everything that is passed over.
        selection: what is taken.

    Raises:
        ManifestError: the store cannot be listed.
    """
    shown = without_password(root, root)
    try:
        store = open_store(root)
        # Without this, an error would be an empty folder.
        walked = store.files.walk(store.prefix, detail=True, on_error="raise")
        for folder, _, found in walked:
            yield from _folder(store, str(folder).rstrip("/"), found, report, selection)
    except RemoteError as error:
        raise ManifestError(f"{shown} cannot be read: {error}.") from None
    except ManifestError:
        raise
    except PermissionError:
        raise ManifestError(f"{shown} cannot be listed: the store refuses access. Check the credentials.") from None
    except FileNotFoundError:
        raise ManifestError(f"{shown} cannot be listed: there is no such bucket or folder.") from None
    except Exception as error:
        # Each store raises its own classes for a connection that is lost or times out.
        raise ManifestError(
            f"{shown} cannot be listed ({type(error).__name__}). Check the address, the network and the credentials."
        ) from None


def _folder(
    store: RemoteStore, folder: str, found: dict[str, dict[str, object]], report: ScanReport, selection: Selection
) -> Iterator[NewImage]:
    stems = {os.path.splitext(name)[0].lower() for name in found}  # noqa: PTH122
    inside = folder[len(store.prefix) :].strip("/")
    for name in sorted(found):
        if not name:
            # The folder's own marker.
            continue
        path = f"{inside}/{name}" if inside else name
        kind = kind_of_path(path, stems, report, selection)
        if kind is Kind.PASSED_OVER:
            continue
        described = store.describe(found[name])
        text = path_to_text(path)
        image = NewImage(path=text, size_bytes=described.size, mtime_ns=described.version)
        if is_too_long(text):
            text, failure = shorten(text)
            image = replace(image, path=text, failure=failure)
        if kind is Kind.IMAGE or image.failure is not None:
            yield image
            continue
        if kind is Kind.PERHAPS_DICOM:
            if not is_dicom(store.files.cat_file(store.address(path), start=0, end=_HEAD_BYTES)):
                report.count_other(os.path.splitext(name)[1].lower())  # noqa: PTH122
                continue
            kind = kind_of_dicom(report, selection)
        if kind is Kind.DICOM:
            # In small parts: the header lies at the beginning.
            with store.files.open(store.address(path), "rb", block_size=_PART_BYTES) as file:
                yield from dicom_images(file, image, report, selection)
        elif kind is Kind.IMAGE:
            yield image
