"""Process settings of the command line, made before torch is loaded: memory allocator and threads.

Training frees and allocates tensors of many megabytes all the time. glibc's allocator returns each to the
operating system, so that every page is faulted in and zeroed again at every step. Waiting OpenMP threads
spin, which takes time from other programs. Importing molspectra changes nothing; scripts can call
`prepare_process()` first.
"""

import ctypes
import logging
import os
import platform

from molspectra.printable import say

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of mallopt(3)."""

SPINS = "10000"
"""Turns that a waiting thread of GNU OpenMP spins: about 0.1 ms, longer than between small operations."""

ALLOCATOR = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
"""Environment variables with which a user sets the allocator; they take precedence."""


def prepare_process() -> None:
    """Keep freed memory in the process (glibc only), and let waiting threads sleep soon.

    Variables already in the environment take precedence. OpenMP reads them when torch is loaded, so call this
    before; a second call changes nothing.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    keep_freed_memory()


def show_messages() -> None:
    """Print log messages of the package, such as that it compiles kernels, on standard error."""
    log = logging.getLogger("molspectra")
    if not log.handlers:
        log.addHandler(_StandardError())
        log.setLevel(logging.INFO)


class _StandardError(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Print a message the way the command line prints errors."""
        say(f"molspectra: {record.getMessage()}", error=True)


def keep_freed_memory() -> bool:
    """Let glibc's malloc serve large blocks from its heap and never shrink it; False if nothing was set."""
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in ALLOCATOR):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
