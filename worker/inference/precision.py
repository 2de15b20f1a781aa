"""The number formats that a bundle may compute with, and the processors that have them."""

from typing import Literal

from worker.errors import EngineError
from worker.processor import has_bfloat16, has_integer_dot_product

#: A bundle's calibration and thresholds are chosen on the outputs of one of them.
Precision = Literal["float32", "bfloat16", "int8"]
#: OpenVINO's hint for each. Layers of a quantised model that are not quantised compute in 32 bits.
HINTS: dict[Precision, str] = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}


def supports(precision: Precision) -> bool:
    """Whether this processor computes a precision as the machine did that the thresholds were chosen on.

    Without the instructions OpenVINO would silently compute in other formats, and an image could get another flag.
    """
    if precision == "bfloat16":
        return has_bfloat16()
    return precision == "float32" or has_integer_dot_product()


def require_precision(precision: Precision, bundle: str) -> None:
    """Refuse a bundle that this processor would compute in another precision.

    Args:
        precision: of the bundle.
        bundle: its name and version, for the error.

    Raises:
        EngineError: the processor lacks the instructions; says which, and what to do.
    """
    if supports(precision):
        return
    needed = "bfloat16 (AVX512_BF16 or AMX)" if precision == "bfloat16" else "8-bit dot products (VNNI)"
    raise EngineError(
        f"The bundle {bundle} computes in {precision} and needs a processor with {needed}; this one has none, and "
        "would give other probabilities than those that its thresholds were chosen on. Set DERMQ_BUNDLE to the float32 "
        "bundle beside it, or score on another machine."
    )
