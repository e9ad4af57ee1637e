"""The pre-trained models that come with the package, by name."""

from pathlib import Path

from molspectra.errors import InputError

SHIPPED = {"small": "scripts/build_small.py"}
"""Name of each model, and the script that makes it."""


def shipped_path(name: str) -> Path:
    """Where the files of a shipped model lie in this installation, whether they are there or not."""
    return Path(__file__).with_name("weights") / name


def named(path: str | Path) -> Path:
    """The directory that a path or the name of a shipped model means; what exists wins over a name.

    Raises:
        InputError: this installation came without the model.
    """
    if str(path) not in SHIPPED or Path(path).exists():
        return Path(path)
    found = shipped_path(str(path))
    if not found.is_dir():
        raise InputError(
            f"{found}: the shipped model {str(path)!r} is missing; install the package again, or make it "
            f"with `python {SHIPPED[str(path)]}` from a checkout"
        )
    return found
