"""A processor that would silently compute in another precision is refused, with advice."""

from pathlib import Path

import pytest

from worker.errors import EngineError
from worker.inference import precision
from worker.inference.precision import require_precision, supports


@pytest.mark.parametrize(("capabilities", "has"), [(["FP32", "BF16", "INT8"], True), (["FP32", "INT8"], False)])
def test_bfloat16_is_what_openvino_says(monkeypatch: pytest.MonkeyPatch, capabilities: list[str], has: bool) -> None:
    monkeypatch.setattr(precision, "processor_capabilities", lambda: capabilities)
    assert supports("bfloat16") == has
    assert supports("float32")


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
    monkeypatch.setattr(precision, "_CPUINFO", tmp_path / "cpuinfo")
    assert supports("int8") == has


def test_without_a_list_of_instructions_eight_bits_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(precision, "_CPUINFO", tmp_path / "nowhere")
    with pytest.raises(EngineError, match=r"mine 3 computes in int8 .*VNNI.*DERMQ_BUNDLE to the float32 bundle"):
        require_precision("int8", "mine 3")
