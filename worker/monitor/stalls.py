"""Why a job does not progress, and what to do: one diagnosis for every command and page."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from sqlalchemy import Connection

from db.jobs import JobView
from db.progress import HeldChunk, held_chunks
from db.status import JobStatus
from worker.inference.bundle_reference import BundleReference, configured_bundle, running_bundle
from worker.settings import load_settings
from worker.terminal import printable

#: Jobs that are named.
_NAMED = 5
#: States that a job does not leave by itself.
STOPPED = (JobStatus.FINISHED, JobStatus.CANCELLED, JobStatus.PAUSED, JobStatus.DELETING)


class StallKind(StrEnum):
    """What holds a job up."""

    SUBMITTING = "submitting"
    WAITS_ITS_TURN = "waits_its_turn"
    RESTING = "resting"
    INTERRUPTED = "interrupted"
    DELETING = "deleting"
    NO_WORKER = "no_worker"
    WRONG_BUNDLE = "wrong_bundle"
    SILENT = "silent"
    LEASE_EXPIRED = "lease_expired"


#: Kinds that somebody waits for on purpose.
EXPECTED = (StallKind.SUBMITTING, StallKind.WAITS_ITS_TURN, StallKind.RESTING, StallKind.DELETING)


@dataclass(frozen=True, kw_only=True)
class Stall:
    """Why a job does not progress, with the next step as a sentence."""

    kind: StallKind
    text: str


def diagnose(connection: Connection, jobs: Sequence[JobView]) -> dict[int, Stall]:
    """The stalled jobs among these, in one query for all of them.

    Args:
        connection: to the database.
        jobs: any jobs.

    Returns:
        By job id. A job that progresses, or has stopped, is not in it.
    """
    settings = load_settings()
    at_rest = all(job.status in STOPPED for job in jobs)
    situation = _Situation(
        held=[] if at_rest else held_chunks(connection),
        # Once: it reads and hashes a file.
        here=None if at_rest else running_bundle(settings) or configured_bundle(settings),
        stall_seconds=settings.stall_seconds,
    )
    found = ((job.id, _diagnose(job, situation)) for job in jobs)
    return {job_id: stall for job_id, stall in found if stall is not None}


@dataclass(kw_only=True)
class _Situation:
    """What is the same for all jobs: the chunks that workers have, and the bundle of this place."""

    held: Sequence[HeldChunk]
    here: BundleReference | None
    stall_seconds: float

    def progresses(self, chunk: HeldChunk) -> bool:
        return chunk.lease_seconds_left >= 0 and chunk.silent_seconds < self.stall_seconds

    @cached_property
    def by_bundle(self) -> dict[int, dict[bool, set[int]]]:
        """By bundle, the jobs of which a worker has a chunk: those that progress, and those that are held up."""
        found: dict[int, dict[bool, set[int]]] = {}
        for chunk in self.held:
            if chunk.lease_seconds_left >= 0:
                jobs = found.setdefault(chunk.bundle_id, {True: set(), False: set()})
                jobs[self.progresses(chunk)].add(chunk.job_id)
        return found

    @cached_property
    def by_job(self) -> dict[int, list[HeldChunk]]:
        """The held chunks of each job."""
        found: dict[int, list[HeldChunk]] = {}
        for chunk in self.held:
            found.setdefault(chunk.job_id, []).append(chunk)
        return found


def _diagnose(job: JobView, situation: _Situation) -> Stall | None:
    if job.interrupted:
        source = printable(job.manifest or job.root)
        return Stall(
            kind=StallKind.INTERRUPTED,
            text=f"Its submission was interrupted. To resume, run `dermq submit {source}` with the same options; to "
            f"give it up, `dermq cancel {job.id}`.",
        )
    if job.status is JobStatus.SUBMITTING:
        return Stall(kind=StallKind.SUBMITTING, text="Its images are still being submitted.")
    if job.status is JobStatus.DELETING:
        return Stall(
            kind=StallKind.DELETING,
            text=f"It is being deleted. If no `dermq delete` runs any more, run `dermq delete {job.id}` to finish it.",
        )
    if job.status in STOPPED:
        return None
    if job.resting:
        return Stall(kind=StallKind.RESTING, text=f"It rests now. {_hours(job.hours or '')}")
    held = situation.by_job.get(job.id, [])
    if live := [chunk for chunk in held if chunk.lease_seconds_left >= 0]:
        # One that progresses is enough: the others may be at a large image.
        if any(situation.progresses(chunk) for chunk in live):
            return None
        return Stall(kind=StallKind.SILENT, text=_silent(max(live, key=lambda chunk: chunk.silent_seconds)))
    others = situation.by_bundle.get(job.bundle_id, {})
    for progress, what in ((True, "workers are scoring"), (False, "workers are held up by")):
        if jobs := others.get(progress):
            named = ", ".join(map(str, sorted(jobs)[:_NAMED]))
            which = "job" if len(jobs) == 1 else "jobs"
            return Stall(kind=StallKind.WAITS_ITS_TURN, text=f"It waits for its turn: {what} {which} {named}.")
    here = situation.here
    if here is not None and here.sha256 != job.bundle_sha256:
        needed = printable(f"{job.bundle_name} {job.bundle_version} ({job.bundle_sha256[:12]})")
        return Stall(
            kind=StallKind.WRONG_BUNDLE,
            text=f"No worker is scoring it. It needs the bundle {needed}, but the one here is {here}. Start a worker "
            f"with the job's bundle (DERMQ_BUNDLE), or run `dermq cancel {job.id}` and submit again.",
        )
    # Of this job, or of another one that its workers are at.
    if expired := held or [chunk for chunk in situation.held if chunk.bundle_id == job.bundle_id]:
        chunk = min(expired, key=lambda each: each.lease_seconds_left)
        return Stall(kind=StallKind.LEASE_EXPIRED, text=_expired(chunk))
    return Stall(
        kind=StallKind.NO_WORKER,
        text="No worker is scoring it: none runs, or the broker does not answer. Run `dermq check` for the cause.",
    )


def _hours(hours: str) -> str:
    begin, _, end = hours.partition("-")
    zone = load_settings().time_zone
    return f"It is scored from {begin} to {end}{f' ({zone})' if zone else ''}."


def _silent(chunk: HeldChunk) -> str:
    return (
        f"No outcome was written for {_seconds(chunk.silent_seconds)}. The worker {_who(chunk)} has chunk "
        f"{chunk.chunk_id} and renews its lease, but is at one batch all the time: a share that hangs or is very slow, "
        "or a huge image. Check the share; the worker gives the chunk up by itself at DERMQ_CHUNK_TIME_LIMIT."
    )


def _expired(chunk: HeldChunk) -> str:
    return (
        f"Nothing is scored. The worker {_who(chunk)} has chunk {chunk.chunk_id}, and its lease ended "
        f"{_seconds(-chunk.lease_seconds_left)} ago: the process is frozen or dead, and no other took over. Restart "
        "that worker, or start another one; nothing is lost."
    )


def _who(chunk: HeldChunk) -> str:
    """Host and process of a worker."""
    host, _, rest = printable(chunk.owner).partition(":")
    return f"on {host}, process {rest.partition(':')[0]}," if rest else host


def _seconds(value: float) -> str:
    if value < 1.5:
        return "1 second"
    return f"{value:.0f} seconds" if value < 120 else f"{value / 60:.0f} minutes"
