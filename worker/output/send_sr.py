"""Structured reports of a job's DICOM images, into a folder or back to the PACS by STOW-RS (PS3.18, section 10.5)."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from db.jobs import JobView
from db.status import ImageStatus
from db.worklist import OutcomeRow
from worker.errors import DermqError, ImageFaultError, OutputError
from worker.images.dicom_header import read_evidence
from worker.images.read import frame_of
from worker.images.read_any import Reader
from worker.images.read_dicomweb import DICOMWEB, DicomWebError, dicomweb_client, explain
from worker.logging import get_logger
from worker.output.dicom_sr import name_predecessors, structured_report

if TYPE_CHECKING:
    from pydicom import Dataset

log = get_logger(__name__)

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
    rows: Iterable[OutcomeRow], reader: Reader, *, job: JobView, max_bytes: int, sent: Sent, cancelled: bool = False
) -> "Iterator[Dataset]":
    """The report of each image that came as DICOM and has an outcome.

    Args:
        rows: of the job.
        reader: of its archive: patient and study come from the image itself.
        job: of the rows.
        max_bytes: size of the largest file that is read.
        sent: counts the images without a report.
        cancelled: whether the job was cancelled: a human must look at its waiting images, so they have a report too.

    Raises:
        OutputError: the support for DICOM is not installed.
    """
    try:
        import highdicom  # noqa: F401
    except ImportError:
        raise OutputError("For DICOM reports install their support: pip install 'dermq[dicom]'.") from None

    for row in rows:
        if row.instance_uid is None:
            sent.without["did not come as DICOM"] += 1
        elif row.status is ImageStatus.WAITING and not cancelled:
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
            try:
                report = structured_report(row, evidence, job=job, frame=frame_of(row.path))
            except MemoryError:
                raise
            except Exception as error:
                # Of odd values in patient and study highdicom raises a dozen classes; their texts hold the values.
                log.error("no DICOM report", image=row.image_id, error=type(error).__name__)
                sent.without["have attributes in their DICOM file that no report can repeat"] += 1
                continue
            yield report


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


def send_reports(reports: "Iterable[Dataset]", address: str, sent: Sent) -> None:
    """Send each report to a PACS once: what it has already is not sent again.

    An image that was scored again has another report, which names the earlier ones as its predecessors.

    Args:
        reports: from `make_reports`.
        address: of the PACS, as for `dermq submit`: ``https://pacs/dicom-web``.
        sent: counts them.

    Raises:
        OutputError: the PACS cannot be used. What it has taken, it keeps; a second call sends the rest.
    """
    try:
        client = dicomweb_client(DICOMWEB + address)
    except DicomWebError as error:
        raise OutputError(f"The reports were not sent: {error}.") from None

    @lru_cache(maxsize=64)
    def there(study: str, series: str) -> dict[str, str]:
        try:
            found = client.search_for_instances(study, series, fields=["SOPInstanceUID", "InstanceNumber"])
        except Exception as error:
            # Some servers answer so while the study has no such series.
            if getattr(getattr(error, "response", None), "status_code", None) == 404:
                return {}
            raise
        return {str(each["00080018"]["Value"][0]): _first(each, "00200013") for each in found}

    waiting: list[Dataset] = []
    try:
        for report in reports:
            known = there(str(report.StudyInstanceUID), str(report.SeriesInstanceUID))
            if str(report.SOPInstanceUID) in known:
                sent.there += 1
                continue
            # The number in the series is that of the image.
            own = str(report.InstanceNumber)
            if earlier := [instance for instance, number in known.items() if number == own]:
                name_predecessors(report, earlier)
            waiting.append(report)
            if len(waiting) == _TOGETHER:
                _store(client, waiting, sent)
                waiting = []
        if waiting:
            _store(client, waiting, sent)
    except (DermqError, ImageFaultError, SQLAlchemyError):
        raise
    except Exception as error:
        # Of requests and of pydicom: a dozen classes.
        raise OutputError(
            f"The PACS took {sent.written:,} reports, then it failed: {explain(error)[1]}. Send again: what it has is "
            "not sent twice."
        ) from None


def _first(answer: dict[str, Any], tag: str) -> str:
    """The first value of an attribute in an answer of DICOMweb, or nothing."""
    return str((answer.get(tag, {}).get("Value") or [""])[0])


def _store(client: Any, reports: "list[Dataset]", sent: Sent) -> None:
    answer = client.store_instances(reports)
    refused = [
        int(failure.get("FailureReason", 0))
        for failure in answer.get("FailedSOPSequence", [])
        if int(failure.get("FailureReason", 0)) not in _WARNINGS
    ]
    taken = len(answer.get("ReferencedSOPSequence", []))
    if not refused and not taken:
        raise OutputError(
            f"The server did not say that it took any of {len(reports):,} reports, so it may be no PACS. Check the "
            "address: it ends as that of the DICOMweb service, such as /dicom-web."
        )
    sent.written += taken
    if refused:
        raise OutputError(
            f"The PACS refused {len(refused):,} of {len(reports):,} reports (first reason: {refused[0]:#06x}). It took "
            f"{sent.written:,} before. Ask its operator; then send again."
        )
