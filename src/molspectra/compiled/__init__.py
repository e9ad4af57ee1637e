"""Compiled kernels for the CPU (extra `fast`): the switch, the building blocks, and the threads.

A kernel is an addition beside readable torch, equal to it up to rounding. Modules that define kernels import
numba and are imported on first use, so that importing this package costs no time and needs no numba.
"""

from molspectra.compiled.switch import Kernels, fast, installed, kernels, use, use_setting

__all__ = ["Kernels", "fast", "installed", "kernels", "use", "use_setting"]
