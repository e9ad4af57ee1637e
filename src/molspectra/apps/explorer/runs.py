"""The runs of a folder: a list of them, their curves, their results, and a report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np

from molspectra.apps.explorer import frames
from molspectra.apps.explorer.frames import message
from molspectra.apps.explorer.site import Site
from molspectra.data.atomic import lock_holder
from molspectra.errors import InputError, NotFoundError, SettingError
from molspectra.printable import printable
from molspectra.reporting import sections
from molspectra.reporting.collect import averaged, collect_report, metric_series
from molspectra.reporting.drawing import Pictures
from molspectra.reporting.markup import Markup, markup, table
from molspectra.reporting.report import write_report
from molspectra.reporting.tables import STAGES
from molspectra.training.record import read_run, unreadable_metrics

MOST = 300
"""Most lines of the list."""

MOST_CHOSEN = 8
"""Most runs whose curves are drawn together."""

DEPTH = 3
"""Folders below the one of the runs in which runs are looked for, as `molspectra demo` makes some."""

SIGNS = {
    "running": "▶",
    "finished": "✓",
    "interrupted": "■",
    "failed or killed": "✗",
    "damaged": "⚠",
    "not a run": "–",
}
"""What a run can be. Of runs without an end, only those that were asked to stop say so."""

_MARKS = ("record.json", "config.json", "metrics.csv", "checkpoints")
_HEIGHT = 460  # pixels of the curves

Series = dict[str, tuple[list[int], list[float]]]


@dataclass(frozen=True)
class RunEntry:
    """A folder of the list.

    Attributes:
        name: its path below the folder of runs, printable; "." for that folder itself.
        path: where it is.
        state: one of `SIGNS`.
        remark: what is wrong, or which process trains; "" for nothing.
        stage: displayed name.
        model: kind and size of its encoder, and whether it reads spectra.
        steps: done.
        planned: by its settings.
        best: lowest validation loss; None without validation.
        when: the run last wrote metrics, in local time.
    """

    name: str
    path: Path
    state: str
    remark: str = ""
    stage: str = ""
    model: str = ""
    steps: int = 0
    planned: int = 0
    best: float | None = None
    when: str = ""

    @property
    def is_run(self) -> bool:
        """Whether there are settings and a record that can be read."""
        return self.state not in ("damaged", "not a run")


def runs_in(folder: Path) -> list[RunEntry]:
    """The runs in a folder and the folders below, and what else is there, at most `MOST`; links stay unread.

    Raises:
        NotFoundError: there is no such folder.
    """
    if not folder.is_dir():
        raise NotFoundError(
            f"{folder}: there is no such folder of runs; molspectra pretrain --out {folder / 'x'} makes a "
            "run there, and molspectra explore --runs DIR shows another folder"
        )
    return list(islice(_entries(folder, folder, 0), MOST))


def _entries(folder: Path, root: Path, depth: int) -> Iterator[RunEntry]:
    name = printable(folder.relative_to(root).as_posix())
    if depth and folder.is_symlink():
        yield RunEntry(name, folder, "not a run", "a link, which is not followed")
        return
    if any((folder / mark).exists() for mark in _MARKS):
        yield _read(name, folder)
        return
    try:
        children = sorted(path for path in folder.iterdir() if path.is_dir() and path.name[:1] != ".")
    except OSError as error:
        yield RunEntry(name, folder, "not a run", f"cannot be read: {error.strerror}")
        return
    holder = lock_holder(folder)
    if not children and depth:  # a run that was started now has no files yet
        yield RunEntry(name, folder, "not a run", f"{holder} works in it" if holder else "no record.json")
    elif depth == DEPTH:
        yield RunEntry(name, folder, "not a run", "its folders are not looked into: too deep")
    else:
        for child in children:
            yield from _entries(child, root, depth + 1)


def _read(name: str, path: Path) -> RunEntry:
    holder = lock_holder(path)
    try:
        config, record = read_run(path)
        series = _series(path)
        remark = unreadable_metrics(path / "metrics.csv")
    except InputError as error:
        return RunEntry(name, path, "damaged", " ".join(str(error).split()))
    if holder is not None:
        state = "running"
    elif record.get("finished"):
        state = "finished"
    else:
        state = "interrupted" if record.get("stopped") is not None else "failed or killed"
    losses = [value for value in series.get("val/loss", ([], []))[1] if np.isfinite(value)]
    encoder = config.model.encoder
    size = [f"{getattr(encoder, part)} {part}" for part in ("channels", "layers") if hasattr(encoder, part)]
    reads = ["reads spectra"] if config.model.spectrum_encoder is not None else []
    written = [path / file for file in ("metrics.csv", "record.json") if (path / file).is_file()]
    return RunEntry(
        name,
        path,
        state,
        "; ".join(text for text in (holder or "", remark) if text),
        STAGES[record["about"]["stage"]],
        ", ".join([str(getattr(encoder, "kind", type(encoder).__name__)), *size, *reads]),
        max((steps[-1] for steps, _ in series.values()), default=0),
        config.loop.steps,
        min(losses, default=None),
        time.strftime("%Y-%m-%d %H:%M", time.localtime(written[0].stat().st_mtime)),
    )


def _series(path: Path) -> Series:
    """Steps and values of the metrics of a run by name, read anew where the file has changed."""
    file = path / "metrics.csv"
    if not file.is_file():
        return {}
    state = file.stat()
    return _kept_series(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=MOST)
def _kept_series(path: Path, changed: int, size: int) -> Series:
    del changed, size  # by which the file is known
    return metric_series(path)


def listed(entries: Sequence[RunEntry]) -> Markup:
    """The table of runs."""
    head = ["run", "state", "stage", "model", "steps", "best validation loss", "last written"]
    rows = []
    for entry in entries:
        state = f"{SIGNS[entry.state]} {entry.state}" + (f": {entry.remark}" if entry.remark else "")
        steps = f"{entry.steps} of {entry.planned}" if entry.is_run else ""
        best = "" if entry.best is None else f"{entry.best:.4g}"
        rows.append([entry.name, state, entry.stage, entry.model, steps, best, entry.when])
    return frames.whole(table("Runs of this folder", head, rows, numbers=(4, 5)))


def told(folder: Path, entries: Sequence[RunEntry]) -> Markup:
    """How many runs there are, or what to do where there are none."""
    states = [entry.state for entry in entries if entry.is_run]
    counts = ", ".join(f"{states.count(state)} {state}" for state in SIGNS if state in states)
    where = printable(str(folder))
    if not states:
        text = f"{where}: no runs; molspectra pretrain --out {where}/x makes one."
    else:
        text = f"{where}: {len(states)} runs ({counts}). Choose some to see their curves and results."
    return message(text, items=[f"only the first {MOST} folders are listed"] if len(entries) == MOST else [])


def chosen_of(site: Site, names: Sequence[str] | None) -> list[RunEntry]:
    """The runs of some names, which are looked up in the list.

    Raises:
        InputError: none, too many, or one that is not a run of the list.
    """
    if not names:
        raise SettingError("choose at least one run")
    if len(names) > MOST_CHOSEN:
        raise SettingError(f"choose at most {MOST_CHOSEN} runs, not {len(names)}")
    known = {entry.name: entry for entry in runs_in(site.runs) if entry.is_run}
    for name in names:
        if name not in known:
            raise NotFoundError(f"{printable(str(name))[:200]}: no run of this folder; refresh the list")
    return [known[name] for name in dict.fromkeys(names)]


def curves(entries: Sequence[RunEntry]) -> Markup:
    """Losses and learning rates of some runs over their steps."""
    shown = []
    for entry in entries:
        series = _series(entry.path)
        lines = {}
        for key, metric in (
            ("training", "train/loss"),
            ("validation", "val/loss"),
            ("rate", "train/learning_rate"),
        ):
            steps, values = averaged(*series.get(metric, ([], [])))
            lines[key] = {"steps": list(steps), "values": frames.numbers(values, 6)}
        shown.append({"name": entry.name, **lines})
    names = ", ".join(entry.name for entry in entries)
    return frames.frame("runs", {"runs": shown}, f"losses and learning rates of {names}", _HEIGHT)


def results(entries: Sequence[RunEntry]) -> Markup:
    """Tables of what `molspectra evaluate` found, and remarks on the runs."""
    try:
        content = collect_report([entry.path for entry in entries])
    except InputError as error:
        return message(" ".join(str(error).split()), error=True)
    pictures = Pictures()
    parts = [sections.result(pictures, each) for each in content.tables]
    parts.append(sections.losses(content.losses))
    text = "" if any(parts) else "None of these runs has results of its test part."
    return Markup(frames.whole(markup(parts)) + message(text or "About these runs:", items=content.notes))


def report(site: Site, names: Sequence[str] | None) -> str:
    """Write the report page of some runs; returns its path.

    Raises:
        InputError: as in `chosen_of`, or runs that cannot be put together.
    """
    entries = chosen_of(site, names)
    content = collect_report([entry.path for entry in entries])
    return str(write_report(site.folder() / "report.html", content))
