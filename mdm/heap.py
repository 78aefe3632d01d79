"""How the C library treats memory that a tensor gave back."""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # malloc.h of glibc
NEVER = -1


def keep_freed_memory() -> bool:
    """Let this process reuse freed memory instead of returning it; false where the C library has no such switch.

    A training step frees and asks for the same megabytes again; each time the kernel would hand out zeroed pages,
    which took a tenth of the laptop networks' step. The price: memory in use once stays with the process.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and bool(mallopt(TRIM_THRESHOLD, NEVER) and mallopt(MMAP_MAX, 0))
