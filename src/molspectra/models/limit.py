"""A limit on the memory of a model that is being built, kept before anything is allocated."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from molspectra.errors import InputError
from molspectra.models.config import ModelConfig


def largest_size(config: ModelConfig) -> str:
    """Name a model's largest size, such as "model.encoder.channels is 256": a mistake where it is absurd."""
    sizes = dict(_integers("model", dataclasses.asdict(config)))
    name = max(sizes, key=sizes.__getitem__)
    return f"{name} is {sizes[name]}"


def _integers(name: str, value: Any) -> Iterator[tuple[str, int]]:
    if isinstance(value, dict):
        for part, inner in value.items():
            yield from _integers(f"{name}.{part}", inner)
    elif isinstance(value, tuple):
        for inner in value:
            yield from _integers(name, inner)
    elif isinstance(value, int):
        yield name, value


class AllocationLimit(TorchFunctionMode):
    """Context in which a module's tensors are made only up to a limit: sizes in a file may be absurd.

    Counted are the functions with which modules make their weights and buffers; what is copied, such as
    constants from numpy, is not.

    Args:
        tensors: largest number of tensors.
        values: largest number of values in all of them.
        refusal: raised in place of the tensor that goes beyond.
    """

    def __init__(self, tensors: int, values: float, refusal: InputError) -> None:
        super().__init__()
        self._tensors, self._values, self._refusal = tensors, values, refusal

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Count the tensor that a call would make, then let it."""
        shape: Sequence[int] | None = None
        if func in (torch.empty, torch.zeros, torch.ones, torch.full):
            shape = args[0] if isinstance(args[0], Sequence) else args
        elif func is torch.linspace:
            shape = args[2:3]
        if shape is not None:
            self._tensors -= 1
            self._values -= prod(shape)
            if min(self._tensors, self._values) < 0:
                raise self._refusal
        return func(*args, **(kwargs or {}))
