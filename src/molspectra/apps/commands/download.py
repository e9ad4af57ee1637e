"""`molspectra download`: fetch the files of a published dataset."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from molspectra.apps.commands.parser import CommandParser
from molspectra.errors import SettingError
from molspectra.printable import say

if TYPE_CHECKING:
    from molspectra.datasets.fetch.download import Advance, Fetched
    from molspectra.datasets.sources import Source


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    from molspectra.datasets.sources import SOURCES, chosen_files, source

    parser = CommandParser(
        "download",
        description="Fetch a published dataset; interrupted, the same command goes on where it stopped.",
        epilog=f"Datasets: {', '.join(SOURCES)}. --list tells their files and which hashes are known.",
    )
    parser.add_argument("name", nargs="?", help="the dataset")
    parser.add_argument("--out", default=None, metavar="DIR", help="folder for the files; made if missing")
    parser.add_argument(
        "--file", nargs="+", action="extend", default=[], metavar="NAME", help="only these files (* allowed)"
    )
    parser.add_argument(
        "--accept-unverified", action="store_true", help="also fetch files of which no hash is known"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files with other content")
    parser.add_argument("--list", action="store_true", help="list datasets and files, fetch nothing")
    parser.add_shared("--quiet")
    options = parser.parse_args(arguments)
    if options.list:
        names = [options.name] if options.name else list(SOURCES)
        say("\n\n".join(listing(source(name)) for name in names))
        return 0
    if options.name is None or options.out is None:
        raise SettingError("download: name a dataset and --out DIR; --list tells what there is")
    dataset = source(options.name)
    files = chosen_files(dataset, options.file)

    from molspectra.datasets.fetch.download import fetch

    for file in files:
        with _progress(file.name, not options.quiet) as advance:
            done = fetch(
                file,
                Path(options.out),
                accept_unverified=options.accept_unverified,
                overwrite=options.overwrite,
                advance=advance,
            )
        say(fetched_line(done))
    return 0


def listing(dataset: Source) -> str:
    """Return the description of a dataset and its files, one line per file."""
    lines = [f"{dataset.name}: {dataset.title}, licence {dataset.licence or 'not stated'}, {dataset.home}"]
    for file in dataset.files:
        size = "size unknown" if file.size is None else f"{file.size:,} bytes"
        kinds = [kind for kind, value in (("MD5", file.md5), ("SHA-256", file.sha256)) if value]
        pinned = f"{' and '.join(kinds)} pinned" if kinds else "NOT PINNED"
        extra = "" if file.usual else "; only with --file"
        lines.append(f"  {file.name}  {size}; {pinned} ({file.source}){extra}")
    return "\n".join(lines)


def fetched_line(done: Fetched) -> str:
    """Return one line about a file after its download."""
    state = "was there" if done.was_there else "fetched"
    return f"{done.path}: {state}, {done.size:,} bytes, SHA-256 {done.sha256}, checked against {done.checked}"


@contextmanager
def _progress(name: str, show: bool) -> Iterator[Advance | None]:
    """Show a progress bar on standard error if it is a terminal."""
    if not show or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(name, total=None)
        yield lambda there, total: bars.update(task, completed=there, total=total)
