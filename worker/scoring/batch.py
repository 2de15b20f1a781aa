"""From the images of one batch to their outcomes: read, reuse, prepare, infer, flag. Each image gets exactly one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from billiard.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Engine

from db.claims import ChunkJob, WaitingImage
from db.outcomes import Appearance, Failed, Outcome, Scored, StoredInference, Ungradable, stored_inferences
from db.session import read
from db.status import FailureCode
from worker.errors import EngineError, ImageFaultError
from worker.images.colour import RGBImage
from worker.images.decode import READER, reads_as_ever
from worker.images.read import FileContent
from worker.images.read_any import Reader, reader_of
from worker.inference.engines import Inference
from worker.inference.evidence import to_bytes
from worker.inference.quality_gate import Measured, Refusal
from worker.inference.triage import triage_flag
from worker.logging import get_logger
from worker.scoring.loaded_model import LoadedModel

log = get_logger(__name__)

Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class ReadyImage:
    """An image that passed the gates before inference, with its model input, (size, size, 3), uint8, RGB."""

    image_id: int
    sha256: str
    model_input: RGBImage
    measured: Measured


@dataclass(frozen=True, kw_only=True)
class PreparedBatch:
    """A batch before inference: outcomes of images that need none, model inputs of the others.

    Args:
        outcomes: of images that failed, are ungradable, or were scored before.
        ready: images to infer.
        copies: further images with the bytes of a ready one, by SHA-256.
    """

    outcomes: list[Outcome]
    ready: list[ReadyImage]
    copies: dict[str, list[int]]


def score_images(
    images: Sequence[WaitingImage], job: ChunkJob, model: LoadedModel, database: Engine, max_file_bytes: int
) -> list[Outcome]:
    """Read, check and score images: `prepare_images`, then `infer_batch`."""
    return infer_batch(prepare_images(images, job, model, database, max_file_bytes), job, model, {})


def prepare_images(
    images: Sequence[WaitingImage],
    job: ChunkJob,
    model: LoadedModel,
    database: Engine,
    max_file_bytes: int,
    cancelled: Callable[[], bool] = lambda: False,
) -> PreparedBatch:
    """Read, check and preprocess images. One bad image does not stop the others.

    Bytes that were scored before with the job's bundle, by any job or earlier in this batch, are not inferred again,
    unless the job forces it.

    Args:
        images: of one chunk.
        job: their job.
        model: the loaded model.
        database: searched for earlier inferences of the same bytes.
        max_file_bytes: size of the largest file that is read.
        cancelled: asked before each image. When true, the result is incomplete, because nobody needs it any more.
    """
    outcomes: list[Outcome] = []
    contents: dict[int, FileContent] = {}
    reader = reader_of(job.root)
    for image in images:
        if cancelled():
            break
        content = _or_failed(image.id, lambda image=image: _read(image, reader, max_file_bytes))  # type: ignore[misc]
        if isinstance(content, Failed):
            outcomes.append(content)
        else:
            contents[image.id] = content
    stored = _find_stored(contents, job, database)
    ready: list[ReadyImage] = []
    copies: dict[str, list[int]] = {}
    for image_id in list(contents):
        if cancelled():
            break
        # Out of memory with the last use.
        content = contents.pop(image_id)
        found = stored.get(content.sha256)
        same = _reads_the_same(image_id, content, found) if found is not None else False
        if isinstance(same, Failed):
            outcomes.append(same)
        elif found is not None and same and not _lacks_evidence(found, job, model):
            outcomes.append(_scored(image_id, content.sha256, found, job, model, reused=True))
        elif content.sha256 in copies and not job.force:
            copies[content.sha256].append(image_id)
        else:
            prepared = _or_failed(image_id, lambda i=image_id, c=content: _prepare(i, c, model))  # type: ignore[misc]
            if isinstance(prepared, ReadyImage):
                ready.append(prepared)
                copies[content.sha256] = []
            else:
                outcomes.append(prepared)
    return PreparedBatch(outcomes=outcomes, ready=ready, copies=copies)


def infer_batch(
    prepared: PreparedBatch, job: ChunkJob, model: LoadedModel, inferred: dict[str, StoredInference]
) -> list[Outcome]:
    """Infer the prepared images of a batch and flag them.

    Args:
        prepared: from `prepare_images`.
        job: their job.
        model: the loaded model.
        inferred: inferences of this chunk by SHA-256, to which those of this batch are added. A batch is prepared
            before the one before it is written, so the database does not tell of its copies.

    Returns:
        One outcome for each image of the batch.
    """
    outcomes = list(prepared.outcomes)
    known = {} if job.force else inferred
    outcomes += [
        _scored(image.image_id, image.sha256, known[image.sha256], job, model, reused=True)
        for image in prepared.ready
        if image.sha256 in known
    ]
    outcomes += _infer([image for image in prepared.ready if image.sha256 not in known], job, model)
    digests = {image.image_id: image.sha256 for image in prepared.ready}
    for outcome in outcomes[len(prepared.outcomes) :]:
        copies = prepared.copies[digests[outcome.image_id]]
        if isinstance(outcome, Scored):
            label = outcome.reused_from or model.engine.label
            outcomes += [replace(outcome, image_id=copy, reused_from=label) for copy in copies]
            inferred[outcome.image_sha256] = StoredInference(
                raw_probability=outcome.raw_probability,
                engine=label,
                class_probabilities=outcome.class_probabilities,
                reader=READER,
                appearance=outcome.appearance,
            )
        else:
            outcomes += [replace(outcome, image_id=copy) for copy in copies]
    return outcomes


def _or_failed(image_id: int, make: Callable[[], Made]) -> Made | Failed:
    """The result of a step, or why the image failed there."""
    try:
        return make()
    except ImageFaultError as fault:
        return Failed(image_id=image_id, code=fault.code, sentence=fault.sentence)
    except EngineError as error:
        log.error("engine failed on an image", image=image_id)
        return Failed(image_id=image_id, code=FailureCode.ENGINE_ERROR, sentence=str(error))
    except SoftTimeLimitExceeded:
        raise
    except MemoryError:
        log.error("image needs more memory than is available", image=image_id)
        sentence = "reading or preparing it needs more memory than this worker has"
        return Failed(image_id=image_id, code=FailureCode.TOO_LARGE, sentence=sentence)
    except Exception as error:
        # Unexpected, so it is logged. The text of the error may hold a path and stays out of the log.
        log.error("image raised an unexpected error", image=image_id, error=type(error).__name__)
        sentence = f"unexpected {type(error).__name__} while it was read or prepared"
        return Failed(image_id=image_id, code=FailureCode.ENGINE_ERROR, sentence=sentence)


def _read(image: WaitingImage, reader: Reader, max_file_bytes: int) -> FileContent:
    if image.failure_code is not None:
        raise ImageFaultError(image.failure_code, image.reason or "it could not be submitted")
    return reader(
        image.path,
        size_bytes=image.size_bytes,
        mtime_ns=image.mtime_ns,
        max_bytes=max_file_bytes,
    )


def _reads_the_same(image_id: int, content: FileContent, found: StoredInference) -> bool | Failed:
    """Whether an earlier inference was made of the pixels that are read today: a file may even be refused today."""
    return found.reader == READER or _or_failed(image_id, lambda: reads_as_ever(content.data))


def _lacks_evidence(found: StoredInference, job: ChunkJob, model: LoadedModel) -> bool:
    """Whether this job's policy flags an image that an earlier one did not, so that it has no evidence map."""
    return (
        model.head is not None
        and found.appearance.evidence is None
        and found.raw_probability >= model.raw_probability_of(job.borderline_threshold)
    )


