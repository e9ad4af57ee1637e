"""Commands as Python functions, those that no lower layer has."""

from collections.abc import Sequence
from pathlib import Path

from molspectra.apps.doctor import Check, checks
from molspectra.data.output import free_path
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
    return write_report(free_path(out, overwrite=overwrite), collect_report(list(runs), title))


def doctor() -> list[Check]:
    """Check versions, devices and optional parts, and run a self-test of a few seconds."""
    return list(checks())
