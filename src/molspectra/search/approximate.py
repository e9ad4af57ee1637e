"""Approximate search of structure vectors by faiss: an inverted file of 8-bit vectors, then exact scores.

The index only proposes candidates; their scores are computed from the stored vectors, so that an answer's
score is exact and only an answer can be missed. How many of the inverted lists a query searches is chosen by
measurement when the index is built, and kept in it.
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

RECALL = 0.98
"""Share of the nearest entries that are to be among the proposed ones, over the sample of queries."""
NEAREST = 25
"""Entries per query that count in that."""
SAMPLE = 128
"""Queries of the sample: stored vectors with noise."""
NOISE = 0.6
"""Length of the noise, in lengths of a vector: how far a spectrum's vector lies from its molecule's."""
CANDIDATES = 32
"""Proposed entries per answer of a search."""

_MIN_CANDIDATES = 512
_BLOCK = 65_536  # vectors at a time
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
        for start in range(0, len(piece), _BLOCK):
            index.add(np.ascontiguousarray(piece[start : start + _BLOCK], np.float32))
    index.nprobe = probes(index, vectors)
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
    if index.nprobe == 1:  # made before probes were measured
        index.nprobe = max(1, index.nlist // 2)
    return index


def probes(index: Any, vectors: list[npt.NDArray[np.floating]]) -> int:
    """Fewest lists to be searched for a recall of `RECALL`, to within a tenth; at least 2, or all there are.

    Args:
        index: trained and filled.
        vectors: [n, D] in pieces, what it holds.
    """
    generator = np.random.default_rng(0)
    chosen = np.sort(generator.choice(index.ntotal, min(SAMPLE, index.ntotal), replace=False))
    queries = take(vectors, chosen)
    noise = generator.standard_normal(queries.shape, np.float32)
    lengths = np.linalg.norm(queries, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
    queries += NOISE * lengths * noise
    true = _nearest(vectors, queries)

    def is_enough(number: int) -> bool:
        index.nprobe = number
        found = [
            np.isin(rows, candidates(index, query, NEAREST))
            for query, rows in zip(queries, true, strict=True)
        ]
        return bool(np.mean(found) >= RECALL)

    enough = 2
    while enough < index.nlist and not is_enough(enough):
        enough *= 2
    low, high = enough // 2, min(enough, index.nlist)
    while high - low > max(1, high // 10):
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _nearest(pieces: list[npt.NDArray[np.floating]], queries: Floats) -> npt.NDArray[np.int64]:
    """Rows [Q, k] of the k = `NEAREST` largest inner products, in no order."""
    scores, rows = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    offset = 0
    for piece in pieces:
        for start in range(0, len(piece), _BLOCK):
            block = np.asarray(piece[start : start + _BLOCK], np.float32)
            numbers = np.broadcast_to(np.arange(len(block)) + offset, (len(queries), len(block)))
            scores = np.concatenate([scores, queries @ block.T], axis=1)
            rows = np.concatenate([rows, numbers], axis=1)
            best = np.argpartition(-scores, min(NEAREST, scores.shape[1]) - 1, axis=1)[:, :NEAREST]
            scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
            offset += len(block)
    return rows


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
