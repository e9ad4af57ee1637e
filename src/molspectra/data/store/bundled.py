"""The datasets that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

from molspectra.data.store.store import Store
from molspectra.errors import NotFoundError

BUNDLED = {
    "bundled": ("molecules.arrow", "scripts/build_bundled.py"),
    "bundled-library": ("library.arrow", "scripts/build_library.py"),
    "bundled-ethanol": ("ethanol-500K.arrow", "scripts/build_trajectory.py"),
}
"""File of each bundled store, and the script that makes it."""


def bundled_path(name: str = "bundled") -> Path:
    """Return the path of a bundled store in this installation, whether the file exists or not."""
    return Path(__file__).with_name("bundled") / BUNDLED[name][0]


def bundled(name: str = "bundled") -> Store:
    """Open a bundled store.

    Args:
        name: "bundled", small molecules with computed IR, Raman and UV-Vis lines and properties;
            "bundled-library", the same and more with IR lines near to observed ones, to search measured
            spectra in; or "bundled-ethanol", 2,000 frames of ethanol at 500 K with GFN2-xTB energies and
            forces.

    Raises:
        InputError: if the name is unknown, or the file is missing or damaged.
    """
    if name not in BUNDLED:
        raise NotFoundError(f"no bundled dataset is called {name!r}; there are: {', '.join(BUNDLED)}")
    path = bundled_path(name)
    if not path.is_file():
        raise NotFoundError(
            f"{path}: the bundled dataset is missing; install the package again, or make it with "
            f"`python {BUNDLED[name][1]}` from a checkout"
        )
    return Store(path)
