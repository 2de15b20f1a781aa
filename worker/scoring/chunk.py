"""One chunk: claim, read, score, write, close."""

import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from billiard.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from db.claims import (
    ChunkJob,
    Claim,
    LeaseLostError,
    WaitingImage,
    claim_chunk,
    close_chunk,
    job_of_chunk,
    mark_careful_start,
    release_chunk,
    renew_lease,
    waiting_images,
    withdraw_careful_start,
    withdraw_unsure_start,
)
from db.jobs import finish_job_if_done
from db.outcomes import Failed, Outcome, write_outcomes
from db.session import read, transact
from db.status import FailureCode
from worker.database_wait import DATABASE_AWAY, wait_out
from worker.log_throttle import Complaint
from worker.logging import get_logger
from worker.scoring.batch import score_images
from worker.scoring.lease_renewal import renewed
from worker.scoring.loaded_model import Scorer
from worker.settings import hard_time_limit

log = get_logger(__name__)

#: Bytes of image files that a process holds at once, as far as their sizes were known at submission.
_BATCH_BYTES = 128 * 1024 * 1024
#: Deaths of a worker with one image in hand after which that image is given up.
DEATHS_UNTIL_FAILED = 2


@dataclass(frozen=True, kw_only=True)
class ChunkLimits:
    """How a worker goes about a chunk: images per transaction, seconds of a lease and of a chunk, bytes of a file."""

    batch_size: int
    lease_seconds: float
    time_limit: float
    max_file_bytes: int


class _StoppingError(Exception):
    """The worker was asked to stop."""


