"""Files of a run directory that people read: JSON and metrics; facts of machine and versions for them."""

import csv
import io
import json
import logging
import math
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from molspectra._version import __version__
from molspectra.compiled import fast
from molspectra.data.atomic import atomic_file, naming
from molspectra.errors import FormatError, NotFoundError
from molspectra.training.config import FinetuneConfig, PretrainConfig, RunConfig
from molspectra.training.settings import from_dict
from molspectra.training.trackers import Tracker

log = logging.getLogger(__name__)

PACKAGES = ("torch", "numba", "numpy", "lightning-fabric", "rdkit", "pyarrow", "safetensors")


def versions() -> dict[str, str]:
    """Return the versions of Python, this package and the libraries that results depend on."""
    installed = {"python": platform.python_version(), "molspectra": __version__}
    for name in PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed[name] = "not installed"
    return installed


def commit() -> str | None:
    """Return the commit of the checkout that runs ("+changes" if it was edited); None if installed."""
    here = Path(__file__).resolve()
    tracked = ["git", "ls-files", "--error-unmatch", here.name]  # else a checkout that holds the installation
    describe = ["git", "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"]
    try:
        for command in (tracked, describe):
            done = subprocess.run(
                command, cwd=here.parent, capture_output=True, text=True, timeout=10, check=True
            )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def kernels_used(device: torch.device | str, precision: str) -> str:
    """Return which kernels run on a device with a precision: "compiled" or "plain".

    Raises:
        InputError: compiled kernels were asked for and are not available.
    """
    kind = torch.float64 if precision == "64-true" else torch.float32
    return "compiled" if fast(torch.empty(0, dtype=kind, device=device)) else "plain"


def memory() -> float:
    """Return the memory of this machine in bytes; infinity where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return math.inf


def machine() -> dict[str, Any]:
    """Return the kind of machine: processor, cores, memory in GiB."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    return {
        "system": platform.platform(),
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory() / 2**30, 1),
    }


def write_json(path: Path, values: Any) -> None:
    """Write JSON atomically.

    Raises:
        WriteError: the file cannot be written.
    """
    with atomic_file(path) as file:
        file.write(json.dumps(values, indent=1, ensure_ascii=False).encode())


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        FormatError: the file is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path}: cannot be read as JSON ({error})") from error


ENSEMBLE = "ensemble.json"
"""Name of the summary in the directory of an ensemble."""

FOLDS = "folds.json"
"""Name of the summary in the directory of all folds."""

SEVERAL = {ENSEMBLE: "member-0", FOLDS: "fold-0"}
"""Files that mark a directory of several runs, and what the first of them is called."""


def one_of_several(directory: Path) -> str:
    """Return what to say where one run is needed and a directory of several was given; "" for any other."""
    for mark, first in SEVERAL.items():
        if (directory / mark).is_file():
            return f"; it holds several runs: give one, such as {directory / first}"
    if (directory / SEVERAL[ENSEMBLE]).is_dir():
        command = f"molspectra finetune --out {directory} --members N --resume"
        return (
            f"; an ensemble that is not finished (no {ENSEMBLE}): {command} finishes it, N being its members"
        )
    if (directory / SEVERAL[FOLDS]).is_dir():
        command = f"molspectra finetune --out {directory} --resume"
        return f"; folds that are not finished (no {FOLDS}): {command} finishes them"
    return ""


def read_run(run: Path) -> tuple[RunConfig, dict[str, Any]]:
    """Read settings and record of a run directory.

    Raises:
        NotFoundError: not a run directory.
        InputError: a damaged file in it.
    """
    for name in ("config.json", "record.json"):
        if not (run / name).is_file():
            advice = one_of_several(run) or "; give the one named by --out in training"
            raise NotFoundError(f"{run}: not a run directory (no {name}){advice}")
    record = read_json(run / "record.json")
    about = record.get("about") if isinstance(record, dict) else None
    stage = about.get("stage") if isinstance(about, dict) else None
    if stage not in ("stage1", "stage2", "finetune"):
        raise FormatError(f"{run / 'record.json'}: not the record of a run (no stage)")
    path = run / "config.json"
    if stage == "finetune":
        return from_dict(FinetuneConfig, read_json(path), str(path)), record
    return from_dict(PretrainConfig, read_json(path), str(path)), record


