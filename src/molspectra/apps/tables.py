"""Results as Arrow tables and pandas frames."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from molspectra.chem.readers import Rejection
from molspectra.data.atomic import atomic_file, naming
from molspectra.data.output import frame_of

ABOUT = b"molspectra"
"""Key of a table's own description, JSON in the metadata of its schema."""


class Tabular(ABC):
    """A result that has a `table`."""

    @abstractmethod
    def table(self) -> pa.Table:
        """The result as an Arrow table."""

    def frame(self) -> Any:
        """The table as a pandas frame, which has no place for units.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return frame_of(self.table())


def write_rejected(path: Path, rejected: Sequence[Rejection]) -> None:
    """Write what was left out of a file beside it, as `FILE.rejected.jsonl`; nothing where nothing was.

    A list of an earlier file of that name goes.

    Raises:
        WriteError: it cannot be written.
    """
    beside = path.with_name(f"{path.name}.rejected.jsonl")
    if not rejected:
        with naming(beside):
            beside.unlink(missing_ok=True)
        return
    lines = (json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in rejected)
    with atomic_file(beside) as file:
        file.write("".join(lines).encode(errors="replace"))


def table_of(columns: Mapping[str, Any], about: Mapping[str, Any]) -> pa.Table:
    """A table of columns (lists, arrays or Arrow arrays) with a description in its schema's metadata."""
    arrays = {
        name: values if isinstance(values, pa.Array) else pa.array(values) for name, values in columns.items()
    }
    for name, array in arrays.items():
        if pa.types.is_null(array.type):  # a text that no row has
            arrays[name] = array.cast(pa.string())
    return pa.table(arrays).replace_schema_metadata({ABOUT: json.dumps(dict(about), ensure_ascii=False)})
