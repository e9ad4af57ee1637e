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
from molspectra.errors import DamagedError, MismatchError, MissingExtraError
from molspectra.search.segment import file_hash
from molspectra.search.vectors import Floats

LISTS_PER_PROBE = 2
"""A query searches one in this many of the inverted lists."""
CANDIDATES = 32
"""Proposed entries per answer of a search."""

_MIN_CANDIDATES = 512
_PER_LIST = 40  # training vectors per list; faiss complains below 39


def faiss() -> Any:
    """Import faiss.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return import_module("faiss")
    except ImportError as error:
        raise MissingExtraError(
            "approximate search needs the package faiss-cpu; pip install 'molspectra[search]'"
        ) from error


def build(vectors: list[npt.NDArray[np.floating]], path: Path) -> str:
    """Build an approximate index and write it; returns the SHA-256 of the file.

    Args:
        vectors: [n, D] in pieces, one per segment.
        path: file to write.

    Raises:
        InputError: faiss is not installed, or the file cannot be written.
    """
    library = faiss()
    count, width = sum(map(len, vectors)), vectors[0].shape[1]
    lists = max(1, min(round(2 * math.sqrt(count)), count // _PER_LIST))
    index = library.index_factory(width, f"IVF{lists},SQ8", library.METRIC_INNER_PRODUCT)
    training = np.linspace(0, count - 1, min(count, max(lists * _PER_LIST, 4096))).astype(np.int64)
    index.train(take(vectors, training))
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
        raise DamagedError(f"{path}: missing or damaged; molspectra index --approximate makes it again")
    try:
        index = library.read_index(str(path))
    except RuntimeError as error:
        raise DamagedError(f"{path}: faiss cannot read it; make it again") from error
    if index.ntotal != rows or index.d != width:
        raise MismatchError(f"{path}: it does not belong to this library; make it again")
    index.nprobe = max(1, index.nlist // LISTS_PER_PROBE)
    return index


def candidates(index: Any, vector: Floats, top: int) -> npt.NDArray[np.int64]:
    """Rows of the probable nearest entries of a vector [D], ascending."""
    count = min(max(_MIN_CANDIDATES, CANDIDATES * top), index.ntotal)
    _, rows = index.search(np.ascontiguousarray(vector[None], np.float32), count)
    candidate_rows: npt.NDArray[np.int64] = np.sort(rows[0][rows[0] >= 0])
    return candidate_rows


def take(pieces: list[npt.NDArray[np.floating]], rows: npt.NDArray[np.int64]) -> Floats:
    """Vectors [k, D] of some rows [k], ascending, where the vectors are in several pieces."""
    offsets = np.cumsum([0, *map(len, pieces)])
    bounds = np.searchsorted(rows, offsets)
    return np.concatenate(
        [
            np.asarray(piece[rows[first:last] - offset], np.float32)
            for piece, offset, first, last in zip(pieces, offsets[:-1], bounds[:-1], bounds[1:], strict=True)
        ]
    )
