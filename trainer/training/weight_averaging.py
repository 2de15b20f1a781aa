"""One network from several runs that differ by their seed: the mean of their weights.

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time", ICML 2022. Runs that went on from the same weights lie close enough together for that: what each of
them learned by heart is another thing, and what all of them learned stays.
"""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from rich.console import Console
from sklearn.metrics import roc_auc_score

from trainer.atomic_files import unfinished_folder
from trainer.config import FitConfig
from trainer.data.scan import data_sha256
from trainer.data.splits import RANDOM_IMAGES, first_lesions, images_with_split
from trainer.networks.heads import Classifier
from trainer.run_folder import RECIPE, RunError, RunFolder, recipe_of
from trainer.training.balanced_batches import BalancedBatches, ClassBalancedBatches
from trainer.training.batches import training_batches, training_images
from trainer.training.fit import build_network, finish, read_surveyed
from trainer.training.stages import unfreeze
from worker.terminal import make_console


def average(dataset: Path, run: Path, members: Sequence[Path], cache: Path, console: Console | None = None) -> float:
    """Write a run whose weights are the mean of those of other runs; `evaluate` and `export` take it as any other.

    The statistics of batch normalisation are no mean: the averaged weights have activations of their own, which vary
    less than those of any member (Jordan et al., "REPAIR", ICLR 2023). Where the members trained them they are taken
    anew, from an epoch of the first member's training batches.

    Args:
        dataset: the HAM10000 folder.
        run: a new folder.
        members: at least two finished runs of the same settings, data and split, with different seeds.
        cache: folder of the decoded training images and the thumbnails.
        console: where is said what is done; standard error unless told otherwise.

    Returns:
        Area under the ROC curve on the validation images; not a number without any.

    Raises:
        DatasetError: the data set is not as published, or images do not decode and are not to be skipped.
        FileExistsError: the folder holds something.
        RunError: the members do not belong together, are not finished, or were trained on other data.
    """
    console, run = console or make_console(stderr=True), run.resolve()
    config = _common_settings(members)
    if run.exists() and (run.is_file() or run.is_mount() or any(run.iterdir())):
        raise FileExistsError(f"Received: {run} to average runs into, which holds something. Expected: a new folder.")
    # Under another name until it is whole: `fit` would take what is left of it for a run to go on with.
    with unfinished_folder(run) as scratch:
        folder = RunFolder(scratch / "run")
        folder.path.mkdir(mode=0o755)
        auc = _average(dataset, folder, config, members, cache, console)
        # Takes the place of an empty folder too.
        folder.path.rename(run)
    return auc


def validation_auc(run: Path) -> float:
    """Area under the ROC curve of a finished run's predictions for the validation images; not a number without any."""
    if not FitConfig.read(run).has_validation:
        # What `trainer.evaluation.crossfit` writes there is of other networks.
        return math.nan
    predicted = pd.read_csv(RunFolder(run).predictions)
    return float(roc_auc_score(predicted["label"], predicted["probability"]))


def _average(
    dataset: Path, folder: RunFolder, config: FitConfig, members: Sequence[Path], cache: Path, console: Console
) -> float:
    everything, _ = read_surveyed(dataset, cache, config, console)
    described = RunFolder(members[0]).described()
    RunFolder(members[0]).check_data(data_sha256(everything))
    keras.utils.set_random_seed(config.seed)
    classifier = build_network(config)
    classifier.scoring.set_weights(_mean_weights(classifier, members))
    for file in ("split.csv", "split.json"):
        shutil.copyfile(members[0] / file, folder.path / file)
    kept = ("split_sha256", "data", "skipped", "weights_from", "goes_on_from", "teachers")
    averaged = [_described(member) for member in members]
    folder.begin(config, {**{name: described.get(name) for name in kept}, "averaged": averaged})
    folder.log(f"averaged {', '.join(member['run'] for member in averaged)}")
    images = images_with_split(everything, folder.path)
    images = first_lesions(images, config.limit)
    # While the head alone is trained, batch normalisation keeps its statistics, whatever the setting.
    if config.batch_normalisation == "trained" and config.epochs:
        console.print("Taking the statistics of batch normalisation anew ...")
        unfreeze(classifier.backbone, config.unfreeze_last)
        renew_statistics(classifier.trained, training_batches(training_images(images, config), cache, config))
    classifier.scoring.save_weights(folder.best)
    finish(folder, classifier, images, config)
    return validation_auc(folder.path)


def renew_statistics(model: keras.Model, batches: BalancedBatches | ClassBalancedBatches) -> None:
    """Replace the moving statistics of trainable batch normalisation by their mean over some batches.

    Args:
        model: whose other variables stay as they are.
        batches: of the images that it was trained on.
    """
    normalising = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    before = [layer.momentum for layer in normalising]
    try:
        for number in range(len(batches)):
            for layer in normalising:
                # A running mean: the first batch replaces what was there, the tenth weighs a tenth.
                layer.momentum = number / (number + 1)
            model(batches[number][0], training=True)
    finally:
        for layer, momentum in zip(normalising, before, strict=True):
            layer.momentum = momentum


def _mean_weights(classifier: Classifier, members: Sequence[Path]) -> list[np.ndarray]:
    mean: list[np.ndarray] = []
    for member in members:
        classifier.scoring.load_weights(RunFolder(member).best)
        shares = [weights.astype(np.float64) / len(members) for weights in classifier.scoring.get_weights()]
        mean = [total + share for total, share in zip(mean, shares, strict=True)] if mean else shares
    return mean


def _described(member: Path) -> dict[str, Any]:
    return {
        "run": member.resolve().name,
        "seed": FitConfig.read(member).seed,
        "weights_sha256": RunFolder(member).weights_sha256(),
    }


def _common_settings(members: Sequence[Path]) -> FitConfig:
    """The first member's settings, when the others have the same with other seeds."""
    if len(members) < 2:
        raise RunError(f"Received: {len(members)} run to average. Expected: at least two, of different seeds.")
    for member in members:
        described = RunFolder(member).described()
        if not RunFolder(member).finished:
            raise RunError(f"Received: run {member}, which is not finished. Expected: a run after `dermq-train fit`.")
        if (found := recipe_of(member)) != RECIPE:
            raise RunError(
                f"Received: run {member} by code that trains otherwise (recipe {found}, this is {RECIPE}). Expected: "
                "runs of this version."
            )
        if described.get("averaged"):
            raise RunError(f"Received: run {member}, an average itself. Expected: the runs that it is the average of.")
        if not described.get("goes_on_from"):
            raise RunError(
                f"Received: run {member}, whose head began with random numbers of its own: the weights of such runs "
                "have no mean. Expected: runs that go on from the same run, by `dermq-train fit --weights RUN`."
            )
    configs = [FitConfig.read(member) for member in members]
    if configs[0].split == RANDOM_IMAGES:
        raise RunError(f"Received: run {members[0]} of a random split of images. Expected: runs of the clean preset.")
    if len({config.seed for config in configs}) < len(configs):
        raise RunError("Received: two runs with the same seed. Expected: runs that differ in their seed.")
    first = RunFolder(members[0]).described()
    for member, config in zip(members[1:], configs[1:], strict=True):
        differ = set(configs[0].differences(config)) - {"seed"}
        theirs = RunFolder(member).described()
        differ |= {name for name in ("split_sha256", "data") if theirs.get(name) != first.get(name)}
        if differ:
            raise RunError(
                f"Received: run {member}, which differs from {members[0]} in: {', '.join(sorted(differ))}. Expected: "
                "runs that differ in their seed and in nothing else, or their weights have no mean."
            )
    return configs[0]
