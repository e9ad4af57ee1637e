"""The one reader of pickled files: tensors and plain values, and inert records in place of all else.

The instructions of the pickle are carried out here, one by one, by code that can do nothing but build
numbers, texts, lists, tuples, sets, dictionaries and `StoredTensor`s. No module is imported for a file and
nothing that it names is called. An object of a class becomes a `Record` of its name and content where the
caller says so, and is refused otherwise.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NoReturn

from molspectra.datasets.formats.pickle_machine import MARK, Complete, Forgotten, PickleMachine
from molspectra.datasets.formats.torch_archive import TorchArchive


def load_pickled(source: Path | str | TorchArchive, inert: Collection[str] = ()) -> Any:
    """Read a file of `torch.save`.

    Args:
        source: the file, or the archive that it is.
        inert: beginnings of the names of classes that become a `Record`; "" stands for all but those of
            Python itself that give access to the machine. Any other class is refused.

    Returns:
        Numbers, texts, None, lists, tuples, sets, dictionaries (for an OrderedDict, too), and objects of
        the classes `StoredTensor`, `Record` and `Reference`.

    Raises:
        InputError: no such file, a damaged one, a class that is not among `inert`, or anything that no file
            of `torch.save` contains.
    """
    archive = source if isinstance(source, TorchArchive) else TorchArchive(source)
    reader = PickleMachine(archive, _STEPS, inert)
    try:
        reader.run()
    except Complete:
        return reader.result()


def stream_pickled(source: Path | str | TorchArchive, inert: Collection[str] = ()) -> Iterator[Any]:
    """Yield the items of a pickled list one by one, without ever holding the whole list.

    Arguments and errors are those of `load_pickled`; besides, anything else than a list is refused.
    """
    archive = source if isinstance(source, TorchArchive) else TorchArchive(source)
    done = 0
    for forgetful in (True, False):
        try:
            for number, item in enumerate(
                PickleMachine(archive, _STEPS, inert, streaming=True, forgetful=forgetful).items()
            ):
                if number >= done:
                    yield item
                    done += 1
            return
        except Forgotten:
            continue  # once more, keeping everything


def _text(form: struct.Struct) -> Callable[[PickleMachine], None]:
    def step(reader: PickleMachine) -> None:
        reader.stack.append(bytes(reader.take(reader.number(form))).decode("utf-8", "surrogatepass"))

    return step


def _bytes(form: struct.Struct) -> Callable[[PickleMachine], None]:
    def step(reader: PickleMachine) -> None:
        reader.stack.append(bytes(reader.take(reader.number(form))))

    return step


def _value(form: struct.Struct) -> Callable[[PickleMachine], None]:
    def step(reader: PickleMachine) -> None:
        reader.stack.append(reader.number(form))

    return step


def _constant(value: Any) -> Callable[[PickleMachine], None]:
    return lambda reader: reader.stack.append(value)


def _tuple(size: int) -> Callable[[PickleMachine], None]:
    def step(reader: PickleMachine) -> None:
        values = tuple(reader.stack[-size:])
        if len(values) != size or MARK in values:
            raise IndexError
        del reader.stack[-size:]
        reader.stack.append(values)

    return step


def _single(fill: Callable[[PickleMachine, list[Any]], None], size: int) -> Callable[[PickleMachine], None]:
    def step(reader: PickleMachine) -> None:
        fill(reader, [reader.pop() for _ in range(size)][::-1])

    return step


def _protocol(reader: PickleMachine) -> None:
    if reader.number(_BYTE) > 5:
        raise reader.broken("a newer protocol than this program knows")


def _frame(reader: PickleMachine) -> None:
    reader.number(_LONG8)


def _long(reader: PickleMachine) -> None:
    reader.stack.append(int.from_bytes(reader.take(reader.number(_BYTE)), "little", signed=True))


def _global(reader: PickleMachine) -> None:
    reader.refer(reader.line(), reader.line())


def _stack_global(reader: PickleMachine) -> None:
    name, module = reader.pop(), reader.pop()
    if type(name) is not str or type(module) is not str:
        raise TypeError
    reader.refer(module, name)


def _stop(reader: PickleMachine) -> NoReturn:
    raise Complete


def _unknown(reader: PickleMachine) -> NoReturn:
    code = reader.data[reader.place - 1]
    raise reader.broken(f"instruction {code:#04x}, which no file of torch.save has")


_BYTE, _SHORT, _INT = struct.Struct("<B"), struct.Struct("<H"), struct.Struct("<i")
_WORD, _LONG8, _FLOAT = struct.Struct("<I"), struct.Struct("<Q"), struct.Struct(">d")
_BY_CODE: dict[bytes, Callable[[PickleMachine], Any]] = {
    b"\x80": _protocol,
    b"\x95": _frame,
    b".": _stop,
    b"N": _constant(None),
    b"\x88": _constant(True),
    b"\x89": _constant(False),
    b")": _constant(()),
    b"K": _value(_BYTE),
    b"M": _value(_SHORT),
    b"J": _value(_INT),
    b"G": _value(_FLOAT),
    b"\x8a": _long,
    b"X": _text(_WORD),
    b"\x8c": _text(_BYTE),
    b"\x8d": _text(_LONG8),
    b"C": _bytes(_BYTE),
    b"B": _bytes(_WORD),
    b"\x8e": _bytes(_LONG8),
    b"(": PickleMachine.mark,
    b"]": PickleMachine.empty_list,
    b"}": lambda reader: reader.stack.append({}),
    b"\x8f": lambda reader: reader.stack.append(set()),
    b"a": _single(PickleMachine.extend, 1),
    b"e": lambda reader: reader.extend(reader.popped()),
    b"s": _single(PickleMachine.fill, 2),
    b"u": lambda reader: reader.fill(reader.popped()),
    b"\x90": lambda reader: reader.add(reader.popped()),
    b"\x91": lambda reader: reader.stack.append({reader.key(value) for value in reader.popped()}),
    b"t": lambda reader: reader.stack.append(tuple(reader.popped())),
    b"\x85": _tuple(1),
    b"\x86": _tuple(2),
    b"\x87": _tuple(3),
    b"q": lambda reader: reader.put(reader.number(_BYTE)),
    b"r": lambda reader: reader.put(reader.number(_WORD)),
    b"\x94": PickleMachine.memoize,
    b"h": lambda reader: reader.get(reader.number(_BYTE)),
    b"j": lambda reader: reader.get(reader.number(_WORD)),
    b"0": PickleMachine.pop,
    b"1": PickleMachine.popped,
    b"c": _global,
    b"\x93": _stack_global,
    b"R": PickleMachine.call,
    b"\x81": PickleMachine.new,
    b"b": PickleMachine.build,
    b"Q": PickleMachine.persistent,
}
_STEPS = [_BY_CODE.get(bytes([code]), _unknown) for code in range(256)]
"""What to do at each instruction (codes of Python's pickle protocol 2 to 5)."""
