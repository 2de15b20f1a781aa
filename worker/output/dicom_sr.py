"""An image's result as a DICOM structured report in its study: TID 1500, unverified, preliminary. Needs ``dicom``.

PS3.16, TID 1500 "Measurement Report", built with highdicom; the IHE profile AI Results asks for the same. The report
names the algorithm and the image, and has the probability, the threshold and the flag. Codes that no standard has are
of the scheme 99DERMQ.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

from db.jobs import JobView
from db.worklist import OutcomeRow
from worker.images.dicom_header import quiet_pydicom
from worker.output.in_words import FLAGS, NOT_REVIEWED, PROBABILITY, THRESHOLD, TRIAGE_FLAG, digits, flag_of, identity

if TYPE_CHECKING:
    from highdicom.sr import CodedConcept
    from pydicom import Dataset

_SCHEME = "99DERMQ"
_MANUFACTURER = "dermq (open source)"
#: Number of the series of reports in its study, far from those of cameras.
_SERIES_NUMBER = 9901
#: Longest code and longest text of a code (PS3.5, SH and LO).
_CODE, _MEANING = 16, 64


def structured_report(row: OutcomeRow, evidence: "Dataset", *, job: JobView, frame: int | None) -> "Dataset":
    """The report of one image. The same image of the same job always gives the same identifiers.

    Args:
        row: with an outcome: a score, or why there is none.
        evidence: of the image, from `worker.images.dicom_header.read_evidence`.
        job: of the row.
        frame: the frame that the row stands for, from 1. None for a file of one picture.
    """
    from highdicom import sr
    from pydicom.sr.codedict import codes

    # With the time of submission: the first job of another database must not have the same.
    own = (job.id, job.submitted_at)
    bundle, flag = f"{row.bundle_name} {row.bundle_version}", flag_of(row)
    algorithm = sr.AlgorithmIdentification(
        name=row.bundle_name[:_MEANING],
        version=f"{row.bundle_version} {row.bundle_sha256[:16]}"[:_MEANING],
        parameters=[f"policy {row.policy}"],
        family=codes.DCM.ArtificialIntelligence,
    )
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=_uid("device", row.bundle_sha256),
        name="dermq",
        manufacturer_name=_MANUFACTURER,
        model_name=bundle[:_MEANING],
        serial_number=row.bundle_sha256[:_MEANING],
    )
    numbers = [] if row.probability is None else [(PROBABILITY, "probability", row.probability)]
    numbers.append((THRESHOLD, "threshold", row.threshold))
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=_uid("finding", *own, row.image_id, row.bundle_sha256),
            identifier=f"dermq job {job.id} image {row.image_id}",
        ),
        finding_type=codes.SCT.SkinLesion,
        algorithm_id=algorithm,
        measurements=[
            sr.Measurement(name=_code(code, meaning), value=digits(value), unit=codes.UCUM.NoUnits)
            for meaning, code, value in numbers
        ],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(name=_code("triage-flag", TRIAGE_FLAG), value=_code(flag, FLAGS[flag])),
            sr.QualitativeEvaluation(
                name=_code("review-status", "Review status"), value=_code("not-reviewed", "Not reviewed by a person")
            ),
        ],
        source_images=[
            sr.SourceImageForMeasurementGroup(
                referenced_sop_class_uid=str(evidence.SOPClassUID),
                referenced_sop_instance_uid=str(evidence.SOPInstanceUID),
                referenced_frame_numbers=None if frame is None else [frame],
            )
        ],
    )
    with quiet_pydicom():
        content = sr.MeasurementReport(
            observation_context=sr.ObservationContext(
                observer_device_context=sr.ObserverContext(
                    observer_type=codes.DCM.Device, observer_identifying_attributes=device
                )
            ),
            procedure_reported=codes.SCT.DermoscopicPhotography,
            imaging_measurements=[group],
            title=codes.DCM.ImagingMeasurementReport,
            language_of_content_item_and_descendants=sr.LanguageOfContentItemAndDescendants(_english()),
        )
        report = sr.ComprehensiveSR(
            evidence=[evidence],
            content=content[0],
            series_instance_uid=_uid("series", *own, row.bundle_sha256, evidence.StudyInstanceUID),
            series_number=_SERIES_NUMBER,
            sop_instance_uid=_uid("report", *own, row.image_id, row.bundle_sha256, row.completed_at),
            # An IS of at most 12 characters.
            instance_number=row.image_id % 2**31,
            manufacturer=_MANUFACTURER,
            # PARTIAL, UNVERIFIED and PRELIMINARY: nobody has looked at it.
            is_complete=False,
            is_verified=False,
            is_final=False,
        )
    report.SeriesDescription = "dermq triage, not reviewed"
    report.CompletionFlagDescription = NOT_REVIEWED[:_MEANING]
    report.ManufacturerModelName, report.SoftwareVersions = bundle[:_MEANING], row.bundle_sha256[:_MEANING]
    # Of the result, so that the same result gives the same file.
    made = (row.completed_at or datetime(1970, 1, 1, tzinfo=UTC)).astimezone(_zone(evidence))
    for name in ("ContentDate", "SeriesDate", "InstanceCreationDate"):
        setattr(report, name, made.strftime("%Y%m%d"))
    for name in ("ContentTime", "SeriesTime", "InstanceCreationTime"):
        setattr(report, name, made.strftime("%H%M%S.%f"))
    return report


def name_predecessors(report: "Dataset", earlier: Sequence[str]) -> None:
    """Refer to earlier reports of the same image, which this one stands in for (PS3.3, C.17.2).

    Args:
        report: from `structured_report`.
        earlier: identifiers of the reports, of the same study and series.
    """
    from pydicom import Dataset

    references = []
    for instance in earlier:
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = report.SOPClassUID, instance
        references.append(reference)
    series, study = Dataset(), Dataset()
    series.SeriesInstanceUID, series.ReferencedSOPSequence = report.SeriesInstanceUID, references
    study.StudyInstanceUID, study.ReferencedSeriesSequence = report.StudyInstanceUID, [series]
    report.PredecessorDocumentsSequence = [study]


def _zone(evidence: "Dataset") -> timezone:
    """The image's offset from UTC, of which its study's times are (PS3.3, C.12.1.1.8), or UTC."""
    found = re.fullmatch(r"([+-])(\d{2})(\d{2})", str(evidence.get("TimezoneOffsetFromUTC", "")))
    if found is None:
        return UTC
    minutes = 60 * int(found[2]) + int(found[3])
    return timezone(timedelta(minutes=-minutes if found[1] == "-" else minutes)) if minutes < 24 * 60 else UTC


def _code(value: str, meaning: str) -> "CodedConcept":
    from highdicom import sr

    return sr.CodedConcept(value[:_CODE], _SCHEME, meaning[:_MEANING])


def _english() -> "CodedConcept":
    from highdicom import sr

    return sr.CodedConcept("en", "RFC5646", "English")


def _uid(*parts: object) -> str:
    """PS3.5, B.2: a UUID as a decimal number below 2.25."""
    return f"2.25.{int(identity(*parts), 16)}"
