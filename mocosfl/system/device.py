"""Where to compute, and how this process keeps its memory."""

import ctypes
import logging

import torch

log = logging.getLogger(__name__)


def chosen_device(accelerator: str) -> torch.device:
    """Return the device of an accelerator; `auto` is a GPU where there is one."""
    use_gpu = accelerator == "gpu" or (accelerator == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if use_gpu else "cpu")


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
