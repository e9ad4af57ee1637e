"""Export of a store to a Parquet file, which pandas, polars, DuckDB and others can read."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from molspectra.data.atomic import atomic_file, naming
from molspectra.data.output import free_path
from molspectra.data.store.schema import schema_of
from molspectra.data.store.store import Store

_GROUP_ROWS = 8192


def export_parquet(store: Store, out: Path | str, *, overwrite: bool = False) -> int:
    """Write all rows of a store into a Parquet file, in bounded memory.

    Columns and their metadata (kind, unit, level) are those of the store; source, licence, level and notes
    are in the schema's metadata under `molspectra`, as JSON. Lines, samples, numbers, positions and forces
    are lists. `molspectra prepare parquet` reads such a file again.

    Args:
        store: the store.
        out: file to write; it is complete or absent, never partial.
        overwrite: replace an existing file.

    Returns:
        The number of rows.

    Raises:
        InputError: if the file exists or cannot be written, or the store is damaged.
    """
    out = free_path(out, overwrite=overwrite)
    store.verify()
    with atomic_file(out) as file:
        # hardly any number occurs twice, so a dictionary of them would only take space
        schema = schema_of(store.metadata)
        writer = pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=False)
        for batch in store.record_batches():
            with naming(out):
                writer.write_batch(batch, row_group_size=_GROUP_ROWS)
        with naming(out):
            writer.close()
    return len(store)
