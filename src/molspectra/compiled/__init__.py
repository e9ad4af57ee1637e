"""Compiled kernels for the CPU (extra `fast`): whether they are used, and the threads that run them.

A kernel is an addition beside readable torch, equal to it up to rounding. Modules that define kernels import
numba themselves and are imported on first use, so that nothing here costs time or needs numba.
"""

from molspectra.compiled.switch import Kernels, fast, installed, kernels, use, use_setting

__all__ = ["Kernels", "fast", "installed", "kernels", "use", "use_setting"]
