"""A walk over the instructions of a pickle before torch follows them, which imports and makes nothing.

Torch's weights-only reader runs no foreign code, but follows instructions that end the process or make
numbers out of uninitialised memory: tuples nested so deeply, or doubled so often, that their hash overflows
the stack or takes for ever, and tensors or storages called with a size.
"""

import re
from typing import Any

from molspectra.errors import FormatError

MAX_DEPTH = 100
"""Deepest nesting of tuples in tuples; data have a few levels."""

MAX_PARTS = 10_000_000
"""Largest number of parts of a tuple, with those of the tuples in it, counted as often as they occur."""

_ALLOCATES = re.compile(r"torch\.([a-z_]+\.)*(\w*Storage|\w*Tensor)|(builtins|__builtin__)\.bytearray")
"""Callables of torch's reader that take a size; files of data name them, but never call them."""

_CALLS_ITS_FIRST = re.compile(r"torch\._tensor\._rebuild_from_type(_v2)?")
"""Functions that call the first of their arguments."""

_PUSH, _MARK, _TUPLE, _TUPLES, _TO_MARK, _POP, _CALL, _GET, _PUT, _GLOBAL, _SKIP, _ID = range(12)

_CODES: dict[int, tuple[int, int]] = {
    **dict.fromkeys(b"N\x88\x89]}\x8f", (_PUSH, 0)),  # None, booleans, empty list, dictionary, set
    ord("J"): (_PUSH, 4), ord("K"): (_PUSH, 1), ord("M"): (_PUSH, 2), ord("G"): (_PUSH, 8),
    ord("X"): (_PUSH, -4), ord("T"): (_PUSH, -4), ord("U"): (_PUSH, -1), 0x8A: (_PUSH, -1), 0x8C: (_PUSH, -1),
    ord("("): (_MARK, 0), ord("t"): (_TUPLE, 0), ord(")"): (_TUPLES, 0),
    0x85: (_TUPLES, 1), 0x86: (_TUPLES, 2), 0x87: (_TUPLES, 3),
    **dict.fromkeys(b"eu\x90", (_TO_MARK, 0)),  # appends, set items, add items
    ord("a"): (_POP, 1), ord("s"): (_POP, 2), ord("b"): (_POP, 1), ord("0"): (_POP, 1),
    ord("R"): (_CALL, 0), 0x81: (_CALL, 0), ord("h"): (_GET, 1), ord("j"): (_GET, 4),
    ord("q"): (_PUT, 1), ord("r"): (_PUT, 4), ord("c"): (_GLOBAL, 0), 0x80: (_SKIP, 1), ord("Q"): (_ID, 0),
}  # fmt: skip
"""What an instruction does to the stack, by code, and the length of its argument, bytes, or its number of
parts; a negative length is that of a length."""

_PLAIN = (0, 1, "")
"""Depth, parts and name of the first part of anything but a tuple."""


def check_instructions(pickled: bytes, path: object) -> None:
    """Refuse what would end the process or read uninitialised memory.

    Stops without a word at what torch's reader refuses itself.

    Args:
        pickled: the structure of a file of `torch.save`.
        path: its name in errors.

    Raises:
        FormatError: such an instruction.
    """
    stack: list[Any] = []  # (depth, parts, first name), a name, or None for a mark
    memo: dict[int, Any] = {}
    position, end = 0, len(pickled)
    try:
        while position < end:
            code = pickled[position]
            position += 1
            if code not in _CODES:
                return
            kind, size = _CODES[code]
            if kind in (_PUSH, _SKIP):
                if size < 0:
                    length = int.from_bytes(pickled[position : position - size], "little")
                    position += length - size
                else:
                    position += size
                if kind == _PUSH:
                    stack.append(_PLAIN)
            elif kind in (_GET, _PUT):
                number = int.from_bytes(pickled[position : position + size], "little")
                position += size
                if kind == _GET:
                    stack.append(memo[number])
                else:
                    memo[number] = stack[-1]
            elif kind == _TUPLES:
                parts = stack[len(stack) - size :]
                del stack[len(stack) - size :]
                stack.append(_tuple_of(parts, path))
            elif kind == _MARK:
                stack.append(None)
            elif kind in (_TUPLE, _TO_MARK):
                parts = []
                while (top := stack.pop()) is not None:
                    parts.append(top)
                if kind == _TUPLE:
                    stack.append(_tuple_of(parts[::-1], path))
            elif kind == _POP:
                del stack[len(stack) - size :]
            elif kind == _CALL:
                arguments, called = stack.pop(), stack.pop()
                if isinstance(called, str) and _CALLS_ITS_FIRST.fullmatch(called):
                    called = arguments[2]
                if isinstance(called, str) and _ALLOCATES.fullmatch(called):
                    raise FormatError(f"{path}: calls {called[:120]!r}, which data have no need of")
                stack.append(_PLAIN)
            elif kind == _GLOBAL:
                first = pickled.index(b"\n", position)
                second = pickled.index(b"\n", first + 1)
                module, name = pickled[position:first], pickled[first + 1 : second]
                stack.append(f"{module.decode()}.{name.decode()}")
                position = second + 1
            else:
                stack[-1] = _PLAIN  # a persistent id becomes a storage
    except (IndexError, KeyError, ValueError):  # a structure that torch cannot read either
        return


def _tuple_of(parts: list[Any], path: object) -> tuple[int, int, str]:
    """Depth and parts of a tuple, and the name that comes first in it, "" where none does."""
    depth, total = 1, 1
    for part in parts:
        part_depth, part_total, _ = part if isinstance(part, tuple) else _PLAIN
        depth, total = max(depth, part_depth + 1), total + part_total
    if depth > MAX_DEPTH or total > MAX_PARTS:
        raise FormatError(
            f"{path}: tuples nested {depth} deep with {total} parts, which data have no need of; the file is "
            "made to do harm (nothing of it was run)"
        )
    return depth, total, parts[0] if parts and isinstance(parts[0], str) else ""
