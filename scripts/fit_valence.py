"""Fit the corrections of force fields and dipole derivatives, `simulation/factors.json`.

    python scripts/fit_valence.py build/library/dft     # fit, cross-validate, write the file

The references are the B3LYP/def2-SVP minima, Hessians and dipole derivatives of `build_library.py --dft`.
First the force field of B3LYP is fitted to observed fundamentals, then that of GFN2-xTB to the fundamentals,
and to the corrected B3LYP frequencies of all other molecules.
"""

import argparse
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from molspectra.simulation.factors import FILE, Parameters
from molspectra.simulation.units import AMU, WAVENUMBER
from molspectra.simulation.valence import (
    Valence,
    corrected_dipole,
    dipole_terms,
    force_constants,
    scaled,
    valence,
)
from molspectra.simulation.vibrations import masses_of, normal_modes

VERSION = 2
"""To be raised with every fit that is released."""

ROOT = Path(__file__).resolve().parents[1]
FUNDAMENTALS = ROOT / "scripts" / "fundamentals.json"
LOWEST = 250.0
"""Frequencies below this, cm⁻¹, mostly of internal rotation, are not fitted."""
DFT_SPREAD, SPREAD = 0.1, 0.15
"""Standard deviation of the logarithm of a factor, about that of its prior."""
DFT_MEAN = 0.93
"""Factor that B3LYP's force constants tend to: the square of a frequency scale of 0.965."""
RIDGE = 0.5
"""Weight of the terms of dipole derivatives against the data."""
CHARGE = 0.7
"""Factor that GFN2-xTB's dipole derivatives tend to."""
WEIGHT = 2.0
"""Of observed frequencies against those of B3LYP."""

Array = npt.NDArray[np.float64]


@dataclass
class Reference:
    """One molecule with its GFN2-xTB and B3LYP results in one frame, and its valence coordinates."""

    smiles: str
    numbers: npt.NDArray[np.int64]
    positions: Array
    modes: Array
    frequencies: Array
    dft_dipole: Array
    dipole: Array
    coordinates: Valence
    constants: Array
    dft_constants: Array
    target: Array | None = None


def read(folder: Path) -> list[Reference]:
    """Read the references; B3LYP's results are turned into the frame of the GFN2-xTB minimum."""
    found = []
    for path in sorted(folder.glob("*.npz")):
        data = np.load(path)
        numbers, positions, count = data["numbers"], data["x0"], len(data["numbers"])
        left, _, right = np.linalg.svd((data["x"] - data["x"].mean(0)).T @ (positions - positions.mean(0)))
        left[:, -1] *= np.sign(np.linalg.det(left @ right))
        turn = left @ right
        turns = np.kron(np.eye(count), turn)
        hessian = turns.T @ data["H"] @ turns
        modes = normal_modes(masses_of(numbers), positions, hessian)
        if not len(modes.wavenumbers) or modes.wavenumbers[0] < 0:
            continue
        coordinates = valence(numbers, positions)
        found.append(
            Reference(
                str(data["smiles"]),
                numbers,
                positions,
                modes.displacements,
                modes.wavenumbers,
                turns.T @ data["d"] @ turn,
                data["d0"],
                coordinates,
                force_constants(data["H0"], coordinates),
                force_constants(hessian, coordinates),
            )
        )
    return found


def group(kind: str) -> str:
    """The coarse kind by which B3LYP's force constants are corrected."""
    word, *rest = kind.split()
    if word == "stretch":
        bond = rest[0]
        if bond.endswith("-H"):
            return bond if bond == "C1-H" or not bond.startswith("C") or bond == "Cl-H" else "C-H"
        if bond in ("C=O", "O=S"):
            return bond
        for sign in "#=:":
            if sign in bond:
                return sign
        return "Cl, S" if "Cl" in bond or "S" in bond else "F" if "F" in bond else "single"
    return f"{word} {rest[0]}" if word == "bend" else word


