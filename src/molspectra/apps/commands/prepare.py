"""`molspectra prepare`: make a store from the files of a dataset."""

from molspectra.apps.commands.parser import CommandParser, executor_of
from molspectra.errors import SettingError
from molspectra.printable import say
from molspectra.training.interrupt import Interrupted


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    from molspectra.datasets.registry import NAMES, importer

    if arguments and not arguments[0].startswith("-") and {"-h", "--help"} & set(arguments):
        say(about(arguments[0]))
        return 0
    parser = CommandParser(
        "prepare",
        description="Make a store of a dataset; interrupted, the same command continues.",
        epilog=f"Datasets: {', '.join(NAMES)}; `molspectra prepare NAME --help` tells more of one.",
    )
    parser.add_argument("name", help="the dataset")
    parser.add_argument("--raw", required=True, help="file or folder with the published files")
    parser.add_argument("--out", required=True, help="store to write (.arrow; a folder with --shard-rows)")
    parser.add_argument(
        "--shard-rows",
        type=int,
        default=None,
        metavar="N",
        help="write a folder of files with at most N rows each, for large data (100000 is a good size)",
    )
    parser.add_argument(
        "--option", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="options of the dataset"
    )
    parser.add_argument("--limit", type=int, default=None, help="read only so many records")
    parser.add_executor()
    parser.add_on_error("skip", "bad records")
    parser.add_shared("--overwrite", "--quiet")
    given = parser.parse_args(arguments)
    chosen = importer(given.name)
    options: dict[str, str] = {}
    for text in given.option:
        key, equals, value = text.partition("=")
        if not equals or not key or key in options:
            raise SettingError(f"--option {text}: expected KEY=VALUE, each key once")
        options[key] = value

    from molspectra.datasets.prepare import prepare

    try:
        report = prepare(
            chosen,
            given.raw,
            given.out,
            options=options,
            on_error=given.on_error,
            overwrite=given.overwrite,
            limit=given.limit,
            show=not given.quiet,
            shard_rows=given.shard_rows,
            executor=executor_of(given),
        )
    except KeyboardInterrupt:
        raise Interrupted("interrupted; the same command continues after the last finished part") from None
    for difference in report.differences:
        say(f"molspectra: warning: {report.title}: {difference}", error=True)
    tally = report.tally
    rejected, excluded = sum(tally.rejected.values()), sum(tally.excluded.values())
    spectra = sum(tally.left_out.values())
    say(
        f"{tally.rows} rows in {report.out}; {rejected} records rejected, {tally.repeated} repeated, "
        f"{excluded} excluded, {spectra} spectra left out; details in {report.out}.report.txt"
    )
    return 0


def about(name: str) -> str:
    """Return the help of a dataset: usage, files needed and options.

    Raises:
        InputError: no dataset has this name.
    """
    from molspectra.datasets.registry import importer

    chosen = importer(name)
    lines = [
        f"usage: molspectra prepare {name} --raw PATH --out STORE [--option KEY=VALUE ...] [--limit N] "
        "[--shard-rows N] [--executor node|slurm|flux --workers N] [--on-error raise|skip] [--overwrite] "
        "[--quiet]",
        "",
        f"{chosen.title}: --raw is {chosen.files}",
    ]
    lines += [f"  --option {key}=...  {text}" for key, text in chosen.options.items()]
    return "\n".join(lines)
