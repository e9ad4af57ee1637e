"""Progress of a long task on the terminal: step, rate, time left and the latest numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """Call after every step with the numbers to show."""

    def __call__(self, done: int, note: str = "") -> None:
        """Tell that `done` steps are done."""


@contextmanager
def progress(title: str, total: int, start: int = 0, show: bool = True) -> Iterator[Advance]:
    """Show progress on standard error: a bar on a terminal, else ten lines in all; nothing if not `show`.

    Args:
        title: what is being done.
        total: steps in all.
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
        every = max(total // 10, 1)

        def line(done: int, note: str = "") -> None:
            if done == total or done % every == 0:
                console.print(f"{title}: {done}/{total} {note}", highlight=False, markup=False)

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