def is_finished(run: Path, steps: int) -> bool:
    """Whether a run is finished, as its record says, and is not to be extended to so many steps.

    Raises:
        FormatError: the record is not JSON.
    """
    path = run / "record.json"
    record = read_json(path) if path.is_file() else None
    if not isinstance(record, dict) or not record.get("finished"):
        return False
    try:
        return int(record["config"]["loop"]["steps"]) >= steps
    except (KeyError, TypeError, ValueError):  # a record that is damaged is refused where it is read
        return True


class MetricLog:
    """`metrics.csv` in long form (step, name, value), and the trackers of the run.

    Attributes:
        before: seconds that earlier sessions of the run took up to the step that this one starts from.
    """

    COLUMNS = ("step", "name", "value", "seconds")

    def __init__(self, directory: Path, start: int, trackers: Sequence[Tracker] = ()) -> None:
        """Open for appending; rows from beyond step `start` (of a session that was cut off) are dropped.

        Lines that cannot be read are dropped too, and one line of the log counts them.

        Raises:
            WriteError: the file cannot be written.
        """
        self.trackers = trackers
        self.path = path = directory / "metrics.csv"
        kept = [line for line in _lines(path)[0] if int(line[0]) <= start] if start else []
        if start and (remark := unreadable_metrics(path)):
            log.warning("%s: %s", path, remark)
        self.before = float(kept[-1][3]) if kept else 0.0
        self.began = time.perf_counter()
        with atomic_file(path) as file:
            file.write("".join(",".join(line) + "\n" for line in (self.COLUMNS, *kept)).encode())
        with naming(path):
            self.file = path.open("a", newline="", encoding="utf-8")
        self.writer = csv.writer(self.file, lineterminator="\n")

    def write(self, step: int, values: dict[str, float]) -> None:
        """Add values after `step` optimizer steps.

        Raises:
            WriteError: the file cannot be written.
        """
        seconds = f"{self.before + time.perf_counter() - self.began:.2f}"
        with naming(self.path):
            for name, value in values.items():
                self.writer.writerow((step, name, f"{value:.8g}", seconds))
            self.file.flush()
        for tracker in self.trackers:
            tracker.add(step, values)

    def close(self) -> None:
        """Close the files."""
        with naming(self.path):  # closing writes what could not be written before
            self.file.close()
        for tracker in self.trackers:
            tracker.close()


def read_metrics(path: Path) -> list[tuple[int, str, float, float]]:
    """Rows (step, name, value, seconds) of a `metrics.csv`; none if it is missing, torn lines left out."""
    lines, _ = _lines(path)
    return [(int(step), name, float(value), float(seconds)) for step, name, value, seconds in lines]


def unreadable_metrics(path: Path) -> str:
    """A remark that counts the lines of a `metrics.csv` that cannot be read and are left out; "" if none.

    A last line without an end does not count: it is being written, or its process was killed.
    """
    _, count = _lines(path)
    what = "1 line cannot be read and is" if count == 1 else f"{count} lines cannot be read and are"
    return f"{what} left out" if count else ""


def _lines(path: Path) -> tuple[list[list[str]], int]:
    """The complete lines of a `metrics.csv` as they stand there, without the header, and how many are not.

    Raises:
        FormatError: the file is no table in UTF-8.
    """
    if not path.is_file():
        return [], 0
    try:
        text = path.read_bytes().decode()
        lines = [line for line in csv.reader(io.StringIO(text, newline="")) if line]
    except (csv.Error, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot be read as a table ({error})") from error
    lines = lines[1:] if lines[:1] == [list(MetricLog.COLUMNS)] else lines
    complete = [line for line in lines if _is_complete(line)]
    is_torn = bool(lines) and not text.endswith("\n") and not _is_complete(lines[-1])
    return complete, len(lines) - len(complete) - is_torn


def _is_complete(line: list[str]) -> bool:
    try:
        step, _, value, seconds = line
        int(step), float(value), float(seconds)
    except ValueError:
        return False
    return True
