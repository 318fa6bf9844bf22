"""How the C library hands out memory on a CPU."""

import ctypes
import logging

log = logging.getLogger(__name__)

# Parameters of mallopt, from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1  # bytes; more than is ever free at the top of the heap, and the largest int


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, so that the next step finds it again.

    A step frees as much as it allocates. By default glibc gives large blocks back to the system,
    and each step then waits for fresh pages, hundreds of thousands of them. There is no way back
    within the process; its size stays at its peak.

    Returns:
        Whether the C library can do so: glibc can; others (macOS, musl) stay as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        log.debug("this C library has no mallopt: freed memory is handled its own way")
        return False
    # No blocks of their own outside the heap, and a heap that never shrinks.
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))
