"""Approximate search of structure vectors by faiss: an inverted file of 8-bit vectors, then exact scores.

The index only proposes candidates; their scores are computed from the stored vectors, so that an answer's
score is exact and only an answer can be missed.
"""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from molspectra.data.atomic import atomic_file
from molspectra.errors import InputError
from molspectra.search.segment import file_hash
from molspectra.search.vectors import Floats

SEARCHED = 2
"""One in so many of the inverted lists is looked through for a query."""
CANDIDATES = 32
"""Proposed entries per asked answer."""

_LEAST = 512  # candidates
_PER_LIST = 40  # training vectors per list; faiss complains below 39


def faiss() -> Any:
    """The library faiss.

    Raises:
        InputError: it is not installed.
    """
    try:
        return import_module("faiss")
    except ImportError as error:
        raise InputError(
            "approximate search needs the package faiss-cpu; pip install 'molspectra[search]'"
        ) from error


def build(vectors: list[npt.NDArray[np.floating]], path: Path) -> str:
    """Build an approximate index of vectors [n, D], in pieces, and write it; returns its SHA-256.

    Raises:
        InputError: faiss is not installed, or the file cannot be written.
    """
    library = faiss()
    count, width = sum(map(len, vectors)), vectors[0].shape[1]
    lists = max(1, min(round(2 * math.sqrt(count)), count // _PER_LIST))
    index = library.index_factory(width, f"IVF{lists},SQ8", library.METRIC_INNER_PRODUCT)
    chosen = np.linspace(0, count - 1, min(count, max(lists * _PER_LIST, 4096))).astype(np.int64)
    index.train(take(vectors, chosen))
    for piece in vectors:
        for start in range(0, len(piece), 65_536):
            index.add(np.ascontiguousarray(piece[start : start + 65_536], np.float32))
    with atomic_file(path) as file:
        file.write(library.serialize_index(index).tobytes())
    return file_hash(path)


def load(path: Path, expected: str, rows: int, width: int) -> Any:
    """Open an approximate index that `build` wrote.

    Raises:
        InputError: faiss is not installed, or the file is missing or not what was written.
    """
    library = faiss()
    if not path.is_file() or file_hash(path) != expected:
        raise InputError(f"{path}: missing or damaged; molspectra index --approximate makes it again")
    try:
        index = library.read_index(str(path))
    except RuntimeError as error:
        raise InputError(f"{path}: faiss cannot read it; make it again") from error
    if index.ntotal != rows or index.d != width:
        raise InputError(f"{path}: it does not belong to this library; make it again")
    index.nprobe = max(1, index.nlist // SEARCHED)
    return index


def candidates(index: Any, vector: Floats, top: int) -> npt.NDArray[np.int64]:
    """Rows of the entries that may be nearest to a vector [D], ascending."""
    count = min(max(_LEAST, CANDIDATES * top), index.ntotal)
    _, rows = index.search(np.ascontiguousarray(vector[None], np.float32), count)
    found: npt.NDArray[np.int64] = np.sort(rows[0][rows[0] >= 0])
    return found


def take(pieces: list[npt.NDArray[np.floating]], rows: npt.NDArray[np.int64]) -> Floats:
    """Rows (ascending) of vectors that lie in several pieces."""
    starts = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])])
    parts = []
    for number, piece in enumerate(pieces):
        mine = rows[(rows >= starts[number]) & (rows < starts[number + 1])] - starts[number]
        parts.append(np.asarray(piece[mine], np.float32))
    return np.concatenate(parts)
