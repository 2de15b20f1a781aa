"""Images of one batch to their outcomes: read, recognise, prepare, infer, flag. Each gets exactly one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from billiard.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Engine

from db.claims import ChunkJob, WaitingImage
from db.outcomes import Failed, Known, Outcome, Scored, Ungradable, known_predictions
from db.session import read
from db.status import FailureCode
from worker.errors import EngineError, ImageFaultError
from worker.images.decode import RGBImage, decode, refuse_half_read
from worker.images.read import FileContent, read_file, text_to_path
from worker.inference.engines import Inference
from worker.inference.triage import triage_flag, why_too_small
from worker.logging import get_logger
from worker.scoring.loaded_model import Scorer

log = get_logger(__name__)

Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class _Ready:
    """An image that passed the gates."""

    image_id: int
    sha256: str
    model_input: RGBImage


def score_images(
    images: Sequence[WaitingImage], job: ChunkJob, scorer: Scorer, database: Engine, max_file_bytes: int
) -> list[Outcome]:
    """Read, judge and score images; none stops its neighbours.

    Bytes that were scored before under the job's bundle, by any job or earlier in this batch, are not inferred again
    unless the job says so.

    Args:
        images: of one chunk.
        job: their job.
        scorer: the loaded model.
        database: asked for what is known already.
        max_file_bytes: size of the largest file that is read.

    Returns:
        One outcome per image.
    """
    outcomes: list[Outcome] = []
    contents: dict[int, FileContent] = {}
    for image in images:
        content = _or_fault(image.id, lambda image=image: _read(image, job, max_file_bytes))  # type: ignore[misc]
        if isinstance(content, Failed):
            outcomes.append(content)
        else:
            contents[image.id] = content
    known = _known(contents, job, database)
    ready: list[_Ready] = []
    twins: dict[str, list[int]] = {}
    for image_id, content in contents.items():
        if (found := known.get(content.sha256)) is not None:
            # An earlier version of dermq may have scored what is refused today.
            refused = _or_fault(image_id, lambda c=content: refuse_half_read(c.data))  # type: ignore[misc]
            outcomes.append(refused or _scored(image_id, content.sha256, found, job, scorer, reused=True))
        elif content.sha256 in twins and not job.force:
            twins[content.sha256].append(image_id)
        else:
            prepared = _or_fault(image_id, lambda i=image_id, c=content: _prepare(i, c, scorer))  # type: ignore[misc]
            if isinstance(prepared, _Ready):
                ready.append(prepared)
                twins[content.sha256] = []
            else:
                outcomes.append(prepared)
    for outcome in _infer(ready, job, scorer):
        outcomes.append(outcome)
        if isinstance(outcome, Scored):
            label = scorer.engine.label
            outcomes += [replace(outcome, image_id=twin, reused_from=label) for twin in twins[outcome.image_sha256]]
        elif isinstance(outcome, Failed):
            sha256 = next(image.sha256 for image in ready if image.image_id == outcome.image_id)
            outcomes += [Failed(image_id=twin, code=outcome.code, sentence=outcome.sentence) for twin in twins[sha256]]
    return outcomes


def _or_fault(image_id: int, make: Callable[[], Made]) -> Made | Failed:
    """What a step makes of an image, or why it failed there."""
    try:
        return make()
    except ImageFaultError as fault:
        return Failed(image_id=image_id, code=fault.code, sentence=fault.sentence)
    except SoftTimeLimitExceeded:
        raise
    except MemoryError:
        log.error("image needs more memory than there is", image=image_id)
        sentence = "reading or preparing it takes more memory than this worker has"
        return Failed(image_id=image_id, code=FailureCode.TOO_LARGE, sentence=sentence)
    except Exception as error:
        # Unforeseen, so the log says where; the text of the error may hold a path and stays out of it.
        log.error("image raised an unforeseen error", image=image_id, error=type(error).__name__)
        sentence = f"unforeseen {type(error).__name__} while it was read or prepared"
        return Failed(image_id=image_id, code=FailureCode.ENGINE_ERROR, sentence=sentence)


def _read(image: WaitingImage, job: ChunkJob, max_file_bytes: int) -> FileContent:
    return read_file(
        Path(text_to_path(job.root)),
        image.path,
        size_bytes=image.size_bytes,
        modified_ns=image.modified_ns,
        max_bytes=max_file_bytes,
    )


def _known(contents: dict[int, FileContent], job: ChunkJob, database: Engine) -> dict[str, Known]:
    if job.force or not contents:
        return {}
    digests = sorted({content.sha256 for content in contents.values()})
    return read(database, lambda connection: known_predictions(connection, job.bundle_id, digests))


def _prepare(image_id: int, content: FileContent, scorer: Scorer) -> _Ready | Ungradable:
    decoded = decode(content.data)
    # Before preprocessing: a strip one pixel high, brought to the model's height, would be gigabytes long.
    ungradable = why_too_small(min(decoded.shape[:2]), scorer.bundle.manifest.quality)
    if ungradable is None:
        model_input = scorer.bundle.preprocessing(decoded)
        ungradable = scorer.why_ungradable(decoded, model_input)
    if ungradable is not None:
        reason, sentence = ungradable
        return Ungradable(image_id=image_id, reason=reason, sentence=sentence)
    return _Ready(image_id=image_id, sha256=content.sha256, model_input=model_input)


def _infer(ready: Sequence[_Ready], job: ChunkJob, scorer: Scorer) -> list[Outcome]:
    if not ready:
        return []
    try:
        inference = scorer.engine.infer(np.stack([image.model_input for image in ready]))
    except EngineError as error:
        if len(ready) > 1:
            # One of them is at fault: let the others not pay for it.
            return [outcome for image in ready for outcome in _infer([image], job, scorer)]
        log.error("engine failed on an image", image=ready[0].image_id)
        return [Failed(image_id=ready[0].image_id, code=FailureCode.ENGINE_ERROR, sentence=str(error))]
    return [
        _scored(image.image_id, image.sha256, _known_now(inference, index, scorer), job, scorer, reused=False)
        for index, image in enumerate(ready)
    ]


def _known_now(inference: Inference, index: int, scorer: Scorer) -> Known:
    """What the engine says of one image of a batch."""
    table = inference.class_probabilities
    names = scorer.bundle.manifest.classes
    return Known(
        raw_probability=float(inference.probability[index]),
        engine=scorer.engine.label,
        class_probabilities=None if table is None else dict(zip(names, table[index].tolist(), strict=True)),
    )


def _scored(image_id: int, sha256: str, known: Known, job: ChunkJob, scorer: Scorer, *, reused: bool) -> Scored:
    """A prediction under this job's policy; a reused one is calibrated and flagged anew from the network's output."""
    manifest = scorer.bundle.manifest
    probability = float(manifest.calibration.apply(np.array(known.raw_probability)))
    classes = known.class_probabilities
    return Scored(
        image_id=image_id,
        image_sha256=sha256,
        raw_probability=known.raw_probability,
        probability=probability,
        flag=triage_flag(probability, threshold=job.threshold, borderline_from=job.borderline_from),
        malignant_probability=None if classes is None else sum(classes[name] for name in manifest.malignant),
        class_probabilities=classes,
        reused_from=known.engine if reused else None,
    )
