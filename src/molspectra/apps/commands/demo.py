"""`molspectra demo`: the whole path on the bundled data."""

from molspectra.apps.commands.parser import CommandParser
from molspectra.printable import say


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = CommandParser(
        "demo",
        description="Simulate a few molecules, pre-train in two stages on the bundled data, fine-tune the "
        "gap from scratch and from both stages, and write report.html and summary.json. Interrupted, the "
        "same command continues.",
    )
    parser.add_argument("--out", default="runs/demo", help="directory of the demo")
    parser.add_argument(
        "--scale", choices=("full", "smoke"), default="full", help="smoke: a few steps of each"
    )
    parser.add_argument("--overwrite", action="store_true", help="remove an earlier demo in --out first")
    parser.add_shared("--quiet")
    options = parser.parse_args(arguments)

    from molspectra.apps.demo import run_demo, table

    summary = run_demo(options.out, options.scale, overwrite=options.overwrite, show=not options.quiet)
    say(table(summary))
    return 0
