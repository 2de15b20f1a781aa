"""Start a training from the network of a bundle, without letting its training images into validation or test."""

from pathlib import Path

import keras
import pandas as pd

from trainer.config import ALL_FOLDS, RunConfig, fold_sources
from trainer.data.diagnoses import DIAGNOSES
from trainer.data.readers.ham10000 import NAME as HAM10000
from trainer.data.splits import TEST, TRAIN, UNUSED, VALIDATION, draw_split, manifest_sha256
from trainer.errors import WeightsError
from worker.inference.bundle import Bundle, load_bundle
from worker.inference.bundle_reference import MANIFEST_NAME

#: File of a bundle with the network's weights.
MODEL_NAME = "model.keras"


def starts_from_bundle(weights: str) -> bool:
    """Whether ``--weights`` names the folder of a bundle."""
    return (Path(weights) / MANIFEST_NAME).is_file()


def copy_bundle_weights(bundle: Bundle, network: keras.Model, config: RunConfig) -> None:
    """Give a new network the weights of a bundle's.

    A network of seven classes may start from a bundle of two: the logits of melanoma and nevus are half of the bundle's
    logit, with either sign, so that it tells these two apart as the bundle does. The other logits stay as they are.

    Raises:
        WeightsError: the bundle's network is another one.
    """
    trained = keras.saving.load_model(bundle.folder / MODEL_NAME, compile=False)
    theirs = {layer.name: layer for layer in trained.layers}
    try:
        own = {layer.name: layer for layer in network.layers if layer.weights}
        if "logits" in own and "logits" not in theirs:
            # The last layer of seven classes is a difference of logits, which is fixed.
            del own["probability"]
            _start_logits(own.pop("logits"), theirs["probability"])
        for name, layer in own.items():
            layer.set_weights(theirs[name].get_weights())
    except (KeyError, ValueError) as error:
        raise WeightsError(
            f"The network of --weights {config.weights} does not fit {config.backbone} for {config.classes} classes "
            f"({error}). Name a bundle of the same backbone and classes."
        ) from None


def _start_logits(layer: keras.Layer, probability: keras.Layer) -> None:
    """Set two of the seven logits, weights (hidden, 7) and (7,), by the two-class logit, (hidden, 1) and (1,)."""
    weights = layer.get_weights()
    for each, of_two in zip(weights, probability.get_weights(), strict=True):
        half = of_two[..., 0] / 2
        each[..., DIAGNOSES.index("mel")], each[..., DIAGNOSES.index("nv")] = half, -half
    layer.set_weights(weights)


def keep_unseen_apart(split: "pd.Series[str]", everything: pd.DataFrame, config: RunConfig) -> "pd.Series[str]":
    """Keep what the bundle was trained on, and what is of the same groups, out of validation.

    Such an image says nothing about new ones. Where the run has a validation side of its own, it is trained on; where
    whole sources are held out, images of their groups are not used.

    Args:
        split: side of each image.
        everything: rows with ``image_id``, ``lesion_id``, ``dx``, ``dataset``, ``collection`` and ``group``.
        config: whose ``weights`` name a bundle.

    Raises:
        WeightsError: it is unknown which of these images the bundle was trained on; or the run would hold out nothing
            else, or has them in test.
    """
    seen = _images_of_bundle(load_bundle(Path(config.weights)), everything, config)
    related = everything["group"].isin(set(everything.loc[seen, "group"]))
    if (seen & (split == TEST)).any():
        raise WeightsError(
            f"--weights {config.weights} was trained on {int((seen & (split == TEST)).sum())} images of this test "
            "split. Take its split seed and near-duplicates, or start from imagenet."
        )
    sources = fold_sources(config.fold)
    if config.fold not in ("", ALL_FOLDS) and (seen & (split == VALIDATION)).any():
        which = f"the sources {', '.join(sources)}" if sources else f"fold {config.fold}"
        raise WeightsError(
            f"--weights {config.weights} was trained on images of {which}, which --fold would hold out. Hold out other "
            "sources, or start from imagenet."
        )
    return split.mask(related & (split == VALIDATION), UNUSED if sources else TRAIN)


def _images_of_bundle(bundle: Bundle, everything: pd.DataFrame, config: RunConfig) -> "pd.Series[bool]":
    """Which images the bundle was trained on, or chosen by.

    A bundle names its split by a SHA-256 and holds no list of images, so the split is drawn again.
    """
    own = everything[everything["collection"] == HAM10000]
    # Bundles up to version 9 were made from HAM10000 alone, later ones from all data sets of their run.
    for rows in (everything, own):
        for fold in ("", ALL_FOLDS) if len(rows) else ():
            split = draw_split(rows, kind=config.split, seed=config.split_seed, fold=fold)
            if manifest_sha256(rows.assign(split=split)) == bundle.manifest.split_manifest_sha256:
                return everything["image_id"].isin(set(rows.loc[split.isin((TRAIN, VALIDATION)), "image_id"]))
    raise WeightsError(
        f"--weights {bundle.folder} was made under the split {bundle.manifest.split_manifest_sha256[:12]}, which these "
        "data do not give, so its training images may be in this run's test split. Name the data sets that it was made "
        "from and no other, or HAM10000 and any others for a bundle that was made from HAM10000 alone, with the same "
        "--split-seed and --near-duplicates; or start from imagenet."
    )
