"""What dermoscopy looks like: measures by hand, distances by the formula, and what is told from it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.cbook import get_sample_data
from sklearn.datasets import load_sample_images

from tests.gates import checked
from trainer.export.ood_statistics import distances, fit_image_statistics
from worker.errors import BundleError
from worker.images.colour import RGBImage
from worker.images.decode import decode
from worker.images.out_of_distribution import MEASURES, ImageStatistics, measure_image_statistics
from worker.images.preprocess import Preprocessing
from worker.inference.bundle import QualityLimits, load_bundle
from worker.inference.quality_gate import Measured
from worker.scoring.loaded_model import LoadedModel
from worker.synthetic.archive import draw_letter
from worker.synthetic.lesion import draw_lesion

PREPROCESSING = Preprocessing(size=224)
SHIPPED = Path(__file__).parents[4] / "models" / "ham10000-mel-nv"


def lesions(seeds: range) -> np.ndarray:
    return np.stack([PREPROCESSING(draw_lesion(seed, width=300, height=225)) for seed in seeds])


def portrait() -> RGBImage:
    return decode(Path(get_sample_data("grace_hopper.jpg", asfileobj=False)).read_bytes())


def radiograph() -> RGBImage:
    """Grey, bright in the middle, dark around."""
    x, y = np.meshgrid(np.linspace(-1, 1, 400), np.linspace(-1, 1, 400))
    grey = 230 * np.exp(-3 * (x**2 + y**2)) + 10 * np.random.default_rng(1).random(x.shape)
    return np.repeat(grey[..., None].astype(np.uint8), 3, axis=2)


def no_dermoscopy() -> np.ndarray:
    pictures = (draw_letter(), radiograph(), *load_sample_images().images, portrait())
    return np.stack([PREPROCESSING(picture) for picture in pictures])


def test_measures_of_a_flat_image_are_its_colour() -> None:
    grey = measure_image_statistics(np.full((224, 224, 3), 119, np.uint8))
    # CIELAB of the mid grey: L is 50, a and b are 0.
    np.testing.assert_allclose(grey[:3], (50, 0, 0), atol=0.2)
    np.testing.assert_allclose(grey[3:6], np.log(0.5), atol=1e-3)
    np.testing.assert_allclose(grey[6:9], 0, atol=1e-3)
    assert grey.shape == (MEASURES,)


def test_the_middle_is_compared_with_the_rim() -> None:
    image = np.zeros((224, 224, 3), np.uint8)
    image[28:-28, 28:-28] = 255
    # The middle is white, L 100; the rim, an eighth of the side wide, is black.
    assert measure_image_statistics(image)[6] == pytest.approx(100, abs=0.1)


def test_fine_detail_is_in_the_first_level_and_coarse_detail_in_later_ones() -> None:
    def stripes(width: int) -> RGBImage:
        columns = (np.arange(224) // width % 2 * 100 + 80).astype(np.uint8)
        return np.broadcast_to(columns[None, :, None], (224, 224, 3)).copy()

    assert np.argmax(measure_image_statistics(stripes(1))[9:14]) == 0
    # Each level takes the periods of half the frequency of the one before: two pixels, four to eight, eight to sixteen.
    assert np.argmax(measure_image_statistics(stripes(8))[9:14]) == 2


def test_the_distance_is_mahalanobis_from_the_nearest_look() -> None:
    images = lesions(range(40))
    measures = np.stack([measure_image_statistics(image) for image in images])
    scale = measures.std(axis=0)
    looks = np.stack((measures.mean(axis=0), measures[7]))
    appearance = ImageStatistics(mean=looks, precision=np.stack([np.diag(1 / scale**2)] * 2))
    each = np.sqrt((((measures[:, None] - looks) / scale) ** 2).sum(axis=2))
    np.testing.assert_allclose(distances(appearance, images), each.min(axis=1), atol=1e-6)
    assert np.argmin(each[7]) == 1


def test_letters_photographs_and_radiographs_are_told_from_what_it_was_shown() -> None:
    appearance = fit_image_statistics(lesions(range(150)), seed=1)
    alike = distances(appearance, lesions(range(150, 250)))
    # Half of what it was shown is alike by the root of the number of measures, more or less.
    assert 0.5 * MEASURES**0.5 < np.median(alike) < 2 * MEASURES**0.5
    assert distances(appearance, no_dermoscopy()).min() > alike.max()


def test_a_dermatoscope_with_a_round_field_is_no_other_world() -> None:
    appearance = fit_image_statistics(lesions(range(150)), seed=1)
    x, y = np.meshgrid(*[np.linspace(-1, 1, 224)] * 2)
    rimmed = lesions(range(150, 200)) * (np.hypot(x, y) < 0.9)[..., None].astype(np.uint8)
    assert distances(appearance, rimmed).max() < distances(appearance, no_dermoscopy()).min()
    # The look without a rim would send them all farther away.
    unrimmed = ImageStatistics(mean=appearance.mean[:1], precision=appearance.precision[:1])
    assert distances(unrimmed, rimmed).min() > distances(appearance, rimmed).max()


def test_two_images_are_enough_for_a_description() -> None:
    appearance = fit_image_statistics(lesions(range(2)), seed=1)
    assert np.isfinite(distances(appearance, lesions(range(4)))).all()


def test_it_is_read_back_as_written() -> None:
    appearance = fit_image_statistics(lesions(range(30)), seed=1)
    again = ImageStatistics.from_bytes(appearance.to_bytes())
    np.testing.assert_array_equal(again.mean, appearance.mean)
    np.testing.assert_array_equal(again.precision, appearance.precision)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no archive",
        ImageStatistics(mean=np.zeros(MEASURES), precision=np.eye(MEASURES)).to_bytes(),
        ImageStatistics(mean=np.zeros((1, 3)), precision=np.eye(3)[None]).to_bytes(),
        ImageStatistics(mean=np.zeros((0, MEASURES)), precision=np.zeros((0, MEASURES, MEASURES))).to_bytes(),
        ImageStatistics(mean=np.array(1.0), precision=np.array(1.0)).to_bytes(),
        ImageStatistics(mean=np.full((1, MEASURES), np.nan), precision=np.eye(MEASURES)[None]).to_bytes(),
    ],
)
def test_what_is_not_understood_is_named(data: bytes) -> None:
    with pytest.raises(BundleError, match=r"statistics for the out-of-distribution gate are invalid \(.+\)"):
        ImageStatistics.from_bytes(data)


def test_the_shipped_bundle_stops_letters_radiographs_and_photographs() -> None:
    model = LoadedModel.load(load_bundle(SHIPPED), "openvino")
    for image in (draw_letter(), radiograph(), *load_sample_images().images, portrait()):
        found = checked(model, image)
        assert isinstance(found, tuple)
        # A letter is mostly white.
        assert found[0] in ("out_of_distribution", "glare")
        assert "does not look like dermoscopy" in found[1] or "because it is no skin" in found[1]
    lesion = draw_lesion(3)
    assert isinstance(checked(model, lesion), Measured)


def test_a_bundle_from_before_this_gate_passes_whatever_is_sharp() -> None:
    bundle = load_bundle(SHIPPED)
    described = bundle.manifest.out_of_distribution
    assert described is not None
    older = bundle.manifest.model_copy(
        update={
            "quality": QualityLimits(short_side=224, contrast=3, sharpness=3),
            "out_of_distribution": described.model_copy(update={"file": "features.npz", "limit": None}),
        }
    )
    model = LoadedModel.load(replace(bundle, manifest=older), "openvino")
    assert isinstance(checked(model, draw_letter()), Measured)
