"""One chunk: claim, read, score, write, close."""

import os
import socket
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from billiard.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from db.claims import (
    ChunkJob,
    Claim,
    LeaseLostError,
    WaitingImage,
    close_chunk,
    job_of_claim,
    mark_isolation_start,
    release_chunk,
    renew_lease,
    waiting_images,
    withdraw_isolation_start,
    withdraw_uncertain_start,
)
from db.jobs import finish_job_if_done
from db.outcomes import Failed, Outcome, Scored, StoredInference, Ungradable, write_outcomes
from db.session import read, transact
from db.status import FailureCode, ImageStatus
from db.totals import settle_if_done
from db.turns import bundle_for_hint, take_turn
from worker.database_wait import DATABASE_UNAVAILABLE, retry_until_available
from worker.log_throttle import LogThrottle
from worker.logging import get_logger
from worker.scoring.ahead import one_ahead
from worker.scoring.batch import PreparedBatch, infer_batch, prepare_images, score_images
from worker.scoring.lease_renewal import renewed
from worker.scoring.loaded_model import LoadedModel
from worker.settings import hard_time_limit

log = get_logger(__name__)

#: Bytes of image files that a process holds at a time, by their sizes at submission.
_BATCH_BYTES = 64 * 1024 * 1024
#: Crashes in isolation mode after which an image fails.
MAX_CRASHES = 2
#: How often a turn is tried while chunks wait, and seconds between.
_TURNS, _TURN_PAUSE = 4, 0.05


@dataclass(frozen=True, kw_only=True)
class ChunkLimits:
    """Images in a transaction, seconds of a lease, seconds for a chunk, and bytes of a file."""

    batch_size: int
    lease_seconds: float
    time_limit: float
    max_file_bytes: int


class _StoppingError(Exception):
    """The worker was asked to stop."""


def score_chunk(
    hinted: int,
    *,
    database: Engine,
    model_for: Callable[[str], LoadedModel],
    limits: ChunkLimits,
    stopping: Callable[[], bool] = lambda: False,
    throttle: LogThrottle | None = None,
    on_result: Callable[["ChunkResult"], None] = lambda result: None,
) -> "ChunkResult | None":
    """Give every image of a chunk its outcome. Wait for the database while it is unavailable.

    Args:
        hinted: the chunk that a hint names. Another one is scored if it is the turn of another job.
        database: from `db.session.open_database`.
        model_for: returns the loaded model for a bundle's SHA-256.
        limits: of this worker.
        stopping: asked between batches. When true, the chunk is released.
        throttle: for log lines about the database, shared by the processes of a worker.
        on_result: called with what an attempt did, however it ended.

    Returns:
        What this attempt did. None when no chunk was claimed, or it was released.

    Raises:
        BundleError: this worker has another bundle than the job. The chunk is left alone.
        EngineError: the engine cannot be loaded. The chunk is left alone.
    """
    throttle = throttle or LogThrottle()
    bundle = retry_until_available(
        lambda: read(database, lambda connection: bundle_for_hint(connection, hinted)), throttle, stopping
    )
    if bundle is None:
        return None
    # Before the claim: a worker that cannot score must neither hold a chunk nor count as an attempt.
    model = model_for(bundle)
    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"

    def take(connection: Connection) -> tuple[Claim, ChunkJob] | None:
        claim = take_turn(connection, hinted, owner, limits.lease_seconds)
        return None if claim is None else (claim, job_of_claim(connection, claim))

    for _ in range(_TURNS):
        if (taken := transact(database, take)) is not None:
            break
        # Others may have held the last chunks for a moment. Without another look this message would be lost.
        if read(database, lambda connection: bundle_for_hint(connection, hinted)) != bundle:
            return None
        time.sleep(_TURN_PAUSE)
    if taken is None:
        return None
    claim, job = taken
    chunk_id = claim.chunk_id
    log.info("chunk claimed", chunk=chunk_id, job=job.job_id, attempt=claim.attempt)
    attempt = _Attempt(
        claim=claim,
        job=job,
        database=database,
        model=model,
        limits=limits,
        stopping=stopping,
        throttle=throttle,
        result=ChunkResult(job_id=claim.job_id, chunk_id=claim.chunk_id, repeated=claim.isolated),
    )
    try:
        # The hard limit kills a process that hangs outside Python. If its supervisor is dead too, the lease expires.
        at_most = hard_time_limit(limits.time_limit)
        with renewed(attempt.renew, lease_seconds=limits.lease_seconds, at_most=at_most):
            attempt.score()
    except (LeaseLostError, _StoppingError) as reason:
        log.warning("chunk released", chunk=chunk_id, job=job.job_id, reason=str(reason))
        attempt.release(count_attempt=False)
        return None
    except DATABASE_UNAVAILABLE as error:
        # Not the fault of an image. The chunk can be claimed again when the database is back.
        log.warning("chunk released", chunk=chunk_id, job=job.job_id, reason=type(error).__name__)
        retry_until_available(lambda: attempt.release(count_attempt=False), throttle, stopping)
        return None
    except BaseException:
        attempt.release(count_attempt=True)
        raise
    finally:
        on_result(attempt.result)
    transact(database, lambda connection: settle_if_done(connection, claim.group_id))
    transact(database, lambda connection: finish_job_if_done(connection, claim.job_id))
    return attempt.result


