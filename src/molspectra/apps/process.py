"""What the command line arranges for its process before anything heavy is loaded: allocator and threads.

Training frees and asks for tensors of many megabytes all the time. glibc's allocator takes each from the
operating system anew and gives it back, so that every page is faulted in and zeroed again, step after step.
Threads of OpenMP spin while they wait, which takes time from whatever else the machine does. Importing
molspectra changes nothing; a script that wants the same calls `prepare_process()` first.
"""

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""Parameters of mallopt(3)."""

LARGEST = 1 << 30
"""Blocks up to this many bytes come from the heap, where they stay for the next use (mallopt's limit is an int)."""


def prepare_process() -> None:
    """Keep freed memory in the process (glibc only) and let waiting threads sleep.

    What the environment already says wins: `MALLOC_MMAP_THRESHOLD_` or `MALLOC_TRIM_THRESHOLD_`,
    `OMP_WAIT_POLICY`. OpenMP reads its variables when torch is loaded, so call this before.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()


def keep_freed_memory() -> bool:
    """Make glibc's malloc serve large blocks from the heap and never shrink it; False where nothing was set."""
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST) and mallopt(M_TRIM_THRESHOLD, 2 * LARGEST - 1))
