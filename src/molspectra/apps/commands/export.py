"""`molspectra export`: a store as a Parquet file."""

from molspectra.apps.commands.parser import CommandParser
from molspectra.printable import say


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = CommandParser("export", description="Write a store as a Parquet file.")
    parser.add_argument("store", help="store (.arrow)")
    parser.add_argument("--out", required=True, help="file to write (.parquet)")
    parser.add_shared("--overwrite")
    options = parser.parse_args(arguments)

    from molspectra.data.store.export import export_parquet
    from molspectra.data.store.store import Store

    rows = export_parquet(Store(options.store), options.out, overwrite=options.overwrite)
    say(f"{rows} rows in {options.out}")
    return 0
