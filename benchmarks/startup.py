"""Processor time of commands that only tell something: each in processes of its own.

    python -m benchmarks.startup                       # python -m molspectra finetune --help and others
    python -m benchmarks.startup --repeats 11

The first process of each writes bytecode and does not count. Prints JSON as the last line.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Any

COMMANDS = (
    "--version", "pretrain --help", "finetune --help", "tune --help", "prepare --help", "search --help",
    "finetune --out RUN --loop.stepz 3",
)  # fmt: skip
"""The heaviest of them, and for comparison one that needs nothing."""


def processor_seconds(arguments: list[str]) -> float:
    """Processor time of the command line with these arguments, the operating system's part included."""
    before = os.times()
    done = subprocess.run([sys.executable, "-m", "molspectra", *arguments], capture_output=True, check=False)
    after = os.times()
    if done.returncode not in (0, 2):  # told its help, or what is mistyped
        raise RuntimeError(f"{arguments}: exit code {done.returncode}: {done.stderr.decode()}")
    return after.children_user + after.children_system - before.children_user - before.children_system


def measure(repeats: int = 5) -> dict[str, Any]:
    """Median processor seconds by command."""
    times = {}
    for command in COMMANDS:
        _, *counted = (processor_seconds(command.split()) for _ in range(1 + repeats))
        times[command] = statistics.median(counted)
    return {"repeats": repeats, "cpu_seconds": times}


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.startup",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--repeats", type=int, default=5, help="processes of each command")
    options = parser.parse_args()
    result = measure(options.repeats)
    from benchmarks.machine import facts

    for command, time_ in result["cpu_seconds"].items():
        print(f"molspectra {command}: {time_:.2f} CPU-seconds")
    print(json.dumps(result | facts()))


if __name__ == "__main__":
    main()
