"""Stops glibc from returning freed memory to the system, so that the next step's buffers reuse it.

By default glibc returns large blocks at once and asks for them again, and the system clears each page anew: 120,000
pages in a step at 64x64 and batch 64, a sixth of its time on a CPU (docs/performance.md).
"""

import ctypes
import os

# Of mallopt(3), glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Makes glibc keep freed memory, in one heap for all threads; returns whether it does.

    To be called before the process starts threads. Does nothing with another C library, or if the user has set
    MALLOC_... or GLIBC_TUNABLES. Memory that was used once then belongs to the process until it ends.
    """
    if "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018  # others have a mallopt that means something else
        mallopt = library.mallopt
    except (AttributeError, OSError, TypeError):
        return False
    done = [mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, 2**31 - 1), mallopt(_ARENA_MAX, 1)]
    return all(done)
