"""Why a search gave a molecule: its bands against the measured ones, how its atoms move, and its groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from molspectra.chem.molecule import Molecule
from molspectra.search.groups import GroupEvidence

__all__ = ["Band", "Explanation", "GroupEvidence"]


@dataclass(frozen=True)
class Band:
    """One row of the table of bands.

    Attributes:
        status: "matched", in both spectra; "missing", in the candidate's but not measured; "extra", measured
            but not in the candidate's.
        measured: position of the query's band, axis unit; None for a missing one.
        measured_height: relative to the query's highest point.
        computed: position of the candidate's band, times the factor that fits it; None for an extra one.
        computed_height: relative to the candidate's highest point.
        motion: such as "C=O stretch 82 %, C-C stretch 9 %"; "" where unknown.
        atoms: those that move most, most first; indices into `Explanation.molecule`.
    """

    status: Literal["matched", "missing", "extra"]
    measured: float | None
    measured_height: float | None
    computed: float | None
    computed_height: float | None
    motion: str
    atoms: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Explanation:
    """One answer against one spectrum of the query.

    Attributes:
        rank: of the answer, from 1.
        name: of the molecule, if known.
        smiles: if known.
        formula: in Hill order.
        score: of the search.
        confidence: of the search, if it has one.
        modality: name of the spectrum's modality.
        scale: factor on the candidate's axis.
        molecule: the library's structure, Å.
        axis: [points], axis unit.
        query: [points] 0 or more, largest 1.
        candidate: [points] after the factor, largest 1.
        known: [points] mask of what was measured and is compared.
        bands: by position, highest first.
        regions: (low, high, similarity in it) of the parts of the axis that were measured.
        groups: functional groups of the candidate, and those that a measured band asks for.
        remarks: what was left out or taken as it is, for people.
    """

    rank: int
    name: str | None
    smiles: str | None
    formula: str
    score: float
    confidence: float | None
    modality: str
    scale: float
    molecule: Molecule
    axis: npt.NDArray[np.float64]
    query: npt.NDArray[np.float64]
    candidate: npt.NDArray[np.float64]
    known: npt.NDArray[np.bool_]
    bands: tuple[Band, ...]
    regions: tuple[tuple[float, float, float], ...]
    groups: tuple[GroupEvidence, ...]
    remarks: tuple[str, ...]
