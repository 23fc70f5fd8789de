"""Freed memory is kept: a training step frees and asks again for the same large buffers."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Tell glibc not to hand freed blocks back to the system; returns whether it took effect (Linux with glibc only).

    Without this every large temporary of a step is mapped, zeroed page by page and unmapped anew, a large
    share of a small step on CPU.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 * 2**20))
    return all(mallopt(option, value) for option, value in settings)
