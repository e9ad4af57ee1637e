"""Fitted corrections of force fields and dipole derivatives, see `molspectra.simulation.valence`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("factors.json")


@dataclass(frozen=True)
class Parameters:
    """The fitted corrections.

    Attributes:
        factors: of force constants by kind of coordinate; a kind that is not there has that of its first
            word, or 1.
        charge: factor on the dipole derivatives.
        terms: of dipole derivatives, e, by kind; see `dipole_terms`; 0 for others.
    """

    factors: Mapping[str, float]
    charge: float
    terms: Mapping[str, float]

    def factor(self, kind: str) -> float:
        """Factor on the force constants of a kind of coordinate."""
        return self.factors.get(kind, self.factors.get(kind.split()[0], 1.0))


@lru_cache
def parameters(method: str) -> Parameters:
    """Corrections that ship with the package, for "GFN2-xTB" or "B3LYP/def2-SVP"."""
    return Parameters(**_content()["methods"][method])


def parameters_version() -> int:
    """Number of the fit; in the level of theory of every line that was corrected."""
    return int(_content()["version"])


@lru_cache(maxsize=1)
def _content() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return content
