"""What the command line arranges for its process before anything heavy is loaded: allocator and threads.

Training frees and asks for tensors of many megabytes all the time. glibc's allocator takes each from the
operating system anew and gives it back, so that every page is faulted in and zeroed again, step after step.
Threads of OpenMP spin while they wait, which takes time from whatever else the machine does. Importing
molspectra changes nothing; a script that wants the same calls `prepare_process()` first.
"""

import ctypes
import logging
import os
import platform
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of mallopt(3)."""

SPINS = "10000"
"""Turns that a thread of GNU's OpenMP waits awake, some 0.1 ms: longer than between two small operations."""

ALLOCATOR = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
"""Environment variables by which a user sets the same."""


def prepare_process() -> None:
    """Keep freed memory in the process (glibc only), and let waiting threads sleep soon.

    What the environment says already wins. OpenMP reads its variables when torch is loaded, so call this
    before; a second call changes nothing.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    keep_freed_memory()


def show_messages() -> None:
    """Show what the package has to say, such as that it compiles kernels, on standard error."""
    log = logging.getLogger("molspectra")
    if not log.handlers:
        log.addHandler(_StandardError())
        log.setLevel(logging.INFO)


class _StandardError(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Print a message the way the command line prints errors."""
        print(f"molspectra: {record.getMessage()}", file=sys.stderr)


def keep_freed_memory() -> bool:
    """Let glibc's malloc serve large blocks from its heap and never shrink it; False if nothing was set."""
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in ALLOCATOR):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
