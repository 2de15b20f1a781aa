"""What the card says of a training."""

import pytest

from trainer.card.training import how_trained
from trainer.config import RunConfig
from trainer.run_records import RunOrigin


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"classes": "two"}, "30 epochs over the melanomas with as many nevi; binary focal loss"),
        (
            {"classes": "two", "draw": "sources"},
            "3,500 images, half of them melanomas, 50% of each class from HAM10000",
        ),
        ({"classes": "seven"}, "in which a diagnosis is drawn in proportion to its number of images to the power 0.5;"),
        (
            {"classes": "seven", "draw": "sources", "ham10000_share": 0.4},
            "3,500 images, as many melanomas as nevi, 40% of each class from HAM10000, sources drawn in proportion to "
            "their number of images to the power 0.5; 33% of all images are of the other diagnoses, by the same power; "
            "cross-entropy with label smoothing 0.05",
        ),
    ],
)
def test_it_names_how_images_are_drawn(settings: dict[str, object], said: str) -> None:
    run = RunOrigin.model_construct(config=RunConfig.make(settings), continues_from=None, weights_from="x", teachers=())
    assert said in how_trained(run)