@dataclass(kw_only=True)
class ChunkResult:
    """What one attempt did. As a text, it stands in Flower's list of tasks."""

    job_id: int
    chunk_id: int
    #: Whether an earlier attempt at the chunk had crashed, or its lease had expired.
    repeated: bool
    #: Whether the chunk was closed.
    closed: bool = False
    by_status: Counter[ImageStatus] = field(default_factory=Counter)
    #: Numbers for `worker.queue.counters`: of outcomes by kind, and seconds by stage.
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def images(self) -> int:
        """Images that got an outcome."""
        return self.by_status.total()

    def count(self, outcomes: Sequence[Outcome]) -> None:
        """Count outcomes that were written."""
        for outcome in outcomes:
            if isinstance(outcome, Scored):
                status, kind = ImageStatus.SCORED, f"flag|{outcome.flag}"
                self.counts["reused"] += outcome.reused_from is not None
            elif isinstance(outcome, Ungradable):
                status, kind = ImageStatus.UNGRADABLE, f"ungradable|{outcome.reason}"
            else:
                status, kind = ImageStatus.FAILED, f"failed|{outcome.code}"
            self.by_status[status] += 1
            self.counts[f"images|{status}"] += 1
            self.counts[kind] += 1

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds of a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            # Counter is typed for whole numbers, and adds others as well.
            self.counts[f"seconds|{stage}"] += time.perf_counter() - started  # type: ignore[assignment]

    def __str__(self) -> str:
        outcomes = ", ".join(f"{self.by_status[status]} {status}" for status in ImageStatus if self.by_status[status])
        return f"job {self.job_id}, chunk {self.chunk_id}: {outcomes or 'no image waited'}"


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """A claimed chunk with everything needed to score it."""

    claim: Claim
    job: ChunkJob
    database: Engine
    model: LoadedModel
    limits: ChunkLimits
    stopping: Callable[[], bool]
    throttle: LogThrottle
    result: ChunkResult

    def renew(self) -> None:
        """Extend the lease."""
        transact(self.database, self._renew_in)

    def _renew_in(self, connection: Connection) -> None:
        renew_lease(connection, self.claim, self.limits.lease_seconds)

    def release(self, *, count_attempt: bool) -> None:
        """Release the chunk for another claim."""
        transact(self.database, lambda connection: release_chunk(connection, self.claim, count_attempt=count_attempt))

    def score(self) -> None:
        """Score the waiting images of the chunk and close it."""
        chunk_id = self.claim.chunk_id
        images = read(self.database, lambda connection: waiting_images(connection, chunk_id))
        if self.claim.isolated:
            for image in images:
                self._stop_if_asked()
                self._score_isolated(image)
        else:
            inferred: dict[str, StoredInference] = {}
            batches = list(_batches(images, self.limits.batch_size))
            for _, prepared in one_ahead(batches, self._prepare):
                self._stop_if_asked()
                with self.result.timed("infer"):
                    outcomes = infer_batch(prepared, self.job, self.model, inferred)
                self._write(outcomes)
        if not transact(self.database, lambda connection: close_chunk(connection, self.claim)):
            raise LeaseLostError(f"chunk {chunk_id} could not be closed by attempt {self.claim.attempt}")
        self.result.closed = True
        done = self.result.images
        log.info("chunk closed", chunk=chunk_id, job=self.job.job_id, attempt=self.claim.attempt, images=done)

    def _score_isolated(self, image: WaitingImage) -> None:
        """Score one image of a chunk whose earlier attempt crashed. The recorded start shows which image crashed it."""
        if image.isolation_starts >= MAX_CRASHES:
            sentence = f"{image.isolation_starts} workers crashed while they processed this image"
            self._write([Failed(image_id=image.id, code=FailureCode.CRASHED_WORKER, sentence=sentence)])
            return

        def start(connection: Connection) -> None:
            self._renew_in(connection)
            mark_isolation_start(connection, image)

        start_recorded = False

        def withdraw(connection: Connection) -> None:
            if start_recorded:
                withdraw_isolation_start(connection, image.id)
            else:
                withdraw_uncertain_start(connection, self.claim, image)

        suspicious = self.limits.time_limit / 2
        try:
            transact(self.database, start)
            start_recorded = True
            started = time.monotonic()
            try:
                outcomes = self._outcomes([image])
            except SoftTimeLimitExceeded:
                if time.monotonic() - started < suspicious:
                    # The chunk as a whole was slow, not this image.
                    raise
                sentence = f"reading or scoring it took longer than {suspicious:.0f} s"
                outcomes = [Failed(image_id=image.id, code=FailureCode.TIMED_OUT, sentence=sentence)]
            except SQLAlchemyError:
                raise
            except Exception as error:
                # It is alone in its batch, so the fault is its own, and every further attempt would meet it again.
                log.error("image raised an unexpected error", image=image.id, error=type(error).__name__)
                sentence = f"unexpected {type(error).__name__} while it was scored"
                outcomes = [Failed(image_id=image.id, code=FailureCode.ENGINE_ERROR, sentence=sentence)]
            self._write(outcomes)
            if isinstance(outcomes[0], Failed) and outcomes[0].code is FailureCode.TIMED_OUT:
                # The chunk's time is used up: release it before the hard limit strikes its next image.
                raise SoftTimeLimitExceeded
        except BaseException:
            # This worker is alive, so the start must not count as a crash.
            retry_until_available(lambda: transact(self.database, withdraw), self.throttle, self.stopping)
            raise

    def _stop_if_asked(self) -> None:
        if self.stopping():
            raise _StoppingError("this worker was asked to stop")

    def _prepare(self, images: Sequence[WaitingImage], cancelled: Callable[[], bool]) -> PreparedBatch:
        limit = self.limits.max_file_bytes
        with self.result.timed("prepare"):
            return prepare_images(images, self.job, self.model, self.database, limit, cancelled)

    def _outcomes(self, images: Sequence[WaitingImage]) -> list[Outcome]:
        return score_images(images, self.job, self.model, self.database, self.limits.max_file_bytes)

    def _write(self, outcomes: Sequence[Outcome]) -> None:
        def write(connection: Connection) -> None:
            self._renew_in(connection)
            write_outcomes(
                connection,
                outcomes,
                job_id=self.job.job_id,
                bundle_id=self.job.bundle_id,
                engine=self.model.engine.label,
            )

        with self.result.timed("write"):
            transact(self.database, write)
        self.result.count(outcomes)


def _batches(images: Sequence[WaitingImage], most: int) -> Iterator[Sequence[WaitingImage]]:
    """Divide a chunk by number and by size: the files of a batch are in memory together."""
    batch: list[WaitingImage] = []
    size = 0
    for image in images:
        if batch and (len(batch) == most or size + (image.size_bytes or 0) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(image)
        size += image.size_bytes or 0
    if batch:
        yield batch
