"""Results as tables: Parquet, CSV, NumPy or a pandas frame; a file appears complete or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from molspectra.data.atomic import atomic_file, naming
from molspectra.data.output import free_path
from molspectra.errors import MissingExtraError

ABOUT = b"molspectra"
"""Key of a table's own description, JSON in the metadata of its schema."""


def free_table_path(out: str | os.PathLike[str], suffixes: Sequence[str], *, overwrite: bool = False) -> Path:
    """The path of a file that can be written, as in `free_path`; also of the table beside a `.npy` file.

    Raises:
        InputError: another suffix, a file that exists, or no such directory.
    """
    path = free_path(out, suffixes, overwrite=overwrite)
    if path.suffix.lower() == ".npy":
        free_path(columns_path(path), overwrite=overwrite)
    return path


def columns_path(path: Path) -> Path:
    """The table of identities beside a NumPy file, which has no room for them."""
    return path.with_suffix(".columns.csv")


def table_of(columns: Mapping[str, Any], about: Mapping[str, Any]) -> pa.Table:
    """A table of columns (lists, arrays or Arrow arrays) with a description in its schema's metadata."""
    arrays = {
        name: values if isinstance(values, pa.Array) else pa.array(values) for name, values in columns.items()
    }
    for name, array in arrays.items():
        if pa.types.is_null(array.type):  # a text that no row has
            arrays[name] = array.cast(pa.string())
    return pa.table(arrays).replace_schema_metadata({ABOUT: json.dumps(dict(about), ensure_ascii=False)})


def vectors_of(vectors: npt.NDArray[np.float32]) -> pa.FixedSizeListArray:
    """Vectors [n, D] as a column of lists of length D."""
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])


def frame_of(table: pa.Table) -> Any:
    """The table as a pandas frame.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    try:
        return table.to_pandas()
    except ImportError as error:
        raise MissingExtraError(
            "a frame needs pandas (pip install pandas); table() needs nothing more"
        ) from error


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table as Parquet.

    Raises:
        WriteError: it cannot be written.
    """
    with atomic_file(path) as file, naming(path):
        pq.write_table(table, file, compression="zstd")


def write_csv(table: pa.Table, path: Path) -> None:
    """Write a table without lists as CSV; numbers round-trip, a missing text is an empty cell.

    Raises:
        WriteError: it cannot be written.
    """
    with atomic_file(path) as file, naming(path):
        options = pyarrow.csv.WriteOptions(quoting_style="needed")
        pyarrow.csv.write_csv(table, file, options)


def write_npy(vectors: npt.NDArray[np.float32], table: pa.Table, path: Path) -> None:
    """Write vectors [n, D] as `.npy`, and the columns that tell which they are as a CSV table beside it.

    Raises:
        WriteError: they cannot be written.
    """
    write_csv(table, columns_path(path))
    with atomic_file(path) as file, naming(path):
        np.save(file, vectors, allow_pickle=False)
