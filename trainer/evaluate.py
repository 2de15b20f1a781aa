"""Open the sealed test split: score it with a run's model, and state how well it does as JSON and as a report.

Threshold and calibration come from validation. Every opening is logged in the run folder, because a test split that is
looked at while choosing is not one.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pandas as pd

from trainer.backbones import BACKBONES
from trainer.bootstrap import LesionBootstrap
from trainer.calibration import brier
from trainer.classifier import with_all_outputs
from trainer.config import FitConfig
from trainer.evaluation.assess import assess, counts
from trainer.evaluation.discrimination import auroc, average_precision
from trainer.evaluation.engine_parity import Scorer, bundle_scorer, compare, converted_scorer
from trainer.evaluation.leakage import check_leakage
from trainer.evaluation.look import look_at
from trainer.evaluation.missed import missed_melanomas
from trainer.evaluation.openings import log_opening, openings_of
from trainer.evaluation.other_runs import check_seeds, compare_seeds, require_same_recipe, sources_left_out
from trainer.evaluation.report_file import REPORT_FORMAT
from trainer.evaluation.seven_classes import describe_classes, probability_columns
from trainer.evaluation.strata import as_json, describe, share_of
from trainer.evaluation.stress import other_diagnoses, stress
from trainer.fit import PREDICT_BATCH, first_lesions
from trainer.ham10000 import DIAGNOSES, LABELS, melanoma_or_nevus
from trainer.images.real_images import read_images_of
from trainer.parts import in_parts
from trainer.policies import BOOTSTRAP_SEED, Policies, choose_on_validation, freeze_on_validation
from trainer.report import write_report
from trainer.splits import LESION_DISJOINT, TEST, TRAIN, VALIDATION, split_kind
from worker.bundle import Calibration, PolicyThreshold
from worker.images.preprocess import Preprocessing

__all__ = ["EvaluationOptions", "choose_on_validation", "evaluate", "load_frozen", "measure"]


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What an evaluation does beside the figures themselves.

    Args:
        cache: folder of thumbnails for the near-duplicate check.
        quick: leave out robustness and the other diagnoses.
        pictures: put the missed melanomas' pictures into ``report.html``.
        seeds: runs of the same recipe with other seeds, evaluated already.
        also: runs that were trained without a source.
        remarks: sentences that shall stand beside the figures, of what the run folder does not tell.
        bundle: the run's bundle, to compare with; without one the model is converted here.
        say: takes a line about what is being done, for the person who waits.
    """

    cache: Path = Path(".cache/dermq")
    quick: bool = False
    pictures: bool = True
    seeds: Sequence[Path] = ()
    also: Sequence[Path] = ()
    remarks: Sequence[str] = ()
    bundle: Path | None = None
    say: Callable[[str], None] = lambda line: None


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """What a finished run brings to an evaluation; nothing of it changes any more."""

    config: FitConfig
    model: keras.Model
    calibration: Calibration
    policies: Policies

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image becomes the model's input."""
        return Preprocessing(size=self.config.size)

    @property
    def thresholds(self) -> dict[str, PolicyThreshold]:
        """The numbers of each policy."""
        return self.policies.thresholds

    def score(self, images: pd.DataFrame) -> tuple[pd.DataFrame, npt.NDArray[np.uint8]]:
        """Score images with the Keras model.

        Args:
            images: rows with ``path``.

        Returns:
            The rows with ``raw_probability``, ``probability`` (calibrated), ``ita`` (degrees) and, with seven classes,
            `trainer.evaluation.seven_classes.probability_columns`; and the inputs.
        """
        look = look_at([Path(path) for path in images["path"]], self.preprocessing)
        raw, *classes = in_parts(self._infer, look.inputs, PREDICT_BATCH).T
        scored = images.assign(raw_probability=raw, probability=self.calibration.apply(raw), ita=look.ita)
        return scored.assign(**dict(zip(probability_columns(), classes, strict=False))), look.inputs

    def _infer(self, inputs: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Probability of melanoma against nevus, and with seven classes that of each diagnosis, (n, 1) or (n, 8)."""
        outputs = self._outputs(inputs.astype(np.float32))
        parts = [outputs[name] for name in ("probability", "class_probabilities") if name in outputs]
        return np.concatenate([keras.ops.convert_to_numpy(part) for part in parts], axis=1).astype(np.float64)

    @cached_property
    def _outputs(self) -> keras.Model:
        return with_all_outputs(self.model)


def load_frozen(run: Path) -> Frozen:
    """Load a run's model, and fit calibration and thresholds on its validation predictions.

    Raises:
        FileNotFoundError: the run is not finished; names the file.
    """
    for needed in ("config.json", "model.keras", "validation.csv"):
        if not (run / needed).is_file():
            raise FileNotFoundError(f"Received: run {run} without {needed}. Expected: a run after `dermq-train fit`.")
    calibration, policies = freeze_on_validation(run)
    model = keras.saving.load_model(run / "model.keras", compile=False)
    return Frozen(config=FitConfig.read(run), model=model, calibration=calibration, policies=policies)


def evaluate(dataset: Path, run: Path, options: EvaluationOptions | None = None) -> dict[str, Any]:
    """Open the test split once, and write ``test.csv``, ``metrics.json``, ``report.json`` and ``report.html``.

    Args:
        dataset: the HAM10000 folder.
        run: the run folder.
        options: what to do beside the figures.

    Returns:
        The metrics, as in ``metrics.json``.

    Raises:
        SplitError: the manifest was changed since the run began.
        RunError: the run was begun with other data.
        FileNotFoundError: the run, or one to compare with, is not finished.
        ValueError: a run or bundle to compare with does not fit this run.
    """
    options = options or EvaluationOptions()
    started = time.monotonic()
    frozen = load_frozen(run)
    with_split = read_images_of(run, dataset)
    split_sha256 = str(json.loads((run / "split.json").read_text())["sha256"])
    # What does not fit is refused before the test split is opened.
    other_engine = _other_engine(frozen, options, split_sha256)
    for folder in options.also:
        require_same_recipe(run, folder)
    check_seeds(run, options.seeds)
    left_out = {folder: sources_left_out(with_split, folder) for folder in options.also}
    log_opening(run, "evaluate")

    used = first_lesions(with_split, frozen.config.limit) if frozen.config.limit else with_split
    options.say("Scoring the test images")
    test, inputs = frozen.score(melanoma_or_nevus(used[used["split"] == TEST]))
    test.drop(columns=["path", "sha256"]).to_csv(run / "test.csv", index=False)
    metrics = measure(test, frozen.thresholds, kind=split_kind(run))
    (run / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")

    options.say("Looking for anything seen before; computing figures and intervals")
    engine_score, engine_name = other_engine
    report: dict[str, Any] = {
        "format": REPORT_FORMAT,
        "kind": "test",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": describe_run(run, frozen),
        "remarks": [" ".join(remark.split()) for remark in options.remarks],
        "policies": {name: policy.model_dump() for name, policy in frozen.thresholds.items()},
        "refused_policies": frozen.policies.refused,
        "flow": _flow(with_split, used),
        "leakage": check_leakage(with_split, options.cache),
        "assessment": assess(test, frozen.thresholds),
        "missed": missed_melanomas(test, frozen.thresholds),
        "seeds": compare_seeds(run, metrics, options.seeds),
        "sources_left_out": [
            entry for folder, sources in left_out.items() for entry in _left_out(folder, sources, test)
        ],
        "engine_parity": {
            "engine": engine_name,
            **compare(
                test["label"].to_numpy(),
                test["raw_probability"].to_numpy(),
                engine_score(inputs),
                frozen.calibration,
                frozen.thresholds,
            ),
        },
        "seven_classes": None,
        "other_diagnoses": None,
        "robustness": None,
    }
    if not options.quick:
        options.say("Scoring the other diagnoses")
        others = used[(used["split"] == TEST) & ~used["dx"].isin(LABELS)]
        if len(others):
            scored = frozen.score(others)[0]
            report["other_diagnoses"] = other_diagnoses(scored, frozen.thresholds)
            if frozen.config.classes == "seven":
                report["seven_classes"] = describe_classes(pd.concat((test, scored), ignore_index=True))
        options.say("Changing images and scoring them again: hair, ruler, ink, vignette, blur, JPEG")
        report["robustness"] = stress(
            test,
            lambda changed: frozen.calibration.apply(engine_score(changed)),
            frozen.preprocessing,
            frozen.thresholds,
        )
    report["seconds"] = round(time.monotonic() - started)
    paths = dict(zip(test["image_id"], test["path"], strict=True)) if options.pictures else {}
    write_report(report, run, {str(name): Path(path) for name, path in paths.items()})
    return metrics


def measure(
    test: pd.DataFrame, thresholds: dict[str, PolicyThreshold], *, kind: str = LESION_DISJOINT
) -> dict[str, Any]:
    """The figures that a bundle carries, with lesion-clustered 95% intervals.

    Args:
        test: rows with ``label``, calibrated ``probability`` and ``lesion_id``.
        thresholds: frozen on validation.
        kind: of the split, as in `trainer.splits`.

    Returns:
        Counts, AUROC, AUPRC, Brier score, and sensitivity and specificity per policy.
    """
    labels, probabilities = test["label"].to_numpy(), test["probability"].to_numpy()
    lesions = test["lesion_id"].to_numpy(object)
    bootstrap = LesionBootstrap(lesions, labels, seed=BOOTSTRAP_SEED)
    policies = {}
    for name, policy in thresholds.items():
        called = probabilities >= policy.threshold
        policies[name] = {
            "threshold": policy.threshold,
            "sensitivity": share_of(bootstrap, called, labels == 1, lesions),
            "specificity": share_of(bootstrap, ~called, labels == 0, lesions),
            "missed_melanoma_images": int((~called & (labels == 1)).sum()),
        }
    return {
        "split": f"test, {kind}, single pass",
        **counts(test),
        "auroc": as_json(bootstrap(lambda weights: auroc(labels, probabilities, weights))),
        "auprc": as_json(bootstrap(lambda weights: average_precision(labels, probabilities, weights))),
        "brier": as_json(bootstrap(lambda weights: brier(labels, probabilities, weights))),
        "policies": policies,
        "intervals": "95%, percentile, 1,000 resamples of whole lesions within each class",
        "mean_probability": float(np.mean(probabilities)),
    }


def describe_run(run: Path, frozen: Frozen) -> dict[str, Any]:
    """What a report says of the run it is about; no path of this machine."""
    recorded = run / "run.json"
    begun = json.loads(recorded.read_text()) if recorded.exists() else {}
    return {
        "name": run.name,
        "config": {name: getattr(frozen.config, name) for name in frozen.config.__dataclass_fields__},
        "split_sha256": str(json.loads((run / "split.json").read_text())["sha256"]),
        "split_kind": split_kind(run),
        "weights_from": begun.get("weights_from") or BACKBONES[frozen.config.backbone].weights_from,
        "goes_on_from": begun.get("goes_on_from"),
        "averaged": begun.get("averaged", []),
        "teachers": begun.get("teachers", []),
        "calibration": frozen.calibration.model_dump(),
        "openings": openings_of(run),
    }


def _other_engine(frozen: Frozen, options: EvaluationOptions, split_sha256: str) -> tuple[Scorer, str]:
    if options.bundle is not None:
        return bundle_scorer(options.bundle, frozen.config, frozen.calibration, split_sha256=split_sha256)
    return converted_scorer(frozen.model, frozen.config.size), "OpenVINO, converted for this report"


def _left_out(run: Path, sources: list[str], test: pd.DataFrame) -> list[dict[str, Any]]:
    """Figures of a run on the test images of the sources that it never saw, at its own frozen thresholds."""
    other = load_frozen(run)
    log_opening(run, "evaluate")
    manifest = pd.read_csv(run / "split.csv")
    seen = set(manifest.loc[manifest["split"].isin((TRAIN, VALIDATION)), "lesion_id"])
    entries = []
    for source in sources:
        unseen = test[(test["dataset"] == source) & ~test["lesion_id"].isin(seen)].reset_index(drop=True)
        limits = {name: policy.threshold for name, policy in other.thresholds.items()}
        figures = describe(other.score(unseen)[0], limits, seed=BOOTSTRAP_SEED) if len(unseen) else None
        entries.append({"run": run.name, "source": source, "figures": figures})
    return entries


def _flow(everything: pd.DataFrame, used: pd.DataFrame) -> dict[str, Any]:
    """Who was left out where, and who is on which side."""

    def size(rows: pd.DataFrame) -> dict[str, int]:
        return {"lesions": int(rows["lesion_id"].nunique()), "images": len(rows)}

    two = melanoma_or_nevus(everything)
    kept = melanoma_or_nevus(used)
    trained_on = used[used["split"] == TRAIN]
    return {
        "all": size(everything),
        "other_diagnoses": size(everything[~everything["dx"].isin(LABELS)]),
        "two_classes": size(two),
        "left_out_by_limit": len(two) - len(kept),
        "splits": {
            str(side): {"all": size(part), **{dx: size(part[part["dx"] == dx]) for dx in LABELS}}
            for side, part in kept.groupby("split")
        },
        "training": {dx: size(trained_on[trained_on["dx"] == dx]) for dx in DIAGNOSES},
    }
