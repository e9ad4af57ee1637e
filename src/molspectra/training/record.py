"""What a run leaves behind for people: its record and its metrics."""

import csv
import json
import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from molspectra.errors import InputError

PACKAGES = ("torch", "numpy", "lightning-fabric", "rdkit", "pyarrow", "safetensors")


def versions() -> dict[str, str]:
    """Versions of Python, this package and the libraries that results depend on."""
    found = {"python": platform.python_version()}
    for name in ("molspectra", *PACKAGES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def commit() -> str | None:
    """The commit of the checkout this package runs from ("+changes" if it was edited); None if installed."""
    try:
        here = Path(__file__).resolve().parent
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"],
            cwd=here, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def machine() -> dict[str, Any]:
    """Kind of machine: processor, cores, memory in GiB."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, OSError):
        memory = float("nan")
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line
        ]
        model = names[0] if names else model
    return {
        "system": platform.platform(),
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
    }


def write_json(path: Path, values: Any) -> None:
    """Write JSON atomically."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps(values, indent=1, ensure_ascii=False), encoding="utf-8")
    scratch.replace(path)


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from error


class MetricLog:
    """`metrics.csv` in long form (step, name, value), and TensorBoard events where asked for."""

    COLUMNS = ("step", "name", "value", "seconds")

    def __init__(self, directory: Path, start: int, tensorboard: bool) -> None:
        """Open for appending; rows from beyond `start` (of a run that was cut off) are dropped."""
        self.path = directory / "metrics.csv"
        kept = [row for row in read_metrics(self.path) if row[0] <= start] if start else []
        self.before = kept[-1][3] if kept else 0.0
        self.file = self.path.open("w", newline="", encoding="utf-8")
        self.writer = csv.writer(self.file)
        self.writer.writerow(self.COLUMNS)
        self.writer.writerows(kept)
        self.began = time.perf_counter()
        self.events: Any = None
        if tensorboard:
            self.events = _event_writer(directory / "tensorboard", start)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Add values after `step` optimizer steps."""
        seconds = round(self.before + time.perf_counter() - self.began, 2)
        for name, value in values.items():
            self.writer.writerow((step, name, f"{value:.8g}", seconds))
            if self.events is not None:
                self.events.add_scalar(name, value, step)
        self.file.flush()

    def close(self) -> None:
        """Close the files."""
        self.file.close()
        if self.events is not None:
            self.events.close()


def _event_writer(directory: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            "loop.tensorboard: needs the tensorboard package (pip install tensorboard)"
        ) from error
    return SummaryWriter(str(directory), purge_step=start + 1)


def read_metrics(path: Path) -> list[tuple[int, str, float, float]]:
    """Rows (step, name, value, seconds) of a `metrics.csv`; empty where there is none, torn lines left out."""
    if not path.is_file():
        return []
    rows = []
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            try:
                rows.append((int(row["step"]), row["name"], float(row["value"]), float(row["seconds"])))
            except (TypeError, ValueError, KeyError):
                continue
    return rows
