"""Keep the memory that a training step frees for the next step.

TensorFlow allocates the buffers again at every step. The GNU C library hands buffers of more than 32 MB
back to the kernel when they are freed, so that each step has its pages mapped and cleared again: 300,000 page faults a
step with EfficientNet-Lite0 at 224 pixels and batches of 32. benchmarks/freed_memory.py measures the cost.
"""

import ctypes
from typing import Any

#: Parameters of mallopt(3), and their values.
_ARENA_MAX, _MMAP_MAX, _TRIM_THRESHOLD, _TOP_PAD = -8, -4, -1, -2
_WANTED = {
    # Only the main heap can grow without mapping; other threads' heaps fall back to it.
    _ARENA_MAX: 1,
    _MMAP_MAX: 0,
    _TRIM_THRESHOLD: -1,
    _TOP_PAD: 64 * 1024 * 1024,
}


def keep_freed_memory() -> bool:
    """Make the C library keep freed memory until the process ends. Call it before TensorFlow is imported.

    Returns:
        Whether it does. With another C library than GNU's nothing happens.
    """
    libc: Any = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    return all(libc.mallopt(parameter, value) == 1 for parameter, value in _WANTED.items())
