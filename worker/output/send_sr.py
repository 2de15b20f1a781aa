"""Structured reports of a job's DICOM images, into a folder or back to the PACS by STOW-RS (PS3.18, section 10.5)."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from db.status import ImageStatus
from db.worklist import OutcomeRow
from worker.errors import ImageFaultError, OutputError
from worker.images.dicom_header import read_evidence
from worker.images.read import frame_of
from worker.images.read_any import Reader
from worker.images.read_dicomweb import DICOMWEB, DicomWebError, dicomweb_client, explain

if TYPE_CHECKING:
    from pydicom import Dataset

#: Reports sent in one request.
_TOGETHER = 20
#: Status of an instance that a PACS has taken in part or with a change: it is there all the same (PS3.18, 10.5.3).
_WARNINGS = (0xB000, 0xB006, 0xB007)


@dataclass(kw_only=True)
class Sent:
    """What became of a job's images.

    Args:
        written: reports in the folder or taken by the PACS.
        there: reports that the PACS had already.
        without: images without a report, by reason.
    """

    written: int = 0
    there: int = 0
    without: Counter[str] = field(default_factory=Counter)


def make_reports(
    rows: Iterable[OutcomeRow], reader: Reader, *, job: int, max_bytes: int, sent: Sent
) -> "Iterator[Dataset]":
    """The report of each image that came as DICOM and has an outcome.

    Args:
        rows: of the job.
        reader: of its archive: patient and study come from the image itself.
        job: its number.
        max_bytes: size of the largest file that is read.
        sent: counts the images without a report.

    Raises:
        OutputError: the support for DICOM is not installed.
    """
    try:
        import highdicom  # noqa: F401
    except ImportError:
        raise OutputError("For DICOM reports install their support: pip install 'dermq[dicom]'.") from None
    from worker.output.dicom_sr import structured_report

    for row in rows:
        if row.instance_uid is None:
            sent.without["did not come as DICOM"] += 1
        elif row.status is ImageStatus.WAITING:
            sent.without["have no outcome"] += 1
        else:
            try:
                content = reader(row.path, size_bytes=None, mtime_ns=None, max_bytes=max_bytes)
                evidence = read_evidence(content.data)
            except (ImageFaultError, ValueError):
                sent.without["cannot be read now"] += 1
                continue
            if str(evidence.SOPInstanceUID) != row.instance_uid or row.image_sha256 not in (None, content.sha256):
                sent.without["are not those that were scored"] += 1
                continue
            yield structured_report(row, evidence, job=job, frame=frame_of(row.path))


def write_reports(reports: "Iterable[Dataset]", folder: Path, sent: Sent) -> None:
    """Write each report as a file that is named for its identifier.

    Args:
        reports: from `make_reports`.
        folder: empty.
        sent: counts them.
    """
    for report in reports:
        report.save_as(folder / f"{report.SOPInstanceUID}.dcm", enforce_file_format=True)
        sent.written += 1


def send_reports(
    reports: "Iterable[Dataset]", address: str, sent: Sent, progress: Callable[[Sent], None] = lambda sent: None
) -> None:
    """Send each report to a PACS once: what it has already is not sent again.

    Args:
        reports: from `make_reports`.
        address: of the PACS, as for `dermq submit`: ``https://pacs/dicom-web``.
        sent: counts them.
        progress: called after each request.

    Raises:
        OutputError: the PACS cannot be used. What it has taken, it keeps; a second call sends the rest.
    """
    try:
        client = dicomweb_client(DICOMWEB + address)
    except DicomWebError as error:
        raise OutputError(f"The reports were not sent: {error}.") from None

    @lru_cache(maxsize=64)
    def there(study: str, series: str) -> set[str]:
        found = client.search_for_instances(study, series, fields=["SOPInstanceUID"])
        return {str(each["00080018"]["Value"][0]) for each in found}

    waiting: list[Dataset] = []
    try:
        for report in reports:
            if str(report.SOPInstanceUID) in there(str(report.StudyInstanceUID), str(report.SeriesInstanceUID)):
                sent.there += 1
                continue
            waiting.append(report)
            if len(waiting) == _TOGETHER:
                _store(client, waiting, sent)
                waiting = []
                progress(sent)
        if waiting:
            _store(client, waiting, sent)
            progress(sent)
    except (OutputError, ImageFaultError):
        raise
    except Exception as error:
        # Of requests and of pydicom: a dozen classes.
        raise OutputError(
            f"The PACS took {sent.written:,} reports, then it failed: {explain(error)[1]}. Send again: what it has is "
            "not sent twice."
        ) from None


def _store(client: Any, reports: "list[Dataset]", sent: Sent) -> None:
    answer = client.store_instances(reports)
    refused = [
        int(failure.get("FailureReason", 0))
        for failure in answer.get("FailedSOPSequence", [])
        if int(failure.get("FailureReason", 0)) not in _WARNINGS
    ]
    sent.written += len(reports) - len(refused)
    if refused:
        raise OutputError(
            f"The PACS refused {len(refused):,} of {len(reports):,} reports (first reason: {refused[0]:#06x}). It took "
            f"{sent.written:,} before. Ask its operator; then send again."
        )