def fit_factors(
    references: list[Reference],
    name: str,
    kind_of: "dict[str, str] | None",
    spread: float,
    mean: float,
    weights: list[float],
) -> dict[str, float]:
    """Factors by kind that bring the curvature along B3LYP's modes to the target frequencies.

    The curvature along a mode l is Σ √(sᵢsⱼ) (Bl)ᵢ F_ij (Bl)_j, so its derivative by log sᵢ is one product.
    """
    every = sorted({kind for reference in references for kind in reference.coordinates.kinds})
    kind_of = kind_of or {kind: kind for kind in every}
    kinds = sorted({kind_of[kind] for kind in every})
    index = {kind: number for number, kind in enumerate(kinds)}
    columns = [
        np.array([index[kind_of[kind]] for kind in reference.coordinates.kinds]) for reference in references
    ]

    def residuals(logs: Array) -> tuple[Array, Array]:
        values, slopes = [(logs - np.log(mean)) / spread], [np.eye(len(kinds)) / spread]
        for reference, column, weight in zip(references, columns, weights, strict=True):
            assert reference.target is not None
            along = reference.coordinates.derivatives @ reference.modes.T
            roots = np.exp(0.5 * logs[column])
            share = along * ((roots[:, None] * getattr(reference, name) * roots) @ along)
            curvature = np.maximum(share.sum(0), 1e-9)
            frequency = np.sqrt(curvature / AMU) * WAVENUMBER
            scale = weight * (reference.target > LOWEST) / (0.012 * reference.target + 8)
            values.append((frequency - reference.target) * scale)
            slope = np.zeros((len(frequency), len(kinds)))
            np.add.at(slope.T, column, share)
            slopes.append(slope * (0.5 * frequency / curvature * scale)[:, None])
        return np.concatenate(values), np.vstack(slopes)

    solution = least_squares(
        lambda logs: residuals(logs)[0],
        np.full(len(kinds), np.log(mean)),
        jac=lambda logs: residuals(logs)[1],
        loss="soft_l1",
    )
    found = dict(zip(kinds, np.exp(solution.x), strict=True))
    return {kind: float(found[kind_of[kind]]) for kind in every}


def frequencies(reference: Reference, factors: dict[str, float], name: str) -> Array:
    """Frequencies [M], cm⁻¹, of force constants times factors."""
    constants = getattr(reference, name)
    hessian = scaled(constants, reference.coordinates, lambda kind: factors.get(kind, 1.0))
    return normal_modes(masses_of(reference.numbers), reference.positions, hessian).wavenumbers


def fit_dipole(references: list[Reference]) -> tuple[float, dict[str, float]]:
    """Factor and terms that bring dipole derivatives along B3LYP's modes to B3LYP's, by ridge regression."""
    terms = [dipole_terms(reference.coordinates, reference.positions) for reference in references]
    kinds = sorted({kind for each in terms for kind in each})
    rows, targets = [], []
    for reference, each in zip(references, terms, strict=True):
        modes = reference.modes * np.sqrt(AMU)
        columns = [reference.dipole, *(each.get(kind, np.zeros_like(reference.dipole)) for kind in kinds)]
        rows.append(np.stack([(modes @ column).ravel() for column in columns], axis=1))
        targets.append((modes @ reference.dft_dipole).ravel())
    matrix, target = np.vstack(rows), np.concatenate(targets)
    square = matrix.T @ matrix
    ridge = RIDGE / len(references) * np.median(np.diag(square)) * np.eye(len(square))
    found = np.linalg.solve(square + ridge, matrix.T @ (target - CHARGE * matrix[:, 0]))
    return CHARGE + float(found[0]), dict(zip(kinds, found[1:].tolist(), strict=True))


def with_targets(references: list[Reference]) -> tuple[dict[str, float], list[float]]:
    """Set the target frequencies; returns B3LYP's factors and the weights of the references."""
    observed = json.loads(FUNDAMENTALS.read_text(encoding="utf-8"))["molecules"]
    measured = []
    for reference in references:
        values = observed.get(reference.smiles)
        if values is not None and len(values) == len(reference.frequencies):
            reference.target = np.array(values, np.float64)
            measured.append(reference)
    every = {kind for reference in references for kind in reference.coordinates.kinds}
    groups = {kind: group(kind) for kind in every}
    found = fit_factors(measured, "dft_constants", groups, DFT_SPREAD, DFT_MEAN, [1.0] * len(measured))
    by_group = {groups[kind]: value for kind, value in found.items()}
    factors = {kind: by_group.get(groups[kind], DFT_MEAN) for kind in sorted(every)}
    plain = np.concatenate([0.965 * each.frequencies - each.target for each in measured])
    better = np.concatenate([frequencies(each, factors, "dft_constants") - each.target for each in measured])
    print(f"B3LYP, {len(measured)} molecules, {len(plain)} observed frequencies: mean absolute error")
    print(f"  times 0.965: {np.abs(plain).mean():.1f} cm⁻¹; by kind: {np.abs(better).mean():.1f} cm⁻¹")
    is_measured = {id(reference) for reference in measured}
    for reference in references:
        if id(reference) not in is_measured:
            reference.target = frequencies(reference, factors, "dft_constants")
    return factors, [WEIGHT if id(reference) in is_measured else 1.0 for reference in references]


