"""What a training step frees is not handed back to the kernel, to be mapped and cleared again."""

import platform
import subprocess
import sys

import pytest

#: Allocates and frees 200 MB twice, and prints the page faults of the second time.
_SCRIPT = """
import ctypes, resource
from trainer.training.malloc import keep_freed_memory

kept = keep_freed_memory() if {keep} else None
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def use():
    block = libc.malloc(200_000_000)
    ctypes.memset(block, 1, 200_000_000)
    libc.free(block)

use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*, keep: bool) -> int:
    script = _SCRIPT.format(keep=keep)
    return int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the GNU C library can be told")
def test_freed_memory_is_used_again_without_page_faults() -> None:
    # 200 MB are 48,829 pages of 4 KB.
    assert faults(keep=True) < 1_000 < faults(keep=False)
