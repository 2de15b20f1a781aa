"""From an archive to a job: a folder or a CSV manifest, taken in by batches that never hold it whole."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from celery import Celery
from sqlalchemy import Connection, Engine

from db.audit import append_entry
from db.claims import unmark_hinted
from db.jobs import (
    NewImage,
    NewJob,
    add_chunk,
    create_job,
    end_submission,
    jobs_of_same_source,
    known_paths,
    record_bundle,
    withdraw_job,
)
from db.session import read, transact
from db.status import AuditAction
from worker.archive import FolderReport, read_manifest, walk_folder
from worker.bundle import Bundle
from worker.errors import BrokerError, ManifestError
from worker.hints import send_hints
from worker.images.read import path_to_text

#: Chunks recorded in one transaction.
_CHUNKS_PER_TRANSACTION = 8


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What to submit and how.

    Args:
        source: a folder, or a CSV manifest.
        root: folder that the manifest's paths are relative to; default: the manifest's own. Not used for a folder.
        policy: triage policy, one of the bundle's.
        urgent: whether it goes before bulk work.
        force: whether images are scored that were scored before under this bundle.
        actor: who submits, for the audit log.
        chunk_size: images in a chunk.
    """

    source: Path
    root: Path | None
    policy: str
    urgent: bool
    chunk_size: int
    force: bool = False
    actor: str = "unknown"


@dataclass(kw_only=True)
class Intake:
    """What came of a submission."""

    job_id: int
    images: int = 0
    repeated: int = 0
    #: Images of a manifest whose file could not be found.
    not_found: int = 0
    #: Earlier jobs of the same source that have not been cancelled.
    same_source: list[int] = field(default_factory=list)
    #: False when the broker could not be reached, so that the sweeper will send the hints.
    hinted: bool = True
    folder: FolderReport = field(default_factory=FolderReport)

    def notes(self) -> list[str]:
        """What the submitter should know, a line each."""
        report = self.folder
        notes = [f"Job {self.job_id}: {self.images:,} image{'s' if self.images != 1 else ''} submitted."]
        if self.same_source:
            earlier = ", ".join(map(str, self.same_source))
            notes.append(
                f"The same source was submitted before as job {earlier}; dermq cancel {self.job_id} undoes this."
            )
        if self.not_found:
            notes.append(
                f"WARNING: {self.not_found:,} files do not exist; paths are relative to the manifest's folder, or to "
                "--root."
            )
        if self.repeated:
            notes.append(f"Rows that repeated a path and were left out, the first one counts: {self.repeated:,}.")
        if report.unreadable:
            shown = ", ".join(report.unreadable[:5]) + (" …" if len(report.unreadable) > 5 else "")
            notes.append(f"WARNING: {len(report.unreadable):,} folders could not be read, NOT in the job: {shown}")
        if report.linked_folders:
            notes.append(f"WARNING: {report.linked_folders:,} symbolic links to folders were not followed.")
        if report.others:
            notes.append(f"Not taken for images: {_by_suffix(report)}.{_no_dicom(report)}")
        if report.hidden:
            notes.append(f"Hidden files or folders that were passed over: {report.hidden:,}.")
        if not self.hinted:
            notes.append("The broker cannot be reached. The job is recorded and begins by itself when it is back.")
        return notes


