"""Progress of a long task on the terminal: step, rate, time left and the latest numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

ASSUMED_STEPS = 10_000
"""Assumed number of steps of a task of unknown length: a line is shown for every thousandth."""


class Advance(Protocol):
    """Call after every step with the numbers to show."""

    def __call__(self, done: int, note: str = "") -> None:
        """Show that `done` steps are done."""


@contextmanager
def progress(title: str, total: int | None, start: int = 0, show: bool = True) -> Iterator[Advance]:
    """Show progress on standard error: a bar on a terminal, else ten lines in all; nothing if not `show`.

    Args:
        title: what is being done.
        total: steps in all, None where that is not known.
        start: steps done before.
        show: whether to show anything.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not show:
        yield lambda done, note="": None
        return
    if not console.is_terminal:
        every = max((total or ASSUMED_STEPS) // 10, 1)
        shown = start // every

        def line(done: int, note: str = "") -> None:
            nonlocal shown
            if done == total or done // every > shown:
                shown = done // every
                of = "" if total is None else f"/{total}"
                console.print(f"{title}: {done}{of} {note}", highlight=False, markup=False)

        yield line
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total, completed=start, note="", rate="")

        def advance(done: int, note: str = "") -> None:
            speed = bar.tasks[0].speed
            bar.update(task, completed=done, note=note, rate=f"{speed:.1f}/s" if speed else "")

        yield advance