def _find_stored(contents: dict[int, FileContent], job: ChunkJob, database: Engine) -> dict[str, StoredInference]:
    if job.force or not contents:
        return {}
    digests = sorted({content.sha256 for content in contents.values()})
    return read(database, lambda connection: stored_inferences(connection, job.bundle_id, digests))


def _prepare(image_id: int, content: FileContent, model: LoadedModel) -> ReadyImage | Ungradable:
    preprocessing = model.bundle.preprocessing
    decoded = preprocessing.decode(content.data, content.frame)
    if (refusal := model.gate.check_size(decoded.short_side)) is not None:
        return _ungradable(image_id, refusal)
    model_input = preprocessing(decoded.pixels)
    measured = model.gate.check(decoded.short_side, model_input)
    if not isinstance(measured, Measured):
        return _ungradable(image_id, measured)
    return ReadyImage(image_id=image_id, sha256=content.sha256, model_input=model_input, measured=measured)


def _ungradable(image_id: int, refusal: Refusal) -> Ungradable:
    reason, sentence = refusal
    return Ungradable(image_id=image_id, reason=reason, sentence=sentence)


def _infer(ready: Sequence[ReadyImage], job: ChunkJob, model: LoadedModel) -> list[Outcome]:
    if not ready:
        return []
    try:
        inference = model.engine.infer(
            np.stack([image.model_input for image in ready]),
            features=model.gate.detector is not None or model.head is not None,
            maps_from=None if model.head is None else model.raw_probability_of(job.borderline_threshold),
        )
        return [_outcome(image, inference, index, job, model) for index, image in enumerate(ready)]
    except EngineError as error:
        if len(ready) > 1:
            # One image is at fault. Infer each alone, so that the others are scored.
            return [outcome for image in ready for outcome in _infer([image], job, model)]
        log.error("engine failed on an image", image=ready[0].image_id)
        return [Failed(image_id=ready[0].image_id, code=FailureCode.ENGINE_ERROR, sentence=str(error))]


