"""Memory that is freed is kept for what comes next, which on a CPU are the buffers of the next step.

The C library hands large blocks back to the system at once and asks for them again, and the system gives each page
anew, cleared: of a step at 64x64 and batch 64, 120,000 pages, a sixth of its time (docs/performance.md).
"""

import ctypes
import os

# Of mallopt(3), glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep() -> bool:
    """Lets the C library keep freed memory, in one heap for all threads; returns whether it does.

    For a process whose work repeats; to be called before it starts threads. Only glibc can do it, and settings of the
    user's (MALLOC_..., GLIBC_TUNABLES) stay as they are. Memory once used is then the process's until it ends.
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
