"""The dataset that comes with the package."""

from __future__ import annotations

from pathlib import Path

from molspectra.data.store import Store
from molspectra.errors import InputError


def bundled_path() -> Path:
    """Return where the bundled store lies in this installation, whether it is there or not."""
    return Path(__file__).with_name("bundled") / "molecules.arrow"


def bundled() -> Store:
    """Return the bundled store: small molecules with computed IR, Raman and UV-Vis lines and properties.

    Raises:
        InputError: if this installation came without it, or it is damaged.
    """
    path = bundled_path()
    if not path.is_file():
        raise InputError(
            f"{path}: the bundled dataset is missing; install the package again, or make it with "
            "`python scripts/build_bundled.py` from a checkout"
        )
    return Store(path)
