"""From an archive to a job. A folder or a manifest is recorded batch by batch, and never held in memory whole."""

import os
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path, PureWindowsPath

from celery import Celery
from sqlalchemy import Connection, Engine

from db.audit import append_entry
from db.claims import unmark_hinted
from db.deletion import delete_rows
from db.jobs import finish_job_if_done
from db.session import empty_write_ahead_log, read, transact
from db.status import AuditAction
from db.submission import (
    NewImage,
    NewJob,
    OpenSubmission,
    SubmissionLostError,
    add_chunk,
    begin_submission,
    count_recorded,
    end_submission,
    jobs_of_same_source,
    known_paths,
    open_submissions,
    record_bundle,
    record_passed_over,
    release_submission,
    renew_submission,
    take_submission,
    withdraw_job,
)
from worker.errors import BrokerError, ManifestError, SubmissionError, SubmissionInterruptedError
from worker.images.formats import IMAGE_SUFFIXES
from worker.inference.bundle import Bundle
from worker.intake.pseudonyms import pseudonymised
from worker.intake.scan_report import ScanReport
from worker.intake.sources.manifest import ManifestReport
from worker.intake.sources.opened import OpenedSource, open_source
from worker.intake.sources.passed_over import Selection
from worker.queue.hints import send_hints
from worker.scoring.lease_renewal import renewed
from worker.terminal import printable

