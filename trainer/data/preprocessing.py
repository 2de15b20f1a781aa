"""The preprocessing of a run's settings, which a worker uses too."""

from trainer.config import RunConfig
from worker.images.preprocess import Preprocessing


def preprocessing_of(config: RunConfig) -> Preprocessing:
    """How an image becomes the model's input."""
    return Preprocessing(size=config.size, fit=config.fit, reduced_decoding=config.reduced_decoding)
