"""What stands for the objects of a pickled file: tensors to be read, and records that can do nothing."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from molspectra.datasets.formats.torch_archive import TorchArchive
from molspectra.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

STORAGES = {
    f"torch.{name}Storage": (dtype, size)
    for name, dtype, size in (
        ("Double", "float64", 8),
        ("Float", "float32", 4),
        ("Half", "float16", 2),
        ("BFloat16", "bfloat16", 2),
        ("Long", "int64", 8),
        ("Int", "int32", 4),
        ("Short", "int16", 2),
        ("Char", "int8", 1),
        ("Byte", "uint8", 1),
        ("Bool", "bool", 1),
    )
}
"""Number type and bytes per number of the storages of torch, by the name that a file gives."""
MAX_DIMENSIONS = 16


class Reference:
    """A class or function that a file names; never imported."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"<{self.name}, not imported>"


class Record:
    """What a file holds of an object: the name of its class and its content, without the class.

    Attributes:
        name: full name of the class or of the function that would make the object.
        arguments: what it would be called with.
        state: the attributes, mostly a dictionary; None where the file has none.
        entries: of a mapping.
        elements: of a list.
    """

    __slots__ = ("arguments", "elements", "entries", "name", "state")

    def __init__(self, name: str, arguments: tuple[Any, ...] = ()) -> None:
        self.name = name
        self.arguments = arguments
        self.state: Any = None
        self.entries: dict[Any, Any] = {}
        self.elements: list[Any] = []

    def __repr__(self) -> str:
        return f"<inert record of {self.name}>"


class StoredStorage:
    """A storage of an archive: numbers of one type, not yet read."""

    __slots__ = ("archive", "dtype", "itemsize", "key", "numbers")

    def __init__(self, archive: TorchArchive, key: int, dtype: str, itemsize: int, numbers: int) -> None:
        self.archive, self.key, self.dtype, self.itemsize, self.numbers = (
            archive,
            key,
            dtype,
            itemsize,
            numbers,
        )


class StoredTensor:
    """A tensor of an archive whose place, size and strides lie inside its storage; read when asked for.

    Attributes:
        storage: where its numbers are.
        offset: of its first number.
        shape: its sizes.
        stride: numbers between neighbours along each axis.
    """

    __slots__ = ("offset", "shape", "storage", "stride")

    def __init__(
        self, storage: StoredStorage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]
    ) -> None:
        self.storage, self.offset, self.shape, self.stride = storage, offset, shape, stride

    @property
    def dtype(self) -> str:
        """Name of the number type."""
        return self.storage.dtype

    def array(self) -> npt.NDArray[Any]:
        """The numbers as a read-only array over the mapped file, nothing copied.

        Raises:
            InputError: the storage is damaged, or of a type that numpy lacks (bfloat16).
        """
        storage = self.storage
        if storage.dtype == "bfloat16":
            raise InputError(f"{storage.archive.name}: bfloat16 numbers where others are expected")
        numbers = np.frombuffer(storage.archive.storage(storage.key), dtype=storage.dtype)
        strides = tuple(each * storage.itemsize for each in self.stride)
        if 0 in self.shape:
            strides = (0,) * len(strides)
        return np.lib.stride_tricks.as_strided(numbers[self.offset :], self.shape, strides, writeable=False)

    def tensor(self) -> Tensor:
        """The numbers as a tensor of its own, contiguous.

        Raises:
            InputError: the storage is damaged.
        """
        import torch

        storage, dtype = self.storage, getattr(torch, self.storage.dtype)
        if 0 in self.shape:
            return torch.empty(self.shape, dtype=dtype)
        stop = 1 + self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
        part = slice(self.offset * storage.itemsize, stop * storage.itemsize)  # others may share the storage
        numbers = torch.frombuffer(bytearray(storage.archive.storage(storage.key)[part]), dtype=dtype)
        return numbers.as_strided(self.shape, self.stride).clone(memory_format=torch.contiguous_format)


def storage_reference(archive: TorchArchive, description: object) -> StoredStorage:
    """Return the storage that a file describes as ("storage", type, key, device, count).

    Raises:
        InputError: it is described in another way, is not there, or has another size.
    """
    name = archive.name
    if type(description) is not tuple or len(description) != 5 or description[0] != "storage":
        raise InputError(f"{name}: damaged structure: an object from outside the file that is no storage")
    _, kind, key, _, numbers = description
    if type(kind) is not Reference or kind.name not in STORAGES:
        raise InputError(f"{name}: a storage of an unknown type of numbers")
    if (
        type(key) is not str
        or not (key.isascii() and key.isdigit() and len(key) < 12)
        or type(numbers) is not int
    ):
        raise InputError(f"{name}: damaged structure: a storage without a number")
    dtype, itemsize = STORAGES[kind.name]
    if archive.size(int(key)) != numbers * itemsize:
        raise InputError(f"{name}: storage {key} does not have the size that its tensors say")
    return StoredStorage(archive, int(key), dtype, itemsize, numbers)


def rebuilt(name: str, arguments: tuple[Any, ...]) -> StoredTensor:
    """Return the tensor that a file describes as (storage, offset, sizes, strides, ...).

    Raises:
        InputError: it does not lie inside its storage, or repeats its numbers.
    """
    if len(arguments) < 4 or type(arguments[0]) is not StoredStorage:
        raise InputError(f"{name}: damaged structure: a tensor without a storage")
    storage, offset, shape, stride = arguments[:4]
    if not (_counts(shape) and _counts(stride) and len(shape) == len(stride) and type(offset) is int):
        raise InputError(f"{name}: damaged structure: a tensor without sizes and strides")
    count, last = 1, offset
    for size, step in zip(shape, stride, strict=True):
        count *= size
        last += (size - 1) * step
    if count and (offset < 0 or last >= storage.numbers or count > storage.numbers):
        raise InputError(f"{name}: a tensor of shape {shape} lies outside of its storage or repeats numbers")
    if not count and prod(filter(None, shape)) > 1 << 40:
        raise InputError(f"{name}: damaged structure: an empty tensor of impossible shape")
    steps = tuple(
        step if size > 1 else 0 for size, step in zip(shape, stride, strict=True)
    )  # others move nothing
    return StoredTensor(storage, offset, shape, steps)


def _counts(values: object) -> bool:
    """Whether an object is a tuple of a few numbers that are not negative."""
    if type(values) is not tuple or len(values) > MAX_DIMENSIONS:
        return False
    return not values or ({*map(type, values)} == {int} and min(values) >= 0)