def cross_validated(references: list[Reference], weights: list[float]) -> None:
    """Print errors of molecules that were left out of the fit, five folds of molecules."""
    fold = np.random.default_rng(0).integers(0, 5, len(references))
    errors: dict[str, list[float]] = {"as they are": [], "times 0.98": [], "corrected": []}
    overlap: dict[str, list[float]] = {"as they are": [], "corrected": []}
    for part in range(5):
        kept = [number for number in range(len(references)) if fold[number] != part]
        training = [references[number] for number in kept]
        factors = fit_factors(training, "constants", None, SPREAD, 1.0, [weights[number] for number in kept])
        charge, terms = fit_dipole(training)
        for reference in (references[number] for number in np.flatnonzero(fold == part)):
            assert reference.target is not None
            counted = reference.target > LOWEST
            plain = frequencies(reference, {}, "constants")
            for name, values in (
                ("as they are", plain),
                ("times 0.98", 0.98 * plain),
                ("corrected", frequencies(reference, factors, "constants")),
            ):
                errors[name] += np.abs(values - reference.target)[counted].tolist()
            own_terms = dipole_terms(reference.coordinates, reference.positions)
            dipole = corrected_dipole(reference.dipole, own_terms, Parameters(factors, charge, terms))
            squares = [
                ((reference.modes @ each) ** 2).sum(1)
                for each in (reference.dft_dipole, reference.dipole, dipole)
            ]
            lengths = [float(np.linalg.norm(square)) for square in squares]
            if min(lengths) > 1e-9:
                for name, square, length in zip(overlap, squares[1:], lengths[1:], strict=True):
                    overlap[name].append(float(square @ squares[0] / length / lengths[0]))
    print(f"GFN2-xTB, {len(references)} molecules, left out in turn: error of frequencies, cm⁻¹")
    for name, values in errors.items():
        print(f"  {name}: mean {np.mean(values):.1f}, median {np.median(values):.1f}")
    print("cosine of the intensities along B3LYP's modes with B3LYP's")
    for name, values in overlap.items():
        print(f"  {name}: {np.mean(values):.3f}")


def rounded(values: dict[str, float]) -> dict[str, float]:
    """Values with three digits after the point, by name."""
    return {name: round(value, 3) for name, value in sorted(values.items())}


def with_defaults(factors: dict[str, float], counts: Counter[str]) -> dict[str, float]:
    """Factors, and for other kinds those of the first word: the geometric mean, weighted by molecules."""
    logs: dict[str, list[tuple[float, int]]] = {}
    for kind, factor in factors.items():
        logs.setdefault(kind.split()[0], []).append((np.log(factor), counts[kind]))
    means = {
        word: float(np.exp(np.average([log for log, _ in pairs], weights=[count for _, count in pairs])))
        for word, pairs in logs.items()
    }
    return rounded(factors | means)


def fit(folder: Path) -> None:
    """Fit, cross-validate and write the parameters."""
    references = read(folder)
    counts = Counter(kind for reference in references for kind in set(reference.coordinates.kinds))
    dft_factors, weights = with_targets(references)
    cross_validated(references, weights)
    factors = fit_factors(references, "constants", None, SPREAD, 1.0, weights)
    charge, terms = fit_dipole(references)
    content = {
        "version": VERSION,
        "references": sorted(reference.smiles for reference in references),
        "methods": {
            "GFN2-xTB": {
                "factors": with_defaults(factors, counts),
                "charge": round(charge, 3),
                "terms": rounded(terms),
            },
            "B3LYP/def2-SVP": {"factors": with_defaults(dft_factors, counts), "charge": 1.0, "terms": {}},
        },
    }
    FILE.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"{FILE.name}: {len(factors)} factors, {len(terms)} terms of {len(references)} molecules")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="references")
    fit(parser.parse_args().folder)


if __name__ == "__main__":
    main()
