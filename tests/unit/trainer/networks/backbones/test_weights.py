"""First weights: a package's, a download's or a file's, and every way in which a file can be the wrong one."""

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

SIZE = 64


@pytest.fixture(scope="module")
def keras_resnet() -> Any:
    # Here and not above: importing TensorFlow takes ten seconds, which only who runs these tests should wait for.
    import keras

    keras.utils.set_random_seed(7)
    return keras.applications.ResNet50(include_top=False, weights=None, input_shape=(SIZE, SIZE, 3))


@pytest.fixture(scope="module")
def file(keras_resnet: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the official file, but of random weights: saved from a Keras ResNet50."""
    path = tmp_path_factory.mktemp("weights") / "resnet50.weights.h5"
    keras_resnet.save_weights(path)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def backbone(path: Path | str, name: str = "resnet50", given: str = "") -> Any:
    from trainer.networks.backbones import build_backbone

    return build_backbone(name, SIZE, str(path), given)


def refused(path: Path | str, name: str = "resnet50", given: str = "") -> str:
    from trainer.errors import WeightsError

    with pytest.raises(WeightsError) as caught:
        backbone(path, name, given)
    return str(caught.value)


def test_a_saved_keras_resnet_is_taken_with_its_hash_and_computes_the_same(keras_resnet: Any, file: Path) -> None:
    import keras

    image = np.random.default_rng(0).uniform(0, 255, (2, SIZE, SIZE, 3)).astype(np.float32)
    expected = keras_resnet(keras.applications.resnet.preprocess_input(image.copy()), training=False)
    found = backbone(file, given=sha256(file))(image, training=False)
    assert np.allclose(np.asarray(found), np.asarray(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_other_formats_of_keras_are_taken_too(keras_resnet: Any, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"whole{suffix}"
    keras_resnet.save(path)
    taken = backbone(path, given=sha256(path).upper())
    # Blue first in the file, red first in ours.
    kernel = keras_resnet.get_layer("conv1_conv").get_weights()[0]
    assert np.array_equal(taken.get_layer("conv1_conv").get_weights()[0], kernel[:, :, ::-1])
    last = "conv5_block3_3_conv"
    assert np.array_equal(taken.get_layer(last).get_weights()[0], keras_resnet.get_layer(last).get_weights()[0])


def test_a_file_that_is_not_the_official_one_needs_its_hash(file: Path) -> None:
    text = refused(file)
    assert hashlib.md5(file.read_bytes()).hexdigest() in text
    # As keras.applications publishes it.
    assert "4d473c1dd8becc155b73f8504c6f6626" in text
    assert "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5" in text
    assert f"--weights-sha256 {sha256(file)}" in text


def test_a_file_with_another_hash_than_given_is_refused(file: Path) -> None:
    text = refused(file, given="ab" * 32)
    assert f"SHA-256 {sha256(file)}" in text
    assert "ab" * 32 in text


def test_the_official_file_is_known_by_its_hash_and_distinguished_from_the_one_with_top(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from trainer.errors import WeightsError
    from trainer.networks.backbones import BACKBONES
    from trainer.networks.backbones.weights import check_file

    official = BACKBONES["resnet50"].source.official
    assert official is not None
    digest = hashlib.md5(file.read_bytes()).hexdigest()
    check_file(file, "resnet50", replace(official, digest=digest), "")
    with pytest.raises(WeightsError, match=r"with the classification head\. Fetch the one without"):
        check_file(file, "resnet50", replace(official, digest_with_top=digest), "")


def test_a_missing_file_is_named_with_what_else_can_be_given(tmp_path: Path) -> None:
    text = refused(tmp_path / "nowhere.h5")
    assert str(tmp_path / "nowhere.h5") in text
    assert "imagenet, none" in text


def test_a_file_of_another_network_is_recognised_by_its_shapes(file: Path, tmp_path: Path) -> None:
    import keras

    path = tmp_path / "with-top.weights.h5"
    top = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    top.save_weights(path)
    text = refused(path, given=sha256(path))
    assert "has 2 arrays of 27 numbers" in text
    assert "318 arrays of 23,587,712 numbers" in text
    assert "Missing: " in text
    assert "Too many: 1 of (8, 3), 1 of (3,)." in text
    # And one of ResNet50 is no other backbone's.
    assert "efficientnet-lite0 without a classification head" in refused(file, "efficientnet-lite0", sha256(file))


def test_one_array_of_another_shape_is_named(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.weights.h5"
    path.write_bytes(file.read_bytes())
    with h5py.File(path, "r+") as opened:
        found: list[str] = []
        opened.visititems(lambda name, item: found.append(name) if str(item).count("(7, 7, 3, 64)") else None)
        del opened[found[0]]
        opened[found[0]] = np.zeros((7, 7, 4, 64), np.float32)
    text = refused(path, given=sha256(path))
    assert "Missing: 1 of (7, 7, 3, 64). Too many: 1 of (7, 7, 4, 64)." in text


@pytest.mark.parametrize("name", ["text.h5", "text.keras", "other.keras"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("no weights")
    if name.startswith("other"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "no weights")
    assert "not a weights file of Keras" in refused(path, given=sha256(path))


def test_without_a_connection_both_ways_and_the_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    def unreachable(name: str, url: str, **_: object) -> str:
        raise Exception(f"URL fetch failure on {url}: None -- [Errno -2] Name or service not known")

    monkeypatch.setattr(keras.utils, "get_file", unreachable)
    text = refused("imagenet")
    assert "could not be downloaded" in text
    assert "Name or service not known" in text
    assert "--weights resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5" in text
    assert "efficientnet-lite0" in text
    assert "efficientnet-lite2" in text


def test_a_download_is_asked_for_with_its_hash_and_read(
    file: Path, keras_resnet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    asked: dict[str, Any] = {}

    def download(name: str, url: str, **options: Any) -> str:
        asked.update(options, name=name, url=url)
        return str(file)

    monkeypatch.setattr(keras.utils, "get_file", download)
    taken = backbone("imagenet")
    assert asked["file_hash"] == "4d473c1dd8becc155b73f8504c6f6626"
    assert asked["url"].endswith(asked["name"])
    last = "conv5_block3_3_conv"
    assert np.array_equal(taken.get_layer(last).get_weights()[0], keras_resnet.get_layer(last).get_weights()[0])


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of an AugReg file, with random numbers: 14 x 14 patches and a class token."""
    rng = np.random.default_rng(3)
    width, heads = 192, 3

    def draw(*shape: int) -> Any:
        return rng.normal(0, 0.05, shape).astype(np.float32)

    arrays = {
        "cls": draw(1, 1, width),
        "embedding/kernel": draw(16, 16, 3, width),
        "embedding/bias": draw(width),
        "Transformer/posembed_input/pos_embedding": draw(1, 197, width),
        "Transformer/encoder_norm/scale": draw(width),
        "Transformer/encoder_norm/bias": draw(width),
        "head/kernel": draw(width, 1000),
    }
    for block in range(12):
        at = f"Transformer/encoderblock_{block}"
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            arrays |= {f"{at}/{norm}/scale": draw(width), f"{at}/{norm}/bias": draw(width)}
        attention = f"{at}/MultiHeadDotProductAttention_1"
        for part in ("query", "key", "value"):
            arrays |= {
                f"{attention}/{part}/kernel": draw(width, heads, width // heads),
                f"{attention}/{part}/bias": draw(heads, width // heads),
            }
        arrays |= {f"{attention}/out/kernel": draw(heads, width // heads, width), f"{attention}/out/bias": draw(width)}
        arrays |= {
            f"{at}/MlpBlock_3/Dense_0/kernel": draw(width, 4 * width),
            f"{at}/MlpBlock_3/Dense_0/bias": draw(4 * width),
            f"{at}/MlpBlock_3/Dense_1/kernel": draw(4 * width, width),
            f"{at}/MlpBlock_3/Dense_1/bias": draw(width),
        }
    path = tmp_path_factory.mktemp("vit") / "Ti_16.npz"
    np.savez(path, **arrays)
    return path


class TestVisionTransformer:
    """Weights that have to be given: the published .npz file."""

    def test_imagenet_is_answered_with_the_file_that_is_needed(self) -> None:
        text = refused("imagenet", "vit-ti16")
        assert "Ti_16" in text
        assert "--weights FILE --weights-sha256 HEX" in text
        assert "efficientnet-lite0" in text

    def test_the_published_arrays_come_to_their_places(self, published: Path) -> None:
        from trainer.networks.backbones import build_backbone

        model = build_backbone("vit-ti16", 224, str(published), sha256(published))
        arrays = np.load(published)
        # A patch of an image, embedded by hand: kernel, bias and position; the class token before them.
        image = np.random.default_rng(1).integers(0, 256, (1, 224, 224, 3)).astype(np.float32)
        embed = model.get_layer("embedding").output
        import keras

        found = np.asarray(keras.Model(model.input, embed)(image))[0]
        patch = image[0, 16:32, 32:48] / 127.5 - 1
        position = arrays["Transformer/posembed_input/pos_embedding"][0]
        by_hand = np.einsum("hwc,hwcd->d", patch, arrays["embedding/kernel"]) + arrays["embedding/bias"]
        assert np.allclose(found[1 + 14 + 2], by_hand + position[1 + 14 + 2], atol=1e-4)
        assert np.allclose(found[0], arrays["cls"][0, 0] + position[0], atol=1e-5)
        weights = model.get_layer("block3_attention").get_weights()
        at = "Transformer/encoderblock_3/MultiHeadDotProductAttention_1"
        for number, part in enumerate(("query", "key", "value", "out")):
            assert np.array_equal(weights[2 * number], arrays[f"{at}/{part}/kernel"])

    def test_the_positions_are_resized_with_the_input(self, published: Path) -> None:
        from trainer.networks.backbones import build_backbone

        model = build_backbone("vit-ti16", 96, str(published), sha256(published))
        bias = model.get_layer("embedding").get_weights()[1]
        assert bias.shape == (37, 192)
        arrays = np.load(published)
        positions = arrays["Transformer/posembed_input/pos_embedding"][0, 1:] + arrays["embedding/bias"]
        assert bias[1:].min() >= positions.min()
        assert bias[1:].max() <= positions.max()

    def test_a_file_of_the_larger_network_is_refused(self, published: Path) -> None:
        assert "arrays of ViT-S/16" in refused(published, "vit-s16", sha256(published))

    def test_a_side_that_is_no_multiple_of_a_patch_is_refused(self) -> None:
        from trainer.networks.backbones import build_backbone

        with pytest.raises(ValueError, match=r"--size 100 is not possible for vit-ti16: .* a multiple of 16\."):
            build_backbone("vit-ti16", 100, "none")