#: Chunks that are recorded in one transaction.
_CHUNKS_PER_TRANSACTION = 8


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What to submit and how.

    Args:
        source: a folder, a manifest, a ZIP or TAR archive, or an address such as ``s3://bucket/2019``.
        root: folder that the manifest's paths are relative to. Default: the manifest's folder. None for a folder.
        selection: which entries are taken.
        columns: name of a manifest's column by dermq's own name.
        pseudonym_key: key of the hash that replaces patient references. None keeps them.
        policy: triage policy of the bundle.
        urgent: whether workers take it before bulk jobs.
        force: whether files are scored again that were scored earlier with the same bundle.
        actor: who submits, for the audit log.
        name: label of the job.
        hours: hours of the day in which it is scored, such as ``20:00-06:00``. None: always.
        resting: whether it is none of these hours now.
        chunk_size: images in a chunk.
        lease_seconds: seconds after which another submission may resume this one when it was killed.
    """

    source: Path | str
    root: Path | None
    policy: str
    urgent: bool
    chunk_size: int
    force: bool = False
    actor: str = "unknown"
    name: str | None = None
    hours: str | None = None
    resting: bool = False
    lease_seconds: float = 60.0
    selection: Selection = field(default_factory=Selection)
    columns: Mapping[str, str] = field(default_factory=dict)
    pseudonym_key: str | None = field(default=None, repr=False)


@dataclass(kw_only=True)
class SubmissionResult:
    """What a submission found and recorded."""

    job_id: int
    #: Identifies this process, for its lease.
    submitter: str
    #: Whether it resumed an earlier submission whose process died.
    resumed: bool = False
    #: Images or rows of the source so far.
    seen: int = 0
    images: int = 0
    repeated: int = 0
    #: Images of a manifest whose file was not found.
    not_found: int = 0
    #: Path of the first of them.
    first_not_found: str | None = None
    #: Images of a manifest whose path leads out of the root.
    outside_root: int = 0
    #: Folder that a manifest's paths are relative to. None for a folder.
    paths_from: Path | None = None
    #: Earlier jobs of the same source that were not cancelled.
    same_source: list[int] = field(default_factory=list)
    #: False when the broker could not be reached. The sweeper will send the hints.
    hinted: bool = True
    scan: ScanReport = field(default_factory=ScanReport)
    #: What was noticed in a manifest.
    rows: ManifestReport | None = None
    selection: Selection = field(default_factory=Selection)

    def notes(self) -> list[str]:
        """What the submitter should know, one line each."""
        notes = [f"Job {self.job_id}: {self.images:,} image{'s' if self.images != 1 else ''} submitted."]
        if self.resumed:
            notes.append("It resumes an interrupted submission. No image was recorded twice.")
        if self.same_source:
            *first, last = map(str, self.same_source)
            earlier = f"jobs {', '.join(first)} and {last}" if first else f"job {last}"
            notes.append(f"The same source was submitted before, as {earlier}. {self._how_to_undo()}")
        if self.not_found:
            one = self.not_found == 1
            of = f"{self.not_found:,} of {self.images:,} file{'s' if self.images != 1 else ''}"
            from_where = printable(str(self.paths_from))
            notes.append(
                f"WARNING: {of} {'was' if one else 'were'} not found under {from_where}. {self._how_to_find()}. "
                f"{self._how_to_undo()}"
                if self.paths_from
                else f"WARNING: {of} {'is a broken symbolic link' if one else 'are broken symbolic links'}."
            )
        if self.outside_root:
            lead = "leads" if self.outside_root == 1 else "lead"
            notes.append(
                f"WARNING: {self.outside_root:,} of {self.images:,} path{'s' if self.images != 1 else ''} {lead} "
                f"out of {printable(str(self.paths_from))}. Workers read nothing outside. With --root, name a folder "
                f"that holds all images. {self._how_to_undo()}"
            )
        if self.repeated:
            notes.append(f"Skipped, rows that repeat a path: {self.repeated:,}.")
        notes += self.scan.notes()
        if self.rows is not None:
            notes += self.rows.notes()
        notes += self.selection.notes()
        if not self.hinted:
            notes.append(
                "The broker cannot be reached. The job is recorded and starts by itself when the broker is back. On "
                "one machine, run `dermq up`; `dermq check` says more."
            )
        return notes

    def _how_to_find(self) -> str:
        """What to do about paths without a file. The first one is examined but not shown: it may name a patient."""
        first = self.first_not_found or ""
        if PureWindowsPath(first).drive:
            return (
                "Windows drives and shares do not exist here. Write paths relative to a folder, with /, and name "
                "that folder with --root"
            )
        if "\\" in first:
            return "Write / instead of \\ between folders"
        if not first.lower().endswith(tuple(IMAGE_SUFFIXES)):
            return "Write file names with their suffix, such as .jpg, and name the right folder with --root"
        return "Name the right folder with --root"

    def _how_to_undo(self) -> str:
        job = self.job_id
        return f"To remove this job, run `dermq delete {job}`, after `dermq cancel {job}` if it still runs."


def submit(
    submission: Submission,
    *,
    database: Engine,
    app: Celery,
    bundle: Bundle,
    on_progress: Callable[[int], None] = lambda images: None,
    on_recorded: Callable[[int], None] = lambda job_id: None,
) -> SubmissionResult:
    """Record a job with its images and chunks, and send a hint for each chunk once it is committed.

    Workers score while images are still recorded. When this process dies, or the database or the archive fails, the job
    stays, and the same submission resumes it. When the source turns out to be wrong, or the person presses Ctrl-C, the
    job is deleted again, unless a worker has claimed a chunk of it.

    Args:
        submission: what to submit.
        database: from `db.session.open_database`.
        app: the Celery application.
        bundle: to score with.
        on_progress: called with the number of images so far.
        on_recorded: called with the job's id when every image is recorded, before the submission ends. If the process
            dies before that call, the same submission resumes the job.

    Returns:
        The job's id and what was found.

    Raises:
        ManifestError: the source cannot be read. Nothing was recorded.
        BundleError: the bundle has no such policy. Nothing was recorded.
        SubmissionError: another process submits the same source or has resumed this submission, the job was cancelled,
            the archive cannot be read further, or the submission was interrupted after a worker had claimed a chunk.
    """
    numbers = bundle.thresholds(submission.policy)
    source = open_source(submission.source, submission.root, submission.selection, submission.columns)
    if submission.pseudonym_key is not None:
        source = replace(source, images=pseudonymised(source.images, submission.pseudonym_key))
    size = submission.chunk_size * _CHUNKS_PER_TRANSACTION
    # Read the first batch before the job is recorded, so that an empty source leaves nothing behind.
    first = list(islice(source.images, size))
    if not first:
        raise ManifestError(nothing_found(source))

    def describe(connection: Connection) -> NewJob:
        bundle_id = record_bundle(
            connection, sha256=bundle.sha256, name=bundle.manifest.name, version=bundle.manifest.version
        )
        return NewJob(
            root=source.root,
            manifest=source.manifest,
            urgent=submission.urgent,
            force=submission.force,
            name=submission.name,
            submitted_by=submission.actor,
            hours=submission.hours,
            resting=submission.resting,
            bundle_id=bundle_id,
            policy=submission.policy,
            threshold=numbers.threshold,
            borderline_threshold=numbers.borderline_threshold,
        )

    result = _begin_or_resume(transact(database, describe), submission, database)
    result.scan, result.rows, result.paths_from = source.scan, source.rows, source.paths_from
    result.selection = submission.selection
    lease = submission.lease_seconds

    def renew() -> None:
        transact(database, lambda connection: renew_submission(connection, result.job_id, result.submitter, lease))

    def end(connection: Connection) -> None:
        if not end_submission(connection, result.job_id, result.submitter):
            # An earlier attempt at this transaction ended it, and only the reply was lost.
            return
        detail = {
            "bundle_sha256": bundle.sha256,
            "policy": submission.policy,
            "threshold": numbers.threshold,
            "images": result.images,
            "passed_over": source.passed_over(),
        }
        record_passed_over(connection, result.job_id, source.passed_over())
        append_entry(
            connection, actor=submission.actor, action=AuditAction.SUBMITTED, job_id=result.job_id, detail=detail
        )

    try:
        result.same_source = read(database, lambda connection: jobs_of_same_source(connection, result.job_id))
        with renewed(renew, lease_seconds=lease):
            for batch in _with_first(first, source.images, size):
                _record(batch, result, submission, database, app)
                on_progress(result.seen)
            # Check the lease again, or a job that was cancelled meanwhile would be reported as a success.
            renew()
            # Under the lease, and in no transaction that writes: it reads the whole job.
            recorded = read(database, lambda connection: count_recorded(connection, result.job_id))
        result.images, result.not_found = recorded.images, recorded.not_found
        result.outside_root = recorded.outside_root
        on_recorded(result.job_id)
        transact(database, end)
    except SubmissionLostError:
        raise SubmissionError(
            f"Job {result.job_id} was cancelled, or another `dermq submit` resumed it while this one was stopped. "
            f"`dermq status {result.job_id}` says which."
        ) from None
    except OSError as error:
        raise SubmissionError(
            f"The archive cannot be read further: {error.strerror}. {_how_to_resume(result)}"
        ) from error
    except (ManifestError, KeyboardInterrupt) as error:
        # Its frames may hold a cursor, and with it SQLite's write lock, which deleting the job needs.
        interruption = error.with_traceback(None)
        interruption.__context__ = None
    else:
        # Workers that closed the last chunk before the submission ended could not finish the job.
        transact(database, lambda connection: finish_job_if_done(connection, result.job_id))
        result.repeated = max(0, result.seen - result.images)
        return result
    raise _withdraw(interruption, result, submission, database)


def _withdraw(
    interruption: BaseException, result: SubmissionResult, submission: Submission, database: Engine
) -> BaseException:
    """Delete an incomplete job, unless a worker has claimed a chunk of it. Returns the error to raise."""
    if transact(database, lambda c: withdraw_job(c, result.job_id, result.submitter, actor=submission.actor)):
        delete_rows(database, result.job_id)
        # If another connection reads at this moment, the next `delete` or `migrate` empties it.
        empty_write_ahead_log(database)
        return interruption
    # At once, so that `dermq status` says that it was interrupted, and another machine can resume it.
    transact(database, lambda c: release_submission(c, result.job_id, result.submitter))
    if isinstance(interruption, KeyboardInterrupt):
        return SubmissionInterruptedError(f"Interrupted. {_how_to_resume(result)}")
    return SubmissionError(f"{interruption} {_how_to_resume(result)}")


def _how_to_resume(result: SubmissionResult) -> str:
    return (
        f"Job {result.job_id} keeps the images recorded so far. To resume, run the same `dermq submit` again; to give "
        f"it up, `dermq cancel {result.job_id}`."
    )


def _begin_or_resume(job: NewJob, submission: Submission, database: Engine) -> SubmissionResult:
    """Begin a job, or resume one of the same source whose submitter was killed."""
    host, lease = socket.gethostname(), submission.lease_seconds
    submitter = f"{host}:{os.getpid()}:{uuid.uuid4().hex[:12]}"

    def begin(connection: Connection) -> SubmissionResult:
        for found in open_submissions(connection, job):
            mine = found.submitter == submitter
            if not mine and not found.expired and not _died_here(found, host):
                raise SubmissionError(
                    f"Process {_process(found)} is submitting the same source as job {found.job_id}. Wait for it, or "
                    f"run `dermq cancel {found.job_id}`. If that process is dead, "
                    f"submit again in {lease:.0f} s to resume the job."
                )
            if not mine and take_submission(connection, found, submitter, lease):
                return SubmissionResult(job_id=found.job_id, submitter=submitter, resumed=True)
        return SubmissionResult(job_id=begin_submission(connection, job, submitter, lease), submitter=submitter)

    return transact(database, begin)


def _process(found: OpenSubmission) -> str:
    """Process id and host of a submitter, for a person."""
    host, number, _ = (found.submitter or "?:?:?").rsplit(":", 2)
    return f"{number} on {host}"


def _died_here(found: OpenSubmission, host: str) -> bool:
    """Whether the submitter ran on this host and is dead, so that there is no need to wait for its lease."""
    if found.submitter is None:
        return True
    its_host, number, _ = found.submitter.rsplit(":", 2)
    if its_host != host:
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _with_first(first: list[NewImage], rest: Iterator[NewImage], size: int) -> Iterator[list[NewImage]]:
    yield first
    while batch := list(islice(rest, size)):
        yield batch


def _record(
    batch: Sequence[NewImage], result: SubmissionResult, submission: Submission, database: Engine, app: Celery
) -> None:
    unique = list({image.path: image for image in reversed(batch)}.values())[::-1]

    def write(connection: Connection) -> list[int]:
        renew_submission(connection, result.job_id, result.submitter, submission.lease_seconds)
        known = known_paths(connection, result.job_id, [image.path for image in unique])
        new = [image for image in unique if image.path not in known]
        chunks = [new[start : start + submission.chunk_size] for start in range(0, len(new), submission.chunk_size)]
        return [add_chunk(connection, result.job_id, chunk) for chunk in chunks]

    chunk_ids = transact(database, write)
    result.seen += len(batch)
    if result.first_not_found is None:
        missing = (image.path for image in unique if image.size_bytes is None)
        # Paths that lead out of the root were not looked for.
        result.first_not_found = next((path for path in missing if not path.startswith(("/", "../"))), None)
    try:
        if result.hinted and not submission.resting:
            if chunk_ids:
                send_hints(app, dict.fromkeys(chunk_ids, result.job_id), urgent=submission.urgent)
            return
    except BrokerError:
        # Do not try again for the next batch: each attempt would wait for a timeout.
        result.hinted = False
    transact(database, lambda connection: unmark_hinted(connection, chunk_ids))


def nothing_found(source: OpenedSource) -> str:
    """What to say of a source without an image: what was passed over."""
    notes = [*source.scan.notes(), *(source.rows.notes() if source.rows else [])]
    return " ".join([source.nothing, *notes])
