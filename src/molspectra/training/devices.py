"""Names of devices: what `loop.accelerator` and `--device` say."""

import re

AUTO = "auto"

_NAMES = re.compile(r"auto|cpu|cuda(:\d{1,3})?|mps")


def is_device(name: str) -> bool:
    """Return whether a run can be told to train on this: auto, cpu, cuda, a GPU by its number, or mps."""
    return _NAMES.fullmatch(name) is not None


def chosen(device: str) -> str:
    """Return the device that a name stands for: "auto" is a CUDA GPU if there is one, else the CPU.

    Apple's GPU is taken where it is named ("mps") and never by "auto": it has no float64, which sums over
    processes and simulations use, and nothing has been tried there.
    """
    if device != AUTO:
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
