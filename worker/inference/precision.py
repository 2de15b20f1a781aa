"""The number formats that a bundle may compute with, and the processors that have them."""

from pathlib import Path
from typing import Literal

from worker.errors import EngineError

#: A bundle's calibration and thresholds are chosen on the outputs of one of them.
Precision = Literal["float32", "bfloat16", "int8"]
#: OpenVINO's hint for each. Layers of a quantised model that are not quantised compute in 32 bits.
HINTS: dict[Precision, str] = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
#: Names, in /proc/cpuinfo, of the instructions that multiply 8-bit integers without an intermediate overflow.
_INTEGER_DOT_PRODUCT = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}
_CPUINFO = Path("/proc/cpuinfo")
#: What OpenVINO says of a processor that multiplies in bfloat16.
_BFLOAT16 = "BF16"


def processor_capabilities() -> list[str]:
    """What OpenVINO says that this processor can do."""
    import openvino

    return list(openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def supports(precision: Precision) -> bool:
    """Whether this processor computes a precision as the machine did that the thresholds were chosen on.

    Without the instructions OpenVINO would silently compute in other formats, and an image could get another flag.
    """
    if precision == "bfloat16":
        return _BFLOAT16 in processor_capabilities()
    return precision == "float32" or _has_integer_dot_product()


def _has_integer_dot_product() -> bool:
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return bool(_INTEGER_DOT_PRODUCT & set(flags.split()))


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
