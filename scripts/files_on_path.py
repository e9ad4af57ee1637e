"""List the files of the package that a command uses: those with a function that it calls.

`python scripts/files_on_path.py pretrain --config small-stage2 --loop.kernels plain --loop.steps 2 --out RUN`
prints one file per line and their number. Code that only runs while a module is imported does not count.
"""

import sys
import threading
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import molspectra
from molspectra.apps.cli import main

PACKAGE = Path(molspectra.__file__).parent


def traced(arguments: list[str]) -> tuple[int, list[str]]:
    """Run a command; return its exit code and the files, relative to the package."""
    called: set[CodeType] = set()

    def on_event(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_flags & CO_OPTIMIZED:  # modules and classes are not optimized
            called.add(frame.f_code)

    threading.setprofile(on_event)
    sys.setprofile(on_event)
    try:
        status = main(arguments)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]  # None stops profiling
    paths = {
        Path(code.co_filename) for code in called if not code.co_name.startswith("<")
    }  # no comprehension
    return status, sorted(str(path.relative_to(PACKAGE)) for path in paths if path.is_relative_to(PACKAGE))


if __name__ == "__main__":
    code, files = traced(sys.argv[1:])
    print(*files, sep="\n")
    print(f"{len(files)} files")
    sys.exit(code)
