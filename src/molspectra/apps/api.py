"""Commands as Python functions, where no lower layer has them already."""

from collections.abc import Sequence
from pathlib import Path

from molspectra.apps.doctor import Check, checks
from molspectra.errors import InputError
from molspectra.reporting.collect import collect_report
from molspectra.reporting.report import write_report


def report(
    runs: Sequence[str | Path],
    out: str | Path = "report.html",
    *,
    title: str = "molspectra report",
    overwrite: bool = False,
) -> Path:
    """Write one self-contained HTML page about runs that were evaluated before.

    Args:
        runs: run directories, of any mix of stages.
        out: the page.
        title: its heading.
        overwrite: replace an existing page.

    Raises:
        InputError: the page exists, a directory is not a run, or its files are damaged.
    """
    out = Path(out)
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists already; choose another name or give --overwrite")
    return write_report(out, collect_report(list(runs), title))


def doctor() -> list[Check]:
    """Check versions, devices and optional parts, and run a self-test of a few seconds."""
    return list(checks())
