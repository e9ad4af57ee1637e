"""Results as Arrow tables and pandas frames."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from molspectra.errors import MissingExtraError

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
        try:
            return self.table().to_pandas()
        except ImportError as error:
            raise MissingExtraError(
                "a frame needs pandas (pip install pandas); table() needs nothing more"
            ) from error


def table_of(columns: Mapping[str, Any], about: Mapping[str, Any]) -> pa.Table:
    """A table of columns (lists, arrays or Arrow arrays) with a description in its schema's metadata."""
    arrays = {
        name: values if isinstance(values, pa.Array) else pa.array(values) for name, values in columns.items()
    }
    for name, array in arrays.items():
        if pa.types.is_null(array.type):  # a text that no row has
            arrays[name] = array.cast(pa.string())
    return pa.table(arrays).replace_schema_metadata({ABOUT: json.dumps(dict(about), ensure_ascii=False)})


def vectors_of(vectors: npt.NDArray[np.floating]) -> pa.FixedSizeListArray:
    """Vectors [n, D] as a column of lists of length D."""
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
