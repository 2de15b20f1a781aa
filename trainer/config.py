"""The settings of a training run."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Everything that decides what a run gives, beside the data and the machine.

    Args:
        classes: ``two`` trains melanoma against nevus; ``seven`` trains all diagnoses and reads melanoma against nevus.
        backbone: name in `trainer.backbones.BACKBONES`.
        size: side of the model's square input in pixels.
        epochs: with two classes, passes over the training melanomas; with seven, rounds of so many draws.
        draws: images in an epoch, with seven classes.
        batch_size: images in a batch; with two classes half of them melanomas.
        learning_rate: peak of the cosine schedule, for AdamW.
        warmup_epochs: epochs in which the rate rises from zero to its peak.
        weight_decay: of AdamW, decoupled (Loshchilov & Hutter, 2019).
        ema_momentum: of the moving average of the weights, which is what is kept.
        gamma: focusing parameter of the focal loss (Lin et al., 2017), with two classes.
        alpha: weight of the melanoma class in the focal loss; 1 - alpha is the nevi's.
        label_smoothing: share of the label spread over all classes (Szegedy et al., 2016), with seven classes.
        split_seed: of the lesion-disjoint split.
        seed: of everything else.
        limit: use only the first so many lesions of each class and split; 0 means all. For trying things out.
    """

    classes: str = "two"
    backbone: str = "efficientnet-lite0"
    size: int = 224
    epochs: int = 30
    draws: int = 3500
    batch_size: int = 32
    learning_rate: float = 5e-4
    warmup_epochs: float = 2.0
    weight_decay: float = 1e-2
    ema_momentum: float = 0.99
    gamma: float = 2.0
    alpha: float = 0.25
    label_smoothing: float = 0.05
    split_seed: int = 20181
    seed: int = 1
    limit: int = 0

    def __post_init__(self) -> None:
        if self.classes not in ("two", "seven"):
            raise ValueError(f"Received: classes={self.classes!r}. Expected: 'two' or 'seven'.")

    def write(self, folder: Path) -> None:
        """Write ``config.json`` into a run folder."""
        (folder / "config.json").write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "FitConfig":
        """Read ``config.json`` of a run folder."""
        return cls(**json.loads((folder / "config.json").read_text()))