def submit(
    submission: Submission,
    *,
    database: Engine,
    app: Celery,
    bundle: Bundle,
    on_progress: Callable[[int], None] = lambda images: None,
) -> Intake:
    """Record a job with its images and chunks, and hint each chunk once it is committed.

    Workers begin while intake goes on. When it fails, the job is withdrawn with everything it holds.

    Args:
        submission: what to take in.
        database: from `db.session.open_database`.
        app: the Celery application.
        bundle: that the job is scored under.
        on_progress: called with the number of images recorded so far.

    Returns:
        The job's number and what was found.

    Raises:
        ManifestError: the source cannot be taken in; nothing was recorded.
        BundleError: the bundle does not support the policy; nothing was recorded.
    """
    numbers = bundle.thresholds(submission.policy)
    report = FolderReport()
    # Not resolved: a symbolic link that the operator named stays what it was called.
    source = Path(os.path.abspath(submission.source))  # noqa: PTH100 - `absolute` keeps the dots
    is_folder = source.is_dir()
    if is_folder:
        images: Iterator[NewImage] = walk_folder(source, report)
        root = source
    else:
        root = Path(os.path.abspath(submission.root or source.parent))  # noqa: PTH100
        images = read_manifest(source, root)
    size = submission.chunk_size * _CHUNKS_PER_TRANSACTION
    # The first batch comes before the job, so that a source with nothing in it leaves nothing behind.
    first = list(islice(images, size))
    if not first:
        raise ManifestError(_nothing_found(source, report))

    def begin(connection: Connection) -> int:
        bundle_id = record_bundle(
            connection, sha256=bundle.sha256, name=bundle.manifest.name, version=bundle.manifest.version
        )
        return create_job(
            connection,
            NewJob(
                root=path_to_text(str(root)),
                manifest=None if is_folder else path_to_text(str(source)),
                urgent=submission.urgent,
                force=submission.force,
                bundle_id=bundle_id,
                policy=submission.policy,
                threshold=numbers.threshold,
                borderline_from=numbers.borderline_from,
            ),
        )

    # Once, not `transact`: tried again after a commit whose answer was lost, it would leave an empty job behind.
    with database.begin() as connection:
        job_id = begin(connection)
    intake = Intake(job_id=job_id, folder=report)
    try:
        intake.same_source = read(database, lambda connection: jobs_of_same_source(connection, job_id))
        for batch in _with_first(first, images, size):
            _record(batch, intake, submission, database, app)
            on_progress(intake.images)

        def end(connection: Connection) -> None:
            if not end_submission(connection, intake.job_id):
                return
            detail = {
                "bundle_sha256": bundle.sha256,
                "policy": submission.policy,
                "threshold": numbers.threshold,
                "images": intake.images,
            }
            append_entry(
                connection,
                actor=submission.actor,
                action=AuditAction.SUBMITTED,
                job_id=intake.job_id,
                detail=detail,
            )

        transact(database, end)
    except BaseException:
        transact(database, lambda connection: withdraw_job(connection, intake.job_id))
        raise
    return intake


def _with_first(first: list[NewImage], rest: Iterator[NewImage], size: int) -> Iterator[list[NewImage]]:
    yield first
    while batch := list(islice(rest, size)):
        yield batch


def _record(batch: Sequence[NewImage], intake: Intake, submission: Submission, database: Engine, app: Celery) -> None:
    unique = list({image.path: image for image in reversed(batch)}.values())[::-1]

    def write(connection: Connection) -> tuple[list[int], list[NewImage]]:
        known = known_paths(connection, intake.job_id, [image.path for image in unique])
        new = [image for image in unique if image.path not in known]
        chunks = [new[start : start + submission.chunk_size] for start in range(0, len(new), submission.chunk_size)]
        return [add_chunk(connection, intake.job_id, chunk) for chunk in chunks], new

    chunk_ids, recorded = transact(database, write)
    intake.images += len(recorded)
    intake.repeated += len(batch) - len(recorded)
    intake.not_found += sum(image.size_bytes is None for image in recorded)
    try:
        if intake.hinted:
            send_hints(app, chunk_ids, urgent=submission.urgent)
            return
    except BrokerError:
        # Once is enough: each further attempt would wait for the broker to time out.
        intake.hinted = False
    transact(database, lambda connection: unmark_hinted(connection, chunk_ids))


def _nothing_found(source: Path, report: FolderReport) -> str:
    others = f" (other files: {_by_suffix(report)})" if report.others else ""
    return (
        f"Received: {source}, in which no image was found{others}. Expected: a folder that holds .jpg, .png, .tif, "
        ".bmp or .webp files at any depth, or a CSV manifest with a column 'path' and at least one row."
        + _no_dicom(report)
    )


def _no_dicom(report: FolderReport) -> str:
    return " DICOM is not read by this version." if report.others[".dcm"] else ""


def _by_suffix(report: FolderReport) -> str:
    return ", ".join(f"{count:,} {suffix or 'without suffix'}" for suffix, count in report.others.most_common(8))