def score_chunk(
    chunk_id: int,
    *,
    database: Engine,
    scorer_for: Callable[[str], Scorer],
    limits: ChunkLimits,
    stopping: Callable[[], bool] = lambda: False,
    complaint: Complaint | None = None,
) -> int | None:
    """Bring every image of a chunk to its end; wait for the database while it is away.

    Args:
        chunk_id: from a hint.
        database: from `db.session.open_database`.
        scorer_for: gives the loaded model for a bundle's SHA-256.
        limits: batch size, lease, file size.
        stopping: asked between batches; when true the chunk is handed back.
        complaint: says once a minute that the database is away; shared by the processes of a worker.

    Returns:
        Images that ended in this attempt, or None when there was nothing to claim or the chunk was given up.

    Raises:
        BundleError: this worker's bundle is not the job's; the chunk is left alone.
        EngineError: the engine cannot be loaded; the chunk is left alone.
    """
    complaint = complaint or Complaint()
    job = wait_out(lambda: read(database, lambda connection: job_of_chunk(connection, chunk_id)), complaint, stopping)
    if job is None:
        return None
    # Before the claim: a worker that cannot score must not hold a chunk, nor count as an attempt.
    scorer = scorer_for(job.bundle_sha256)
    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"
    claim = transact(database, lambda connection: claim_chunk(connection, chunk_id, owner, limits.lease_seconds))
    if claim is None:
        return None
    log.info("chunk claimed", chunk=chunk_id, job=job.job_id, attempt=claim.attempt)
    attempt = _Attempt(
        claim=claim,
        job=job,
        database=database,
        scorer=scorer,
        limits=limits,
        stopping=stopping,
        complaint=complaint,
    )
    try:
        # A process that hangs outside Python dies of the hard limit; one whose supervisor is dead too loses its lease.
        at_most = hard_time_limit(limits.time_limit)
        with renewed(attempt.renew, lease_seconds=limits.lease_seconds, at_most=at_most):
            ended = attempt.score()
    except (LeaseLostError, _StoppingError) as reason:
        log.warning("chunk given up", chunk=chunk_id, job=job.job_id, reason=str(reason))
        attempt.hand_back(blameless=True)
        return None
    except DATABASE_AWAY as error:
        # No image's fault. The chunk is there for the next claim as soon as the database serves again.
        log.warning("chunk given up", chunk=chunk_id, job=job.job_id, reason=type(error).__name__)
        wait_out(lambda: attempt.hand_back(blameless=True), complaint, stopping)
        return None
    except BaseException:
        attempt.hand_back(blameless=False)
        raise
    transact(database, lambda connection: finish_job_if_done(connection, claim.job_id))
    return ended


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """A claimed chunk with all that it takes to score it."""

    claim: Claim
    job: ChunkJob
    database: Engine
    scorer: Scorer
    limits: ChunkLimits
    stopping: Callable[[], bool]
    complaint: Complaint

    def renew(self) -> None:
        """Extend the lease."""
        transact(self.database, self._renew_in)

    def _renew_in(self, connection: Connection) -> None:
        renew_lease(connection, self.claim, self.limits.lease_seconds)

    def hand_back(self, *, blameless: bool) -> None:
        """Give the chunk up, for anybody to take."""
        transact(self.database, lambda connection: release_chunk(connection, self.claim, blameless=blameless))

    def score(self) -> int:
        """Score what waits in the chunk and close it; the number of images that ended."""
        ended, chunk_id = 0, self.claim.chunk_id
        images = read(self.database, lambda connection: waiting_images(connection, chunk_id))
        for batch in _batches(images, 1 if self.claim.careful else self.limits.batch_size):
            if self.stopping():
                raise _StoppingError("this worker was asked to stop")
            if self.claim.careful:
                self._score_carefully(batch[0])
            else:
                self._write(self._outcomes(batch))
            ended += len(batch)
        if not transact(self.database, lambda connection: close_chunk(connection, self.claim)):
            raise LeaseLostError(f"chunk {chunk_id} could not be closed by attempt {self.claim.attempt}")
        log.info("chunk closed", chunk=chunk_id, job=self.job.job_id, attempt=self.claim.attempt, images=ended)
        return ended

    def _score_carefully(self, image: WaitingImage) -> None:
        """Score one image of a chunk in which a worker died before: announce it, so that a death points at it."""
        if image.careful_starts >= DEATHS_UNTIL_FAILED:
            sentence = f"workers died {image.careful_starts} times with this image in hand"
            self._write([Failed(image_id=image.id, code=FailureCode.CRASHED_WORKER, sentence=sentence)])
            return

        def announce(connection: Connection) -> None:
            self._renew_in(connection)
            mark_careful_start(connection, image)

        announced = False

        def withdraw(connection: Connection) -> None:
            if announced:
                withdraw_careful_start(connection, image.id)
            else:
                withdraw_unsure_start(connection, self.claim, image)

        suspicious = self.limits.time_limit / 2
        try:
            transact(self.database, announce)
            announced = True
            started = time.monotonic()
            try:
                outcomes = self._outcomes([image])
            except SoftTimeLimitExceeded:
                if time.monotonic() - started < suspicious:
                    # The chunk as a whole was slow; this image just happened to be in hand.
                    raise
                sentence = f"reading or scoring it took longer than {suspicious:.0f} s"
                outcomes = [Failed(image_id=image.id, code=FailureCode.TIMED_OUT, sentence=sentence)]
            except SQLAlchemyError:
                raise
            except Exception as error:
                # Alone in hand: the fault is this image's, and another attempt would meet it again, for ever.
                log.error("image raised an unforeseen error", image=image.id, error=type(error).__name__)
                sentence = f"unforeseen {type(error).__name__} while it was scored"
                outcomes = [Failed(image_id=image.id, code=FailureCode.ENGINE_ERROR, sentence=sentence)]
            self._write(outcomes)
            if isinstance(outcomes[0], Failed) and outcomes[0].code is FailureCode.TIMED_OUT:
                # The time of the whole chunk is spent: hand it back before the hard limit strikes its next image.
                raise SoftTimeLimitExceeded
        except BaseException:
            # Whatever went wrong, this worker lives: the breadcrumb must not count as a death.
            wait_out(lambda: transact(self.database, withdraw), self.complaint, self.stopping)
            raise

    def _outcomes(self, images: Sequence[WaitingImage]) -> list[Outcome]:
        return score_images(images, self.job, self.scorer, self.database, self.limits.max_file_bytes)

    def _write(self, outcomes: Sequence[Outcome]) -> None:
        def write(connection: Connection) -> None:
            self._renew_in(connection)
            write_outcomes(connection, outcomes, bundle_id=self.job.bundle_id, engine=self.scorer.engine.label)

        transact(self.database, write)


def _batches(images: Sequence[WaitingImage], most: int) -> Iterator[Sequence[WaitingImage]]:
    """Cut a chunk by number and by size: the files of a batch are in memory together."""
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
