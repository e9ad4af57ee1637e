"""Measure everything about speed and write one page: `speed.md`, `speed.json` and plots.

    python -m benchmarks                       # runs/bench, about a quarter of an hour
    python -m benchmarks --quick               # a few minutes; its figures say only that everything runs
    python -m benchmarks --out docs/speed      # kept beside the documentation
    python -m benchmarks --datasets            # afterwards also the scripts about datasets, which print

Every measurement is a process of its own, so that none has the other's memory and threads. The figures are
added to `history.jsonl` in the folder, and what lost more than a tenth of its efficiency is named.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import history
from benchmarks.goals import STEPS
from molspectra.apps.process import SPINS
from molspectra.errors import DamagedError

ROOT = Path(__file__).resolve().parent.parent
DATASET_SCRIPTS = (
    "broadening", "large_store", "noisy_labels", "objectives", "prepare_pcqm4mv2", "prepare_qm9", "qm9s_csv",
)  # fmt: skip

FULL = {
    "qm9-stage1": 6,
    "qm9-stage2": 4,
    "qm9-finetune": 5,
    "md17-finetune": 15,
    "qm9-inference": 8,
    "md17-force": 20,
}
"""Steps of the main table; half of them where plain torch is timed by turns."""

QUICK_STEPS, QUICK_BATCH = 2, 16


def plan(quick: bool) -> list[tuple[str, list[str]]]:
    """What is run of `benchmarks.steps`: (label, options)."""
    jobs = []
    for name, steps in FULL.items():
        if quick:
            jobs.append(("steps", ["--config", name, *_quick(name)]))
            continue
        batch = ["--batch", str(STEPS[name].batch)]
        jobs.append(("steps", ["--config", name, "--steps", str(steps), *batch]))
        fewer = ["--steps", str(max(2, steps // 2)), *batch]
        jobs.append(("compare", ["--config", name, *fewer, "--compare", "plain"]))
    for name in ("qm9-stage1", "qm9-stage2"):
        fewer = _quick(name) if quick else ["--steps", "4", "--batch", str(STEPS[name].batch)]
        if name == "qm9-stage1":
            jobs.append(("allocator", ["--config", name, *fewer, "--allocator", "default"]))
        jobs.append(("bf16", ["--config", name, *fewer, "--precision", "bf16-mixed"]))
        if not quick:
            jobs.append(("default", ["--config", name, *fewer, "--mode", "default"]))
    if quick:
        jobs.append(("compare", ["--config", "qm9-stage1", *_quick("qm9-stage1"), "--compare", "plain"]))
    return jobs


def _quick(name: str) -> list[str]:
    return ["--steps", str(QUICK_STEPS), "--batch", str(min(QUICK_BATCH, STEPS[name].batch))]


class Failed(Exception):
    """A measurement ended with an error."""


def run(module: str, options: Sequence[str]) -> dict[str, Any]:
    """Run a module of this package; returns the JSON of its last line.

    Raises:
        Failed: it did not end well; what it said is printed.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", *options]
    print(f"--- {module} {shlex.join(options)}", flush=True)
    began = time.perf_counter()
    environment = dict(os.environ)
    if module == "search":  # queries are timed in one thread
        environment["OMP_NUM_THREADS"] = "1"
    if module != "steps":  # which arranges this itself, or leaves it as it is
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        environment.setdefault("GOMP_SPINCOUNT", SPINS)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        raise Failed(f"{module} {shlex.join(options)}: exit code {done.returncode}")
    *lines, last = done.stdout.splitlines()
    for line in lines:
        print(f"    {line}")
    result: dict[str, Any] = json.loads(last)
    for name in ("median_seconds", "efficiency", "peak_memory_gb", "speedup"):
        if name in result:
            print(f"    {name}: {result[name]:.4g}")
    print(f"    ({time.perf_counter() - began:.0f} s)", flush=True)
    return result


def measure(out: Path, threads: int, quick: bool, plots: bool) -> dict[str, Any]:
    """All measurements, by name."""
    from benchmarks.machine import facts

    common = ["--threads", str(threads)]
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    about = {**facts(), "threads": threads, "quick": quick, "load": load, "command": command}
    results: dict[str, Any] = {"about": about, "steps": [], "failed": []}

    def tried(module: str, *options: str) -> dict[str, Any] | None:
        try:
            return run(module, options)
        except Failed as error:  # the others are still worth having
            results["failed"].append(str(error))
            return None

    if (ceilings := tried("ceiling", *common)) is not None:
        results["ceilings"] = ceilings["ceilings"]
    for label, options in plan(quick):
        if (step := tried("steps", *options, *common, "--json")) is not None:
            results["steps"].append({"label": label, **step})
    few = ["--count", "20000", "--queries", "5"] if quick else ["--queries", "20"]
    others = {
        "loader": ["--batch", "128"],
        "simulation": ["--repeats", "1" if quick else "3"],
        "startup": ["--repeats", "1" if quick else "5"],
        "calculator": [*common, *(["--calls", "5"] if quick else [])],
        "search": ["--kinds", "clustered", *few],
    }
    if plots:
        others["scaling"] = [*common, "--out", str(out.resolve()), *(["--quick"] if quick else [])]
    for module, options in others.items():
        if (found := tried(module, *options)) is not None:
            results[module] = found
    return results


def main() -> None:
    """Parse the command line, measure, and write the page."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder of the page")
    parser.add_argument("--threads", type=int, default=2, help="threads of the steps")
    parser.add_argument("--quick", action="store_true", help="few steps, small batches")
    parser.add_argument("--no-scaling", action="store_true", help="leave out the plots")
    parser.add_argument("--datasets", action="store_true", help="run the scripts about datasets, too")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    try:  # before the measurements, which would be lost
        earlier = history.read(options.out / history.FILE)
    except DamagedError as error:
        parser.exit(2, f"benchmarks: error: {error}\n")
    results = measure(options.out, options.threads, options.quick, not options.no_scaling)
    from benchmarks.report import write

    new = history.entry(results)
    results["regressions"] = history.regressions(earlier, new)
    history.append(options.out / history.FILE, new)
    text = json.dumps(results, indent=1, ensure_ascii=False)
    (options.out / "speed.json").write_text(text + "\n", encoding="utf-8")
    print(write(results, options.out))
    for each in results["regressions"]:
        print(f"regression: {each}", file=sys.stderr)
    if results["failed"]:
        sys.exit("\n".join(["failed:", *results["failed"]]))
    for name in DATASET_SCRIPTS if options.datasets else ():
        print(f"--- {name}", flush=True)
        subprocess.run([sys.executable, str(ROOT / "benchmarks" / f"{name}.py")], check=True)


if __name__ == "__main__":
    main()
