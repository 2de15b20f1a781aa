"""From an archive to a job: a folder or a CSV manifest, taken in by batches that never hold it whole."""

import os
import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PureWindowsPath

from celery import Celery
from sqlalchemy import Connection, Engine

from db.audit import append_entry
from db.claims import unmark_hinted
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
    renew_submission,
    take_submission,
    withdraw_job,
)
from worker.errors import BrokerError, ManifestError, SubmissionError, SubmissionInterruptedError
from worker.images.formats import IMAGE_SUFFIXES
from worker.images.read import path_to_text
from worker.inference.bundle import Bundle
from worker.intake.scan_report import FolderReport
from worker.intake.sources.folder import walk_folder
from worker.intake.sources.manifest import read_manifest
from worker.queue.hints import send_hints
from worker.scoring.lease_renewal import renewed
from worker.terminal import printable

#: Chunks recorded in one transaction.
_CHUNKS_PER_TRANSACTION = 8


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What to submit and how.

    Args:
        source: a folder, or a CSV manifest.
        root: folder that the manifest's paths are relative to; default: the manifest's own. None for a folder.
        policy: triage policy, one of the bundle's.
        urgent: whether it goes before bulk work.
        force: whether images are scored that were scored before under this bundle.
        actor: who submits, for the audit log.
        chunk_size: images in a chunk.
        lease_seconds: after which another intake may go on with the job when this one was killed.
    """

    source: Path
    root: Path | None
    policy: str
    urgent: bool
    chunk_size: int
    force: bool = False
    actor: str = "unknown"
    lease_seconds: float = 60.0


@dataclass(kw_only=True)
class Intake:
    """What came of a submission."""

    job_id: int
    #: Who takes it in, for its lease.
    submitter: str
    #: Whether an earlier submission, whose process died, was gone on with.
    continued: bool = False
    #: Images or rows of the source that were looked at so far.
    seen: int = 0
    images: int = 0
    repeated: int = 0
    #: Images of a manifest whose file could not be found.
    not_found: int = 0
    #: Path of the first of them.
    first_not_found: str | None = None
    #: Images of a manifest whose path leads out of that folder.
    outside_root: int = 0
    #: Folder that a manifest's paths are relative to; None for a folder.
    paths_from: Path | None = None
    #: Earlier jobs of the same source that have not been cancelled.
    same_source: list[int] = field(default_factory=list)
    #: False when the broker could not be reached, so that the sweeper will send the hints.
    hinted: bool = True
    folder: FolderReport = field(default_factory=FolderReport)

    def notes(self) -> list[str]:
        """What the submitter should know, a line each."""
        notes = [f"Job {self.job_id}: {self.images:,} image{'s' if self.images != 1 else ''} submitted."]
        if self.continued:
            notes.append("Its submission had been broken off and was gone on with; nothing was taken in twice.")
        if self.same_source:
            *first, last = map(str, self.same_source)
            earlier = f"jobs {', '.join(first)} and {last}" if first else f"job {last}"
            notes.append(f"The same source was submitted before, as {earlier}. {self._takes_back()}")
        if self.not_found:
            one = self.not_found == 1
            of = f"{self.not_found:,} of {self.images:,} file{'s' if self.images != 1 else ''}"
            from_where = printable(str(self.paths_from))
            notes.append(
                f"WARNING: {of} {'is' if one else 'are'} not there under {from_where}, from where paths are read; "
                f"{self._way_to_find()}. {self._takes_back()}"
                if self.paths_from
                else f"WARNING: {of} {'is a link' if one else 'are links'} to nothing."
            )
        if self.outside_root:
            lead = "leads" if self.outside_root == 1 else "lead"
            notes.append(
                f"WARNING: {self.outside_root:,} of {self.images:,} path{'s' if self.images != 1 else ''} {lead} "
                f"out of {printable(str(self.paths_from))}, and a worker reads nothing outside; name a folder that "
                f"holds them all with --root. {self._takes_back()}"
            )
        if self.repeated:
            notes.append(f"Rows that repeated a path and were left out, the first one counts: {self.repeated:,}.")
        notes += self.folder.notes()
        if not self.hinted:
            notes.append(
                "The broker cannot be reached. The job is recorded and begins by itself when it is back: on one "
                "machine with `dermq up`; `dermq check` says more."
            )
        return notes

    def _way_to_find(self) -> str:
        """What to do about paths without a file. The first is judged and not shown, for it may name a patient."""
        first = self.first_not_found or ""
        if PureWindowsPath(first).drive:
            return (
                "a drive or share of Windows means nothing here: write paths from a folder on, with /, and name that "
                "folder with --root"
            )
        if "\\" in first:
            return "write / in place of \\ between folders"
        if not first.lower().endswith(tuple(IMAGE_SUFFIXES)):
            return "write the names of files with their endings, such as .jpg, and name another folder with --root"
        return "name another folder with --root"

    def _takes_back(self) -> str:
        return f"`dermq delete {self.job_id}` takes this job back, after `dermq cancel {self.job_id}` if it still runs."


def submit(
    submission: Submission,
    *,
    database: Engine,
    app: Celery,
    bundle: Bundle,
    on_progress: Callable[[int], None] = lambda images: None,
    on_recorded: Callable[[int], None] = lambda job_id: None,
) -> Intake:
    """Record a job with its images and chunks, and hint each chunk once it is committed.

    Workers begin while intake goes on. When the process dies or is told to end, or when the database or the archive
    fails, the job stays and the same submission again goes on with it. When the source turns out to be wrong, or the
    person presses Ctrl-C, the job is withdrawn with everything it holds, unless a worker has begun with it.

    Args:
        submission: what to take in.
        database: from `db.session.open_database`.
        app: the Celery application.
        bundle: that the job is scored under.
        on_progress: called with the number of images seen so far.
        on_recorded: called with the job's number when all is recorded and before the submission is ended. Whoever has
            not been told the number when this process dies finds a job that the same submission goes on with.

    Returns:
        The job's number and what was found.

    Raises:
        ManifestError: the source cannot be taken in; nothing was recorded.
        BundleError: the bundle does not support the policy; nothing was recorded.
        SubmissionError: another process takes the same source in, or took this one over, the job was cancelled, the
            archive cannot be read further, or it was broken off when work on it had begun.
    """
    numbers = bundle.thresholds(submission.policy)
    report = FolderReport()
    # Not resolved: a symbolic link that the operator named stays what it was called.
    source = Path(os.path.abspath(submission.source))  # noqa: PTH100 - `absolute` keeps the dots
    is_folder = source.is_dir()
    if is_folder:
        if submission.root is not None:
            raise ManifestError(
                f"Received: --root {submission.root} with the folder {source}. Expected: --root with a CSV manifest "
                "alone; the paths of a folder are relative to that folder."
            )
        images: Iterator[NewImage] = walk_folder(source, report)
        root = source
    else:
        root = Path(os.path.abspath(submission.root or source.parent))  # noqa: PTH100
        images = read_manifest(source, root)
    size = submission.chunk_size * _CHUNKS_PER_TRANSACTION
    # The first batch comes before the job, so that a source with nothing in it leaves nothing behind.
    first = list(islice(images, size))
    if not first:
        raise ManifestError(
            _nothing_found(source, report)
            if is_folder
            else f"Received: {source}, a header without rows. Expected: a row for each image."
        )

    def describe(connection: Connection) -> NewJob:
        bundle_id = record_bundle(
            connection, sha256=bundle.sha256, name=bundle.manifest.name, version=bundle.manifest.version
        )
        return NewJob(
            root=path_to_text(str(root)),
            manifest=None if is_folder else path_to_text(str(source)),
            urgent=submission.urgent,
            force=submission.force,
            bundle_id=bundle_id,
            policy=submission.policy,
            threshold=numbers.threshold,
            borderline_from=numbers.borderline_from,
        )

    intake = _begin_or_continue(transact(database, describe), submission, database)
    intake.folder, intake.paths_from = report, None if is_folder else root
    lease = submission.lease_seconds

    def renew() -> None:
        transact(database, lambda connection: renew_submission(connection, intake.job_id, intake.submitter, lease))

    def end(connection: Connection) -> None:
        recorded = count_recorded(connection, intake.job_id)
        intake.images, intake.not_found = recorded.images, recorded.not_found
        intake.outside_root = recorded.outside_root
        if not end_submission(connection, intake.job_id, intake.submitter):
            # An earlier attempt at this transaction, the answer to whose commit was lost.
            return
        detail = {
            "bundle_sha256": bundle.sha256,
            "policy": submission.policy,
            "threshold": numbers.threshold,
            "images": recorded.images,
        }
        append_entry(
            connection, actor=submission.actor, action=AuditAction.SUBMITTED, job_id=intake.job_id, detail=detail
        )

    try:
        intake.same_source = read(database, lambda connection: jobs_of_same_source(connection, intake.job_id))
        with renewed(renew, lease_seconds=lease):
            for batch in _with_first(first, images, size):
                _record(batch, intake, submission, database, app)
                on_progress(intake.seen)
            # Proves the lease once more, or a job that was cancelled meanwhile would look like a success.
            renew()
        on_recorded(intake.job_id)
        transact(database, end)
    except SubmissionLostError:
        raise SubmissionError(
            f"Job {intake.job_id} was cancelled, or another `dermq submit` has gone on with it while this one stood "
            f"still. `dermq status {intake.job_id}` says which."
        ) from None
    except OSError as error:
        raise SubmissionError(f"The archive cannot be read further: {error.strerror}. {_stays(intake)}") from error
    except (ManifestError, KeyboardInterrupt) as error:
        # Its frames hold the cursor that Ctrl-C struck in, and with it SQLite's write lock, which the withdrawal needs.
        broken = error.with_traceback(None)
        broken.__context__ = None
    else:
        # Workers that closed the last chunk before the submission ended have left the job to this question.
        transact(database, lambda connection: finish_job_if_done(connection, intake.job_id))
        intake.repeated = max(0, intake.seen - intake.images)
        return intake
    raise _broken_off(broken, intake, submission, database)


def _broken_off(broken: BaseException, intake: Intake, submission: Submission, database: Engine) -> BaseException:
    """Withdraw a job that was not taken in whole, unless somebody has begun with it, and tell what is to be raised."""
    if transact(database, lambda c: withdraw_job(c, intake.job_id, intake.submitter, actor=submission.actor)):
        # If somebody reads just now, the next delete or migration does it.
        empty_write_ahead_log(database)
        return broken
    if isinstance(broken, KeyboardInterrupt):
        return SubmissionInterruptedError(f"Interrupted. {_stays(intake)}")
    return SubmissionError(f"{broken} {_stays(intake)}")


def _stays(intake: Intake) -> str:
    return (
        f"Job {intake.job_id} stays with what was taken in: the same `dermq submit` again goes on with it, "
        f"`dermq cancel {intake.job_id}` gives it up."
    )


def _begin_or_continue(job: NewJob, submission: Submission, database: Engine) -> Intake:
    """A new job; or the one that an intake of the same source left unfinished when it was killed."""
    host, lease = socket.gethostname(), submission.lease_seconds
    submitter = f"{host}:{os.getpid()}:{uuid.uuid4().hex[:12]}"

    def begin(connection: Connection) -> Intake:
        for found in open_submissions(connection, job):
            mine = found.submitter == submitter
            if not mine and not found.expired and not _died_here(found, host):
                raise SubmissionError(
                    f"Job {found.job_id} is just taking in the same source, under the same policy, in process "
                    f"{_process(found)}. Wait for it, or cancel it with `dermq cancel {found.job_id}`. If that process "
                    f"is dead, submit again in {lease:.0f} s: the job is then gone on with."
                )
            if not mine and take_submission(connection, found, submitter, lease):
                return Intake(job_id=found.job_id, submitter=submitter, continued=True)
        return Intake(job_id=begin_submission(connection, job, submitter, lease), submitter=submitter)

    return transact(database, begin)


def _process(found: OpenSubmission) -> str:
    """Process number and host of a submitter, for a person."""
    host, number, _ = (found.submitter or "?:?:?").rsplit(":", 2)
    return f"{number} on {host}"


def _died_here(found: OpenSubmission, host: str) -> bool:
    """Whether the submitter ran on this host and is no more, so that nobody need wait for its lease to run out."""
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


def _record(batch: Sequence[NewImage], intake: Intake, submission: Submission, database: Engine, app: Celery) -> None:
    unique = list({image.path: image for image in reversed(batch)}.values())[::-1]

    def write(connection: Connection) -> list[int]:
        renew_submission(connection, intake.job_id, intake.submitter, submission.lease_seconds)
        known = known_paths(connection, intake.job_id, [image.path for image in unique])
        new = [image for image in unique if image.path not in known]
        chunks = [new[start : start + submission.chunk_size] for start in range(0, len(new), submission.chunk_size)]
        return [add_chunk(connection, intake.job_id, chunk) for chunk in chunks]

    chunk_ids = transact(database, write)
    intake.seen += len(batch)
    if intake.first_not_found is None:
        missing = (image.path for image in unique if image.size_bytes is None)
        # Of paths that lead out no file was looked for.
        intake.first_not_found = next((path for path in missing if not path.startswith(("/", "../"))), None)
    try:
        if intake.hinted:
            if chunk_ids:
                send_hints(app, chunk_ids, urgent=submission.urgent)
            return
    except BrokerError:
        # Once is enough: each further attempt would wait for the broker to time out.
        intake.hinted = False
    transact(database, lambda connection: unmark_hinted(connection, chunk_ids))


def _nothing_found(source: Path, report: FolderReport) -> str:
    passed_over = " ".join(report.notes())
    return (
        f"Received: {source}, in which no image was found. Expected: a folder that holds .jpg, .png, .tif, .bmp or "
        ".webp files at any depth, or a CSV manifest." + (f" {passed_over}" if passed_over else "")
    )
