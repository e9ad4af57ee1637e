"""`molspectra report`: one HTML page about runs."""

from pathlib import Path

from molspectra.apps.commands.parser import CommandParser
from molspectra.errors import InputError


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    parser = CommandParser("report", description="Write one self-contained HTML page about runs.")
    parser.add_argument(
        "runs", nargs="+", help="run directories, evaluated before with `molspectra evaluate`"
    )
    parser.add_argument("--out", default="report.html", help="page to write")
    parser.add_argument("--title", default="molspectra report", help="heading of the page")
    parser.add_argument("--overwrite", action="store_true", help="replace --out")
    options = parser.parse_args(arguments)
    out = Path(options.out)
    if out.exists() and not options.overwrite:
        raise InputError(f"{out} exists already; choose another name or give --overwrite")

    from molspectra.evaluation.collect import collect_report
    from molspectra.evaluation.report import write_report

    print(write_report(out, collect_report(options.runs, options.title)))
    return 0
