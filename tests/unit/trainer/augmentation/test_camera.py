"""Changes that hide where an image came from."""

import numpy as np

from trainer.augmentation.augment import Augmentation
from trainer.augmentation.camera import change_camera
from worker.synthetic.lesion import draw_lesion


def test_an_image_keeps_its_shape_and_its_lesion() -> None:
    picture, rng = draw_lesion(3, width=96, height=96), np.random.default_rng(1)
    changed = [change_camera(picture.copy(), rng) for _ in range(60)]
    assert {image.shape for image in changed} == {(96, 96, 3)}
    assert {image.dtype for image in changed} == {np.dtype(np.uint8)}
    grey, others = picture.mean(axis=2).ravel(), [image.mean(axis=2).ravel() for image in changed]
    assert min(np.corrcoef(grey, other)[0, 1] for other in others) > 0.9
    assert len({image.tobytes() for image in changed}) > 40


def test_it_does_not_depend_on_more_than_its_random_numbers() -> None:
    picture = draw_lesion(4, width=80, height=80)
    stronger = Augmentation.of("cameras", 0.3)
    first, second = (stronger(picture, 64, np.random.default_rng(9)) for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, Augmentation.of("standard", 0.3)(picture, 64, np.random.default_rng(9)))


def test_the_aspect_changes_enough_to_undo_a_squashed_frame() -> None:
    """A frame of 4:3 that was squashed to a square is 4:3 again where one axis is 4/3 as long as the other."""
    assert Augmentation.of("cameras", 0).stretch ** 2 >= 4 / 3
