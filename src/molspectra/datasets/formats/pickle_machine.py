"""The machine that carries out the instructions of a pickle and can build nothing but inert values.

`molspectra.datasets.formats.pickled` gives it its instructions.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NoReturn

from molspectra.datasets.formats.inert import (
    STORAGES,
    Record,
    Reference,
    StoredTensor,
    rebuilt,
    storage_reference,
)
from molspectra.datasets.formats.torch_archive import TorchArchive
from molspectra.errors import InputError

_PUT4, _GET1, _NUMBER1, _MARK, _TUPLE = b"rhK(t"
MAX_OPEN = 100_000
"""Collections that may be under construction at once."""
_HOSTILE = re.compile(
    r"(os|posix|nt|ntpath|posixpath|sys|subprocess|pty|platform|shutil|socket|_?ctypes|importlib|runpy|_?pickle"
    r"|_?io|pip|code|codeop|webbrowser|operator|timeit|pdb|bdb|multiprocessing|signal|marshal)\..*"
    r"|(builtins|__builtin__)\.(eval|exec|compile|open|input|[gsd]\w+attr|__import__|breakpoint|globals|locals|vars)"
)
"""Names that give access to the machine; a file with one of them is none of data."""
_PLAIN = (str, bytes, int, float, type(None))


class Batch(Exception):
    """Some items of the root list are complete."""


class Complete(Exception):
    """The structure is complete."""


class Forgotten(Exception):
    """The file refers to an earlier part that was not kept."""


class _Mark:
    """Where a collection under construction begins on the stack."""

    __slots__ = ()


MARK = _Mark()


class PickleMachine:
    """Carries out the instructions of one pickle."""

    def __init__(
        self,
        archive: TorchArchive,
        steps: Sequence[Callable[[PickleMachine], Any]],
        inert: Collection[str],
        *,
        streaming: bool = False,
        forgetful: bool = False,
    ) -> None:
        self.archive, self.steps, self.inert = archive, steps, tuple(inert)
        self.data = archive.pickle
        self.place = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.kept: dict[int, Any] = {}
        self.recent: dict[int, Any] = self.kept
        self.count = 0
        self.references: dict[tuple[str, str], Reference] = {}
        self.streaming, self.forgetful = streaming, forgetful
        self.root: list[Any] | None = None

    def run(self) -> NoReturn:
        """Go on until a batch of items or the whole is complete.

        Raises:
            Batch: `root` holds items.
            Complete: the end.
            InputError: anything that is not as it should be.
        """
        try:
            self._go()
        except (IndexError, struct.error) as error:
            raise self.broken("it ends too early or takes what is not there") from error
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise self.broken("its instructions make no sense") from error

    def _go(self) -> NoReturn:
        """Carry out instructions; those that make up most of a file of tensors right here, for speed."""
        data, steps, stack, recent, marks = self.data, self.steps, self.stack, self.recent, self.marks
        place = self.place
        while True:
            code = data[place]
            if code == _PUT4 and stack[-1] is not MARK:
                recent[
                    data[place + 1] | data[place + 2] << 8 | data[place + 3] << 16 | data[place + 4] << 24
                ] = stack[-1]
                place += 5
            elif code == _GET1:
                self.get(data[place + 1])
                place += 2
            elif code == _NUMBER1:
                stack.append(data[place + 1])
                place += 2
            elif code == _TUPLE and marks:
                at = marks.pop()
                values = tuple(stack[at + 1 :])
                del stack[at:]
                stack.append(values)
                place += 1
            elif code == _MARK and len(marks) < MAX_OPEN:
                marks.append(len(stack))
                stack.append(MARK)
                place += 1
            else:
                self.place = place + 1
                steps[code](self)
                place = self.place

    def items(self) -> Iterator[Any]:
        """Yield the items of the root list batch by batch, forgetting in between what was not used again."""
        going = True
        while going:
            try:
                self.run()
            except Batch:
                pass
            except Complete:
                going = False
                if self.root is None or self.result() is not self.root:
                    raise InputError(f"{self.archive.name}: holds no list") from None
            assert self.root is not None
            batch, self.root[:] = list(self.root), []
            yield from batch
            if self.forgetful:
                if self.recent is self.kept:
                    self.recent = {}
                self.recent.clear()

    def result(self) -> Any:
        """The whole, at the end."""
        if len(self.stack) != 1 or self.marks:
            raise self.broken("its end leaves something open")
        return self.stack[0]

    def broken(self, what: str) -> InputError:
        """An error that names the file and the place."""
        return InputError(f"{self.archive.name}: damaged structure at byte {self.place}: {what}")

    # ---- bytes and stack

    def take(self, size: int) -> memoryview:
        """The next bytes."""
        start, self.place = self.place, self.place + size
        part = self.data[start : self.place]
        if len(part) != size:
            raise IndexError
        return part

    def number(self, form: struct.Struct) -> Any:
        """The next number."""
        (value,) = form.unpack_from(self.data, self.place)
        self.place += form.size
        return value

    def line(self) -> str:
        """A text up to the end of its line."""
        start = self.place
        while self.data[self.place] != 10:
            self.place += 1
            if self.place - start > 500:
                raise ValueError
        self.place += 1
        return bytes(self.data[start : self.place - 1]).decode()

    def pop(self) -> Any:
        """The uppermost object."""
        value = self.stack.pop()
        if value is MARK:
            raise IndexError
        return value

    def popped(self) -> list[Any]:
        """All objects above the last mark."""
        stack = self.stack
        at = self.marks.pop()
        values = stack[at + 1 :]
        del stack[at:]
        return values

    def mark(self) -> None:
        """Begin a collection."""
        self.marks.append(len(self.stack))
        if len(self.marks) > MAX_OPEN:
            raise self.broken(f"more than {MAX_OPEN} collections inside one another")
        self.stack.append(MARK)

    def put(self, index: int) -> None:
        """Remember the uppermost object."""
        value = self.stack[-1]
        if value is MARK:
            raise IndexError
        self.recent[index] = value

    def memoize(self) -> None:
        """Remember the uppermost object under the next number."""
        self.put(self.count)
        self.count += 1

    def get(self, index: int) -> None:
        """Fetch a remembered object."""
        value = self.kept.get(index, MARK)
        if value is MARK:
            value = self.recent.get(index, MARK)
            if value is MARK:
                if self.forgetful and self.recent is not self.kept:
                    raise Forgotten
                raise KeyError
            if type(value) is str or type(value) is Reference:
                self.kept[index] = value  # names come back in every item, objects do not
        self.stack.append(value)

    # ---- collections

    def empty_list(self) -> None:
        """A new list; the first object of a pickle is its root."""
        new: list[Any] = []
        if self.streaming and self.root is None and not self.stack:
            self.root = new
        self.stack.append(new)

    def extend(self, values: list[Any]) -> None:
        """Append to the uppermost list."""
        target = self.stack[-1]
        if type(target) is list:
            target += values
            if target is self.root:
                raise Batch
        elif type(target) is Record:
            target.elements += values
        else:
            raise TypeError

    def fill(self, values: list[Any]) -> None:
        """Enter keys and values, alternating, into the uppermost dictionary."""
        target = self.stack[-1]
        if type(target) is Record:
            target = target.entries
        if type(target) is not dict or len(values) % 2:
            raise TypeError
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[self.key(key)] = value

    def key(self, value: Any) -> Any:
        """A key of a dictionary; of plain kinds only, because hashing nested ones may take forever.

        So may long integers, which can be chosen to have the same hash.
        """
        if isinstance(value, _PLAIN) or type(value) is Reference:
            if type(value) is int and value.bit_length() > 64:
                raise self.broken("a key of more than 64 bits")
            return value
        raise self.broken("a key that is neither a text nor a number")

    def add(self, values: list[Any]) -> None:
        """Add to the uppermost set."""
        target = self.stack[-1]
        if type(target) is not set:
            raise TypeError
        target.update(self.key(value) for value in values)

    # ---- classes and objects

    def refer(self, module: str, name: str) -> None:
        """Name a class or function, if this file may."""
        found = self.references.get((module, name))
        if found is None:
            full = f"{module}.{name}"
            if full not in _KNOWN and (_HOSTILE.fullmatch(full) or not full.startswith(self.inert)):
                raise InputError(
                    f"{self.archive.name}: refers to {full[:120]!r}, which data have no need of; "
                    "the file is of another kind, or made to do harm (nothing of it was run)"
                )
            found = self.references[module, name] = Reference(full)
        self.stack.append(found)

    def call(self) -> None:
        """Put an object in the place of a function and its arguments."""
        arguments, function = self.pop(), self.pop()
        if type(function) is not Reference or type(arguments) is not tuple:
            raise self.broken("something that is no function would be called")
        make = _KNOWN.get(function.name)
        self.stack.append(Record(function.name, arguments) if make is None else make(self, arguments))

    def new(self) -> None:
        """Put an object in the place of a class and its arguments."""
        if type(self.stack[-2]) is Reference and self.stack[-2].name in _KNOWN:
            self.call()
            return
        arguments, kind = self.pop(), self.pop()
        if type(kind) is not Reference or type(arguments) is not tuple:
            raise self.broken("something that is no class would be instantiated")
        self.stack.append(Record(kind.name, arguments))

    def build(self) -> None:
        """Give an object its attributes; those of a dictionary (metadata of torch) are left behind."""
        state = self.pop()
        target = self.stack[-1]
        if type(target) is Record:
            target.state = state
        elif type(target) is not dict:
            raise self.broken("attributes of something that has none")

    def persistent(self) -> None:
        """Put a storage in the place of its description."""
        self.stack.append(storage_reference(self.archive, self.pop()))


def _ordered(reader: PickleMachine, arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """Return the dictionary for an OrderedDict, given as nothing or as a list of pairs."""
    if not arguments:
        return {}
    (pairs,) = arguments
    return {reader.key(key): value for key, value in pairs}


def _set(reader: PickleMachine, arguments: tuple[Any, ...]) -> set[Any]:
    (values,) = arguments or ((),)
    if type(values) is not list and type(values) is not tuple:
        raise TypeError
    return {reader.key(value) for value in values}


def _size(reader: PickleMachine, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    (values,) = arguments
    if type(values) is not tuple:
        raise TypeError
    return values


def _parameter(reader: PickleMachine, arguments: tuple[Any, ...]) -> StoredTensor:
    if not arguments or type(arguments[0]) is not StoredTensor:
        raise TypeError
    return arguments[0]


def _never(reader: PickleMachine, arguments: tuple[Any, ...]) -> NoReturn:
    raise reader.broken("a storage outside of its place")


_Make = Callable[[PickleMachine, tuple[Any, ...]], Any]
_KNOWN: dict[str, _Make] = {
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": lambda reader, arguments: {},
    "torch._utils._rebuild_tensor_v2": lambda reader, arguments: rebuilt(reader.archive.name, arguments),
    "torch._utils._rebuild_tensor": lambda reader, arguments: rebuilt(reader.archive.name, arguments),
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": _size,
    **dict.fromkeys(("builtins.set", "__builtin__.set", "builtins.frozenset", "__builtin__.frozenset"), _set),
    **dict.fromkeys(STORAGES, _never),
}
"""All that is made of names: what stands for them here, by the name that a file gives."""
