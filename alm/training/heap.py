"""The C library's heap, set for training on a CPU."""

import ctypes
import os
import platform

# malloc.h; the values are the largest that pay: blocks of 1 GiB and more are still given back
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER, _LARGE = 2**31 - 1, 2**30


def keep_freed_memory() -> None:
    """Let the process keep what it frees, so that the next step finds its memory in place.

    glibc maps every large block afresh and gives it back when it is freed; the kernel then clears it page by page at each use, which was a
    fifth of a step of a small model (docs/log.md). Peak memory grows by some per cent. Does nothing where the user has set
    `MALLOC_…` variables, or where the C library is not glibc.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_THRESHOLD, _LARGE)
    libc.mallopt(_TRIM_THRESHOLD, _NEVER)
