"""What this processor can compute with, read from ``/proc/cpuinfo``. Loads nothing, for every command asks it."""

from functools import cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
#: Names of the instructions that multiply in bfloat16: of x86, and of Arm.
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
#: Names of those that multiply 8-bit integers without an intermediate overflow.
_INTEGER_DOT_PRODUCT = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}


def has_bfloat16() -> bool:
    """Whether it multiplies in bfloat16."""
    return bool(_BFLOAT16 & _flags())


def has_integer_dot_product() -> bool:
    """Whether it multiplies 8-bit integers without an intermediate overflow (VNNI)."""
    return bool(_INTEGER_DOT_PRODUCT & _flags())


@cache
def _flags() -> set[str]:
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith(("flags", "Features"))), "").split())
