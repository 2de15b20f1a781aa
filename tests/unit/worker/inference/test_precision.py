"""A processor that would silently compute in another precision is refused, with advice."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from worker import processor
from worker.errors import EngineError
from worker.inference.bundle import load_bundle
from worker.inference.precision import require_precision, supports
from worker.scoring.loaded_model import LoadedModel
from worker.settings import SHIPPED_BUNDLE, shipped_bundle


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    processor._flags.cache_clear()
    yield
    processor._flags.cache_clear()


@pytest.mark.parametrize(
    ("flags", "has"),
    [
        ("flags : fpu avx512f avx512_bf16", True),
        ("flags : fpu amx_bf16 amx_tile", True),
        ("Features : fp asimd bf16", True),
        ("flags : fpu avx2 avx512f avx512_vnni", False),
    ],
)
def test_bfloat16_needs_its_instructions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str, has: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\n{flags}\n")
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "cpuinfo")
    assert supports("bfloat16") == has
    assert supports("float32")


def test_a_processor_without_bfloat16_gets_the_float32_bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "nowhere")
    processor._flags.cache_clear()
    package = tmp_path / "worker"
    for name in (SHIPPED_BUNDLE, f"{SHIPPED_BUNDLE}-float32"):
        (tmp_path / "models" / name).mkdir(parents=True)
    monkeypatch.setattr("worker.settings.__file__", str(package / "settings.py"))
    assert shipped_bundle() == tmp_path / "models" / f"{SHIPPED_BUNDLE}-float32"
    monkeypatch.setattr("worker.settings.has_bfloat16", lambda: True)
    assert shipped_bundle() == tmp_path / "models" / SHIPPED_BUNDLE
    (tmp_path / "models" / f"{SHIPPED_BUNDLE}-float32").rmdir()
    monkeypatch.setattr("worker.settings.has_bfloat16", lambda: False)
    assert shipped_bundle() == tmp_path / "models" / SHIPPED_BUNDLE


@pytest.mark.parametrize(
    ("flags", "has"),
    [
        ("flags\t\t: fpu sse avx2 avx512f avx512_vnni", True),
        ("flags : fpu avx2 avx_vnni", True),
        ("Features : fp asimd asimddp", True),
        ("flags : fpu avx2 avx512f", False),
        ("model name : avx512_vnni", False),
    ],
)
def test_eight_bits_need_dot_products(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str, has: bool) -> None:
    """Without them 8-bit products are added in 16 bits, which may overflow: an image could get another flag."""
    (tmp_path / "cpuinfo").write_text(f"processor : 0\n{flags}\n\nprocessor : 1\n")
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "cpuinfo")
    assert supports("int8") == has


def test_without_a_list_of_instructions_eight_bits_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "nowhere")
    processor._flags.cache_clear()
    with pytest.raises(EngineError, match=r"mine 3 computes in int8 .*VNNI.*DERMQ_BUNDLE to the float32 bundle"):
        require_precision("int8", "mine 3")


def test_the_reference_engine_does_not_score_with_thresholds_of_another_precision() -> None:
    bundle = load_bundle(Path(__file__).parents[4] / "models" / SHIPPED_BUNDLE)
    assert bundle.manifest.precision == "bfloat16"
    with pytest.raises(EngineError, match=r"computes in bfloat16, and TensorFlow in float32.*float32 bundle beside"):
        LoadedModel.load(bundle, "tensorflow")


def test_the_twin_is_the_same_network_with_thresholds_of_its_own() -> None:
    models = Path(__file__).parents[4] / "models"
    shipped, twin = (load_bundle(models / name) for name in (SHIPPED_BUNDLE, f"{SHIPPED_BUNDLE}-float32"))
    assert twin.manifest.precision == "float32"
    assert twin.read("model.bin") == shipped.read("model.bin")
    assert twin.preprocessing == shipped.preprocessing
    assert twin.manifest.thresholds != shipped.manifest.thresholds
    assert twin.manifest.training_images is not None
    assert sum(path.stat().st_size for path in twin.folder.rglob("*") if path.is_file()) <= 25_000_000
