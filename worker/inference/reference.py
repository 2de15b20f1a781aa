"""Replaying the reference images of a bundle, to check an engine on this machine."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from db.status import TriageFlag
from worker.errors import BundleError, EngineError, ImageFaultError
from worker.inference.bundle import Bundle
from worker.inference.engines import InferenceEngine
from worker.inference.metrics import Number, Share
from worker.inference.triage import triage_flag

#: Largest difference of a probability from the one recorded at the export. Engines and processors differ by less.
TOLERANCE = 0.01
_FOLDER = "reference/"
#: File with the expected results. A bundle for an engine of its own has one for it, too.
EXPECTED_NAME = "reference/expected.json"


class ExpectedResult(BaseModel):
    """What the exported model gives for a reference image.

    Args:
        raw_probability: before calibration.
        probability: calibrated.
        flags: triage flag by policy.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    raw_probability: Share
    probability: Share
    flags: dict[str, TriageFlag]


_EXPECTED = TypeAdapter(dict[str, ExpectedResult])
_RAW_ONLY = TypeAdapter(dict[str, Number])


@dataclass(frozen=True, kw_only=True)
class Replay:
    """The result of a replay.

    Args:
        images: number of reference images.
        largest_difference: of a probability, before or after calibration.
        wrong_flags: images with another flag, under any policy, than a difference within the tolerance explains.
    """

    images: int
    largest_difference: float
    wrong_flags: int


def expected_result(bundle: Bundle, raw_probability: float) -> ExpectedResult:
    """Calibrate and flag an output of the model under every policy of a bundle."""
    probability = float(bundle.manifest.calibration.apply(np.array(raw_probability)))
    return ExpectedResult(
        raw_probability=raw_probability,
        probability=probability,
        flags={
            name: triage_flag(probability, threshold=policy.threshold, borderline_threshold=policy.borderline_threshold)
            for name, policy in bundle.manifest.thresholds.items()
        },
    )


def write_expected(path: Path, bundle: Bundle, raw_probabilities: dict[str, float]) -> None:
    """Write what a bundle must give for its reference images.

    Args:
        path: of the file.
        bundle: with calibration and thresholds.
        raw_probabilities: outputs of the model by the name of the reference image.
    """
    results = {name: expected_result(bundle, value) for name, value in raw_probabilities.items()}
    path.write_bytes(_EXPECTED.dump_json(results, indent=2) + b"\n")


def raw_probabilities(bundle: Bundle, name: str) -> dict[str, float]:
    """Outputs of the model by reference image, as a file of expected results records them.

    Args:
        bundle: verified.
        name: of the file in the bundle.

    Raises:
        BundleError: the file is missing, was changed or is invalid.
    """
    return {
        image: result if isinstance(result, float) else result.raw_probability
        for image, result in _parse_expected(bundle, name).items()
    }


def replay_reference(bundle: Bundle, engine: InferenceEngine) -> Replay:
    """Score the reference images of a bundle, and compare probabilities, calibration and flags with the recorded ones.

    Args:
        bundle: verified.
        engine: with the bundle's model.

    Raises:
        BundleError: a reference file is missing, was changed or is invalid.
        EngineError: the engine failed.
    """
    expected = _read_expected(bundle, engine)
    names = list(expected)
    try:
        inputs = [bundle.preprocessing.load(bundle.read(f"reference/{name}")) for name in names]
    except ImageFaultError as fault:
        raise BundleError(f"A reference image of the bundle cannot be read: {fault.sentence}.") from None
    raw = engine.infer(np.stack(inputs)).probability
    largest, wrong = 0.0, 0
    for name, value in zip(names, raw.tolist(), strict=True):
        before = expected[name]
        if isinstance(before, float):
            largest = max(largest, abs(value - before))
            # Checks that the calibrated value can be flagged.
            expected_result(bundle, value)
            continue
        now = expected_result(bundle, value)
        # The calibration itself, apart from the engine: it must give exactly what it gave at the export.
        again = expected_result(bundle, before.raw_probability)
        largest = max(largest, abs(now.raw_probability - before.raw_probability))
        wrong += abs(again.probability - before.probability) > 1e-9 or again.flags != before.flags
    return Replay(images=len(names), largest_difference=largest, wrong_flags=wrong)


def _read_expected(bundle: Bundle, engine: InferenceEngine) -> dict[str, ExpectedResult] | dict[str, float]:
    own = f"reference/expected-{engine.label.split()[0]}.json"
    name = own if own in bundle.manifest.files else EXPECTED_NAME
    if name not in bundle.manifest.files:
        raise EngineError("The bundle has no reference images to replay. Export it again.")
    if not (found := _parse_expected(bundle, name)):
        raise EngineError("The bundle has no reference images to replay. Export it again.")
    images = {
        file.removeprefix(_FOLDER)
        for file in bundle.manifest.files
        if file.startswith(_FOLDER) and file[-5:] != ".json"
    }
    if set(found) != images:
        raise BundleError(f"The bundle's {name} does not have a result for each reference image. Export it again.")
    return found


def _parse_expected(bundle: Bundle, name: str) -> dict[str, ExpectedResult] | dict[str, float]:
    data = bundle.read(name)
    try:
        return _EXPECTED.validate_json(data)
    except ValidationError:
        # Bundles of format 1 record the probability before calibration only. In a newer one that would skip the check
        # of calibration and thresholds.
        if bundle.format == 1:
            with suppress(ValidationError):
                return _RAW_ONLY.validate_json(data)
    raise BundleError(f"The bundle's {name} is invalid. Export the bundle again.")
