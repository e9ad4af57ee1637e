"""`molspectra report`: one HTML page about runs."""

from molspectra.apps.commands.parser import CommandParser
from molspectra.printable import say


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = CommandParser("report", description="Write one self-contained HTML page about runs.")
    parser.add_argument(
        "runs",
        nargs="+",
        help="directories of runs or ensembles, evaluated before with `molspectra evaluate`",
    )
    parser.add_argument("--out", default="report.html", help="page to write")
    parser.add_argument("--title", default="molspectra report", help="heading of the page")
    parser.add_shared("--overwrite")
    options = parser.parse_args(arguments)

    from molspectra.apps.api import report

    say(report(options.runs, options.out, title=options.title, overwrite=options.overwrite))
    return 0
