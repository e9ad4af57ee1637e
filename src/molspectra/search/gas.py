"""Entries as a gas shows them: bands of the smallest molecules have wide rotational branches.

Computed spectra have one band where a gas has three branches, for ammonia over more than a hundred cm⁻¹. Most
measured spectra of so small molecules are those of gases, so a measured query is compared with both forms of
such an entry, and the better one counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from molspectra.chem.molecule import Molecule
from molspectra.search import network
from molspectra.search.segment import Arrays
from molspectra.search.vectors import POINTS_PER_WIDTH, Floats, unit
from molspectra.spectra.modality import IR
from molspectra.spectra.rotation import branch_distance, with_branches

NARROW = 2.5 * IR.fwhm
"""Distance of the branches, cm⁻¹, below which they are not told apart: that of three heavy atoms."""

MOST_ATOMS = 8
"""Atoms of a molecule, above which the branches are narrow without looking."""


@dataclass(frozen=True, eq=False)
class Gases:
    """The small molecules of a library as gases.

    Attributes:
        rows: [k] of the library, ascending.
        arrays: their stored spectra [k, …] by name, infrared ones with branches.
    """

    rows: npt.NDArray[np.int64]
    arrays: Arrays


def small_rows(table: pa.Table) -> tuple[npt.NDArray[np.int64], list[float]]:
    """Rows of the molecules with wide branches, and the distances of these, cm⁻¹."""
    few = pc.less_equal(pc.list_value_length(table["numbers"]), MOST_ATOMS)
    rows, distances = [], []
    for row in np.flatnonzero(few.to_numpy()).tolist():
        (record,) = table.slice(row, 1).to_pylist()
        positions = np.array(record["positions"], np.float64).reshape(-1, 3)
        distance = branch_distance(Molecule(np.array(record["numbers"], np.int64), positions))
        if distance >= NARROW:
            rows.append(row)
            distances.append(distance)
    return np.array(rows, np.int64), distances


def gas_arrays(samples: Floats, distances: list[float]) -> Arrays:
    """Arrays of infrared spectra, given as stored points [k, P], with branches where these are wide."""
    step = IR.fwhm / POINTS_PER_WIDTH
    wide = [
        with_branches(row, step, distance) if distance >= NARROW else row
        for row, distance in zip(samples, distances, strict=True)
    ]
    points = unit(np.array(wide, np.float32).reshape(samples.shape))
    return {f"samples-{IR.name}": points, network.ARRAY: network.vectors(points)}
