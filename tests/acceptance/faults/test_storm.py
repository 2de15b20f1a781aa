"""A storm of random kills over everything but the database, and submitters that are killed at chosen moments."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import func, select

from db.models import Image, Job
from db.status import FailureCode, JobStatus
from tests.acceptance.conftest import RunningSystem, processes_of, running_system, until
from tests.acceptance.faults.conftest import IMAGES, Undisturbed
from tests.acceptance.faults.processes import FaultSystem, with_faults
from tests.acceptance.faults.reconcile import System, check_counts, ended, failures, job_status, rows

SECONDS = float(os.environ.get("DERMQ_FAULT_STORM_SECONDS", "60"))
#: Whom lightning strikes, and how often relative to the others: a worker and the sweeper are back only after a delay.
VICTIMS = {"child": 6, "submitter": 2, "worker": 1, "sweeper": 1}
#: Seconds from one kill to the next, at least and at most.
PAUSES = (0.3, 1.5)
#: Chunks so small that a submission takes several transactions, of eight chunks each.
SMALL_CHUNKS = {"DERMQ_CHUNK_SIZE": "4"}
#: Seconds that a storm may last longer.
_PATIENCE = 120.0
#: Images that wait when the next job is submitted: the storm must not find the system at rest.
LOW = 200


def _jobs(system: System) -> list[int]:
    return [number for (number,) in rows(system, select(Job.id).order_by(Job.id))]


def _submitted(system: System) -> int:
    return int(rows(system, select(func.count()).select_from(Image))[0][0])


class _Submitter:
    """Submits the same folder again and again, as an operator would whose `dermq submit` is killed again and again."""

    def __init__(self, system: RunningSystem, folder: Path) -> None:
        self._system, self._folder = system, folder
        self._process: subprocess.Popen[str] | None = None
        self._interrupted: int | None = None
        self.jobs: list[int] = []

    @property
    def pid(self) -> int | None:
        """Its process, if one is at work."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def look_after(self, *, more: bool = True) -> None:
        """See what became of the last submission; begin or repeat one, unless there is enough to do."""
        if self.pid is not None:
            return
        if self._process is not None:
            self._note(*self._process.communicate())
            self._process = None
        if self._interrupted is not None or (more and _submitted(self._system) - ended(self._system) < LOW):
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "worker.cli", "submit", str(self._folder), "--force"],
                env={**self._system.environment, "FAULT_SECONDS_PER_SENDING": "0.3"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

    def _note(self, output: str, errors: str) -> None:
        assert self._process is not None
        if self._process.returncode == 0:
            job = int(output)
            assert self._interrupted in (None, job), "the submission was not resumed"
            assert job not in self.jobs
            self._interrupted = None
            self.jobs.append(job)
            return
        assert self._process.returncode == -9, errors
        new = [job for job in _jobs(self._system) if job not in self.jobs]
        assert len(new) <= 1, "one submission has made two jobs"
        self._interrupted = new[0] if new else None
        if new and job_status(self._system, new[0]) is not JobStatus.SUBMITTING:
            # Killed when all was recorded: then it has told the number, and nobody submits again.
            assert output.strip() == str(new[0]), "a job was ended whose number was never told"
            self._interrupted = None
            self.jobs += new

    def finish(self) -> None:
        """Bring the last submission to its end."""

        def over() -> bool:
            self.look_after(more=False)
            return self._process is None

        until(over, "the last submission has ended")

    def close(self) -> None:
        """Leave nothing behind."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


@contextmanager
def _seeded(capsys: pytest.CaptureFixture[str]) -> Iterator[Random]:
    """A source of chance whose seed is printed, and told with the failure if there is one."""
    seed = int(os.environ.get("DERMQ_FAULT_SEED") or secrets.randbelow(1_000_000))
    with capsys.disabled():
        print(f"\nDERMQ_FAULT_SEED={seed}")
    try:
        yield Random(seed)
    except BaseException as error:
        error.add_note(f"The same storm again: DERMQ_FAULT_SEED={seed}")
        raise


def _alive(system: RunningSystem, submitter: _Submitter) -> dict[str, list[int]]:
    """Whom a kill can strike at this moment."""
    found = sorted(processes_of(system.home).items())
    leaders = {pid: _leader(pid) for pid, command in found if "worker.cli worker" in command}
    children = [pid for pid, leader in leaders.items() if leader not in (None, pid)]
    kinds = {
        # One that has forked its children: where a start takes seconds, and the next one waits for up to half a minute,
        # a storm that strikes at starts as well keeps every child from being born.
        "worker": [pid for pid in leaders if pid in {leaders[child] for child in children}],
        "child": children,
        "sweeper": [pid for pid, command in found if "worker.cli sweep" in command],
        "submitter": [submitter.pid] if submitter.pid is not None else [],
    }
    return {kind: pids for kind, pids in kinds.items() if pids}


def _leader(pid: int) -> int | None:
    """The first process of its group, which is itself for a worker's main one, or None where it is gone."""
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


@pytest.mark.fault(3)
@pytest.mark.timeout(SECONDS + 600)
@pytest.mark.databases("sqlite", "postgresql")
def test_a_storm_of_kills(
    database_url: str, undisturbed: Undisturbed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards everything at once: leases, sweep, supervision, and submissions that are resumed."""
    kills: Counter[str] = Counter()
    settings = {"DERMQ_DATABASE_URL": database_url, **SMALL_CHUNKS, **with_faults()}
    with _seeded(capsys) as random, running_system(tmp_path / "home", **settings) as system:
        submitter = _Submitter(system, undisturbed.folder)
        try:
            over, strike = time.monotonic() + SECONDS, time.monotonic() + 2
            # On a busy machine a minute may hold few strikes: it goes on until workers and their children had one.
            while time.monotonic() < over or (not _struck(kills) and time.monotonic() < over + _PATIENCE):
                submitter.look_after()
                time.sleep(0.05)
                if time.monotonic() < strike:
                    continue
                strike = time.monotonic() + random.uniform(*PAUSES)
                if alive := _alive(system, submitter):
                    victim = random.choices(list(alive), [VICTIMS[kind] for kind in alive])[0]
                    _kill(random.choice(alive[victim]))
                    kills[victim] += 1
            assert ended(system) < _submitted(system) or submitter.pid, "there was nothing left to do before the end"
            submitter.finish()
            with capsys.disabled():
                print(f"killed: {dict(kills)}; jobs: {len(submitter.jobs)}")
            assert _struck(kills), "the storm spared the workers: it proves nothing"
            _close(system, submitter.jobs, undisturbed, deaths=kills["child"] + 2 * kills["worker"])
        finally:
            submitter.close()


def _struck(kills: Counter[str]) -> bool:
    """Whether the storm has hit what it is about: a worker, and a child of one."""
    return {"child", "worker"} <= set(kills)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        return


def _close(system: RunningSystem, jobs: list[int], undisturbed: Undisturbed, *, deaths: int) -> None:
    assert _jobs(system) == sorted(jobs)
    given_up = 0
    for job in jobs:
        until(lambda job=job: job_status(system, job) is JobStatus.FINISHED, f"job {job} is finished")  # type: ignore[misc]
        # In a storm like this lightning strikes twice: an image in hand at two deaths is suspected, told by its code.
        suspected = failures(system, job)
        assert set(suspected.values()) <= {FailureCode.CRASHED_WORKER}
        if suspected:
            given_up += len(suspected)
            system.dermq("retry", str(job), "--failed", "--code", FailureCode.CRASHED_WORKER)
        check_counts(system, job, undisturbed.expected)
        assert system.dermq("audit", "list", str(job)).stdout.count("  submitted, ") == 1
    # The first death costs an attempt, and after it two cost an image.
    assert not given_up or given_up * 2 < deaths


@pytest.mark.fault(3)
@pytest.mark.databases("sqlite", "postgresql")
def test_a_submitter_is_killed_and_started_again(system: FaultSystem, undisturbed: Undisturbed) -> None:
    """Guards that a submission is resumed: killed with the first rows recorded, later, and with the last.

    Later as a stopped container and a closed terminal would end it: the job is not withdrawn then, as on Ctrl-C.
    """
    system.environment.update(SMALL_CHUNKS)
    system.worker(FAULT_SECONDS_PER_IMAGE="0")
    system.sweeper()
    ends = {1: signal.SIGKILL, IMAGES // 3: signal.SIGTERM, IMAGES // 2: signal.SIGHUP, IMAGES: signal.SIGKILL}
    for point, number in ends.items():
        submitter = system.submitter(undisturbed.folder, FAULT_SECONDS_PER_SENDING="1")
        until(lambda point=point: _submitted(system) >= point, f"{point} images are recorded")  # type: ignore[misc]
        submitter.process.send_signal(number)
        submitter.process.wait(30)
        (job,) = _jobs(system)
        assert job_status(system, job) is JobStatus.SUBMITTING, "it was killed too late: the test proves nothing"
    assert submitter.log().count("Run the same `dermq submit` again") == 2
    until(lambda: ended(system) == IMAGES, "every image has ended")
    assert job_status(system, job) is JobStatus.SUBMITTING
    again = system.dermq("submit", undisturbed.folder)
    assert int(again.stdout) == job
    assert "resumes an interrupted submission" in again.stderr
    check_counts(system, job, undisturbed.expected)
    assert _jobs(system) == [job]
    assert system.dermq("audit", "list", str(job)).stdout.count("  submitted, ") == 1
