"""Files of results: their paths, checked before anything is computed, and tables written to them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from molspectra.data.atomic import atomic_file, naming
from molspectra.errors import ExistsError, FormatError, MissingExtraError, WriteError


def free_path(
    out: str | os.PathLike[str], suffixes: Sequence[str] | None = None, *, overwrite: bool = False
) -> Path:
    """The path of a file that can be written.

    Args:
        out: file to write.
        suffixes: those that can be written, in lower case; None for any.
        overwrite: accept that the file exists.

    Raises:
        FormatError: another suffix.
        ExistsError: the file exists, or is a directory.
        WriteError: its directory does not exist.
    """
    path = Path(out)
    if suffixes is not None and path.suffix.lower() not in suffixes:
        raise FormatError(f"{path}: cannot tell what to write by the suffix; known: {', '.join(suffixes)}")
    if path.is_dir() or (path.exists() and not overwrite):
        raise ExistsError(f"{path} exists already; choose another name or give --overwrite")
    if not path.parent.is_dir():
        raise WriteError(f"{path}: the directory {path.parent} does not exist")
    return path


def cache_folder() -> Path:
    """Folder of what can be made again: `$MOLSPECTRA_CACHE`, else `molspectra` in the user's cache."""
    own = os.environ.get("MOLSPECTRA_CACHE")
    shared = os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else (Path(shared) if shared else Path.home() / ".cache") / "molspectra"


def write_table(table: Any, path: Path, *, decimals: int | None = None) -> None:
    """Write an Arrow table as CSV (without lists; a missing text is an empty cell) or else as Parquet.

    Args:
        table: the table.
        path: of the file.
        decimals: to which floating-point numbers of a CSV file are rounded; None keeps all digits.

    Raises:
        WriteError: it cannot be written; the file appears complete or not at all.
    """
    from pyarrow import compute, csv, parquet, types

    with atomic_file(path) as file, naming(path):
        if path.suffix.lower() == ".csv":
            for place, field in enumerate(table.schema) if decimals is not None else ():
                if types.is_floating(field.type):
                    table = table.set_column(place, field.name, compute.round(table[field.name], decimals))
            csv.write_csv(table, file)
        else:
            parquet.write_table(table, file, compression="zstd")


def frame_of(table: Any) -> Any:
    """Return an Arrow table as a pandas frame.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    try:
        return table.to_pandas()
    except ImportError as error:
        raise MissingExtraError("a frame needs pandas, which is not installed; pip install pandas") from error


def vectors_of(vectors: npt.NDArray[np.floating]) -> Any:
    """Vectors [n, D] as an Arrow column of lists of length D."""
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])


def vectors_in(column: Any) -> npt.NDArray[Any]:
    """The vectors [n, D] of an Arrow column that `vectors_of` made."""
    lists = column.combine_chunks()
    return np.asarray(lists.flatten().to_numpy(zero_copy_only=False)).reshape(-1, lists.type.list_size)