def _outcome(image: ReadyImage, inference: Inference, index: int, job: ChunkJob, model: LoadedModel) -> Outcome:
    """What the engine's output for one image of a batch gives."""
    features = None if inference.features is None else inference.features[index]
    measured: Refusal | Measured = image.measured
    if features is not None:
        measured = model.gate.check_features(image.measured, features)
    if not isinstance(measured, Measured):
        return _ungradable(image.image_id, measured)
    table = inference.class_probabilities
    names = model.bundle.manifest.classes
    stored = StoredInference(
        raw_probability=float(inference.probability[index]),
        engine=model.engine.label,
        class_probabilities=None if table is None else dict(zip(names, table[index].tolist(), strict=True)),
        appearance=Appearance(
            contrast=measured.quality.contrast,
            sharpness=measured.quality.sharpness,
            ood_score=measured.ood_score,
            notes=measured.notes,
            evidence=_evidence(features, inference.feature_maps[index] if inference.feature_maps else None, model),
        ),
    )
    return _scored(image.image_id, image.sha256, stored, job, model, reused=False)


def _evidence(
    features: npt.NDArray[np.float32] | None, feature_map: npt.NDArray[np.float32] | None, model: LoadedModel
) -> bytes | None:
    if model.head is None or features is None or feature_map is None:
        return None
    return to_bytes(model.head.evidence(features, feature_map))


def _scored(
    image_id: int, sha256: str, inference: StoredInference, job: ChunkJob, model: LoadedModel, *, reused: bool
) -> Scored | Failed:
    """Calibrate and flag an output of the network with the job's policy, whether it is new or reused."""

    def score() -> Scored:
        manifest = model.bundle.manifest
        probability = float(manifest.calibration.apply(np.array(inference.raw_probability)))
        classes = inference.class_probabilities
        return Scored(
            image_id=image_id,
            image_sha256=sha256,
            raw_probability=inference.raw_probability,
            probability=probability,
            flag=triage_flag(probability, threshold=job.threshold, borderline_threshold=job.borderline_threshold),
            malignant_probability=None if classes is None else sum(classes[name] for name in manifest.malignant),
            class_probabilities=classes,
            reused_from=inference.engine if reused else None,
            reader=READER,
            appearance=inference.appearance,
        )

    return _or_failed(image_id, score)
