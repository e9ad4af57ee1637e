"""Recipes: settings of runs that come with the package, by name, or in a user's YAML file."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from molspectra.errors import NotFoundError, hint
from molspectra.training.settings import read_yaml


def recipes() -> dict[str, Path]:
    """Return the paths of the recipes that come with the package, by name."""
    folder = files("molspectra.training") / "recipes"
    return {Path(str(path)).stem: Path(str(path)) for path in folder.iterdir() if path.name.endswith(".yaml")}


def read_recipe(name: str) -> dict[str, Any]:
    """Return the settings in a YAML file or of a shipped recipe.

    Raises:
        NotFoundError: no such file or recipe.
        FormatError: not a mapping in YAML.
    """
    path, shipped = Path(name), recipes()
    if not path.is_file():
        if name not in shipped:
            near = hint(name, sorted(shipped), label="recipes")
            raise NotFoundError(f"{name}: no such file or recipe; {near}")
        path = shipped[name]
    return read_yaml(path)
