"""Whether compiled kernels take the place of plain torch."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, cast, get_args

from molspectra.errors import MissingExtraError, SettingError

if TYPE_CHECKING:
    from torch import Tensor

Kernels = Literal["auto", "plain", "compiled"]
"""Which code runs: "compiled" kernels (extra `fast`), "plain" torch, or "auto", compiled where they apply."""

log = logging.getLogger(__name__)

VARIABLE = "MOLSPECTRA_KERNELS"
"""Environment variable that sets the choice of a process; without it "auto"."""

_chosen: ContextVar[Kernels | None] = ContextVar("kernels", default=None)


@cache
def installed() -> bool:
    """Whether numba, which compiles the kernels, can be imported."""
    if find_spec("numba") is None:
        return False
    try:
        import_module("numba")
    except ImportError as error:  # such as beside a numpy version that it does not support
        log.warning("no compiled kernels, because numba cannot be imported: %s", error)
        return False
    return True


def kernels() -> Kernels:
    """The current choice: of `use`, else of the environment variable `MOLSPECTRA_KERNELS`, else "auto".

    Raises:
        SettingError: the variable holds an unknown choice.
        MissingExtraError: it asks for compiled kernels without numba.
    """
    chosen = _chosen.get()
    return _checked(os.environ.get(VARIABLE, "auto"), VARIABLE) if chosen is None else chosen


@contextmanager
def use(choice: Kernels) -> Iterator[None]:
    """Run the block with a choice of kernels.

    Raises:
        SettingError: an unknown choice.
        MissingExtraError: "compiled" without numba.
    """
    token = _chosen.set(_checked(choice, "kernels"))
    try:
        yield
    finally:
        _chosen.reset(token)


@contextmanager
def use_setting(choice: Kernels) -> Iterator[None]:
    """Run the block with the choice of a setting; "auto" keeps the current choice.

    Raises:
        SettingError: as in `use`.
        MissingExtraError: as in `use`.
    """
    with use(kernels() if choice == "auto" else choice):
        yield


def fast(*tensors: "Tensor") -> bool:
    """Whether compiled kernels run for these tensors: on the CPU, all float32 or all float64.

    Never while `torch.compile` or `torch.export` traces, which see only plain torch.

    Raises:
        SettingError: as in `kernels`.
        MissingExtraError: as in `kernels`.
    """
    from torch.compiler import is_compiling

    if is_compiling():
        return False
    choice = kernels()
    if choice == "plain" or not installed():
        return False
    kinds = {(tensor.device.type, str(tensor.dtype)) for tensor in tensors}  # importing this loads no torch
    return len(kinds) == 1 and kinds <= {("cpu", "torch.float32"), ("cpu", "torch.float64")}


def _checked(choice: str, where: str) -> Kernels:
    if choice not in get_args(Kernels):
        raise SettingError(f"{where}: {choice!r} is not one of {', '.join(get_args(Kernels))}")
    if choice == "compiled" and not installed():
        raise MissingExtraError(
            f"{where}: compiled kernels need numba; pip install 'molspectra[fast]', or use plain"
        )
    return cast(Kernels, choice)
