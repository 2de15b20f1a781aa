"""One chunk: claim, read, score, write, close."""

import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from billiard.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Connection, Engine

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
)
from db.jobs import finish_job_if_done
from db.predictions import Failed, Outcome, write_outcomes
from db.session import read, transact
from db.status import FailureCode
from worker.log import get_logger
from worker.scorer import Scorer
from worker.scoring import score_images

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
) -> int | None:
    """Bring every image of a chunk to its end.

    Args:
        chunk_id: from a hint.
        database: from `db.session.open_database`.
        scorer_for: gives the loaded model for a bundle's SHA-256.
        limits: batch size, lease, file size.
        stopping: asked between batches; when true the chunk is handed back.

    Returns:
        Images that ended in this attempt, or None when there was nothing to claim or the chunk was given up.

    Raises:
        BundleError: this worker's bundle is not the job's; the chunk is left alone.
        EngineError: the engine cannot be loaded; the chunk is left alone.
    """
    job = read(database, lambda connection: job_of_chunk(connection, chunk_id))
    if job is None:
        return None
    # Before the claim: a worker that cannot score must not hold a chunk, nor count as an attempt.
    scorer = scorer_for(job.bundle_sha256)
    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"
    claim = transact(database, lambda connection: claim_chunk(connection, chunk_id, owner, limits.lease_seconds))
    if claim is None:
        return None
    log.info("chunk claimed", chunk=chunk_id, job=job.job_id, attempt=claim.attempt)
    try:
        ended = _score_claimed(claim, job, database, scorer, limits, stopping)
    except (LeaseLostError, _StoppingError) as reason:
        log.warning("chunk given up", chunk=chunk_id, job=job.job_id, reason=str(reason))
        transact(database, lambda connection: release_chunk(connection, claim, blameless=True))
        return None
    except BaseException:
        transact(database, lambda connection: release_chunk(connection, claim, blameless=False))
        raise
    transact(database, lambda connection: finish_job_if_done(connection, claim.job_id))
    return ended


def _score_claimed(
    claim: Claim,
    job: ChunkJob,
    database: Engine,
    scorer: Scorer,
    limits: ChunkLimits,
    stopping: Callable[[], bool],
) -> int:
    ended = 0
    images = read(database, lambda connection: waiting_images(connection, claim.chunk_id))
    for batch in _batches(images, 1 if claim.careful else limits.batch_size):
        if stopping():
            raise _StoppingError("this worker was asked to stop")
        if claim.careful:
            _score_carefully(claim, batch[0], job, database, scorer, limits)
        else:
            _write(
                database, claim, score_images(batch, job, scorer, database, limits.max_file_bytes), job, scorer, limits
            )
        ended += len(batch)
    if not transact(database, lambda connection: close_chunk(connection, claim)):
        raise LeaseLostError(f"chunk {claim.chunk_id} could not be closed by attempt {claim.attempt}")
    log.info("chunk closed", chunk=claim.chunk_id, job=job.job_id, attempt=claim.attempt, images=ended)
    return ended


def _score_carefully(
    claim: Claim, image: WaitingImage, job: ChunkJob, database: Engine, scorer: Scorer, limits: ChunkLimits
) -> None:
    """Score one image of a chunk in which a worker died before: announce it, so that a death points at it."""
    if image.careful_starts >= DEATHS_UNTIL_FAILED:
        sentence = f"workers died {image.careful_starts} times with this image in hand"
        failed = Failed(image_id=image.id, code=FailureCode.CRASHED_WORKER, sentence=sentence)
        _write(database, claim, [failed], job, scorer, limits)
        return

    def announce(connection: Connection) -> None:
        renew_lease(connection, claim, limits.lease_seconds)
        mark_careful_start(connection, image.id)

    transact(database, announce)
    started = time.monotonic()
    try:
        try:
            outcomes = score_images([image], job, scorer, database, limits.max_file_bytes)
        except SoftTimeLimitExceeded:
            if time.monotonic() - started < limits.time_limit / 2:
                # The chunk as a whole was slow; this image just happened to be in hand.
                raise
            sentence = f"reading or scoring it took longer than {limits.time_limit / 2:.0f} s"
            outcomes = [Failed(image_id=image.id, code=FailureCode.TIMED_OUT, sentence=sentence)]
        _write(database, claim, outcomes, job, scorer, limits)
        if isinstance(outcomes[0], Failed) and outcomes[0].code is FailureCode.TIMED_OUT:
            # The time of the whole chunk is spent: hand it back before the hard limit strikes its next image.
            raise SoftTimeLimitExceeded
    except BaseException:
        # Whatever went wrong, this worker lives: the breadcrumb must not count as a death.
        transact(database, lambda connection: withdraw_careful_start(connection, image.id))
        raise


def _write(
    database: Engine, claim: Claim, outcomes: Sequence[Outcome], job: ChunkJob, scorer: Scorer, limits: ChunkLimits
) -> None:
    def write(connection: Connection) -> None:
        renew_lease(connection, claim, limits.lease_seconds)
        write_outcomes(connection, outcomes, bundle_id=job.bundle_id, engine=scorer.engine.label)

    transact(database, write)


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
