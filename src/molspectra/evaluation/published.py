"""Published test errors to compare runs with, each with its unit and source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PAPER = "MolSpectra (ICLR 2025, arXiv 2502.16284)"

QM9_UNITS: Mapping[str, str] = {
    "mu": "D",
    "alpha": "a0^3",
    "homo": "meV",
    "lumo": "meV",
    "gap": "meV",
    "r2": "a0^2",
    "zpve": "meV",
    "u0": "meV",
    "u298": "meV",
    "h298": "meV",
    "g298": "meV",
    "cv": "cal/mol/K",
}
"""The 12 properties of QM9 in the order of the published table, with the units of their errors."""

MD17_FORMULAS: Mapping[str, str] = {
    "aspirin": "C9H8O4",
    "benzene": "C6H6",
    "ethanol": "C2H6O",
    "malonaldehyde": "C3H4O2",
    "naphthalene": "C10H8",
    "salicylic": "C7H6O3",
    "toluene": "C7H8",
    "uracil": "C4H4N2O2",
}
"""The molecules of MD17 in the order of the published table, with their formulas."""

FORCE_UNIT = "kcal/mol/Å"

_SLIDE = "Ni et al. 2024"
_LATER = "its authors, 2026"

_QM9: Mapping[tuple[str, str], tuple[float | None, ...]] = {
    ("TorchMD-NET, from scratch", PAPER): (
        0.011, 0.059, 20.3, 17.5, 36.1, 0.033, 1.84, 6.15, 6.38, 6.16, 7.62, 0.026,
    ),
    ("Coord", PAPER): (0.016, 0.052, 17.7, 14.7, 31.8, 0.450, 1.71, 6.57, 6.11, 6.45, 6.91, 0.020),
    ("MolSpectra", PAPER): (0.011, 0.048, 15.5, 13.1, 26.8, 0.410, 1.71, 5.67, 5.45, 5.87, 6.18, 0.021),
    ("SliDe", _SLIDE): (0.0087, 0.0366, 13.6, 12.3, 26.2, 0.341, 1.52, 4.28, 4.29, 4.26, 5.37, 0.019),
    ("CT-SCD-PCQ", _LATER): (None, 0.0377, 12.7, 11.5, 24.5, None, 1.18, 3.58, 3.50, 3.52, 5.29, 0.021),
    ("CGT-SCD-PCQ", _LATER): (None, 0.0383, 9.65, 9.05, 19.7, None, 1.22, 3.96, 4.11, 4.00, 5.29, 0.019),
    ("JMP-L (235 million parameters)", "its authors, 2024"): (
        None, 0.032, 8.8, 8.6, 19.1, None, 0.9, 2.9, 2.8, 2.8, 4.3, 0.017,
    ),
}  # fmt: skip

_MD17: Mapping[tuple[str, str], tuple[float, ...]] = {
    ("TorchMD-NET, from scratch", PAPER): (0.245, 0.219, 0.107, 0.167, 0.059, 0.128, 0.064, 0.089),
    ("Coord", PAPER): (0.211, 0.169, 0.096, 0.139, 0.053, 0.109, 0.058, 0.074),
    ("MolSpectra", PAPER): (0.099, 0.097, 0.052, 0.077, 0.085, 0.093, 0.075, 0.095),
    ("AniDS", "its authors' logs, 2025"): (0.102, 0.140, 0.050, 0.084, 0.036, 0.063, 0.038, 0.062),
}

_ABLATIONS: Mapping[str, tuple[float | None, float | None, float]] = {  # HOMO, LUMO, gap in meV
    "mask ratio 0.05": (15.7, 13.4, 29.7),
    "mask ratio 0.10": (15.5, 13.1, 26.8),
    "mask ratio 0.30": (16.2, 13.7, 29.0),
    "all objectives": (15.5, 13.1, 26.8),
    "without reconstruction": (16.4, 14.1, 29.7),
    "without reconstruction and contrast": (17.5, 14.4, 31.2),
    "all spectra": (15.5, 13.1, 26.8),
    "without UV-Vis": (15.8, 13.3, 27.1),
    "without IR": (16.6, 14.1, 28.9),
    "without Raman": (16.1, 13.9, 28.3),
}
_ABLATED = ("homo", "lumo", "gap")

_PILOT: Mapping[str, Mapping[str, tuple[float, str]]] = {
    "EGNN": {"alpha": (0.071, "a0^3"), "gap": (48.0, "meV")},
    "EGNN with the UV-Vis spectrum as further input": {"alpha": (0.049, "a0^3"), "gap": (43.0, "meV")},
}

NOTES: Mapping[str, str] = {
    "Coord": "the published row mixes sources: plain denoising with the same encoder reaches HOMO 15.5 to "
    "15.8 and LUMO 13.2 meV in its authors' hands",
    "MolSpectra": "nobody outside has reproduced it from the public settings; no weights were released",
}
"""Remarks on published rows, by method."""

STRUCTURES = 3_378_606
"""Pre-training structures behind the paper's figures."""

SPECTRA = 129_817
"""Molecules with spectra in its stage 2."""

QM9_TRAIN, MD17_TRAIN = 110_000, 950
"""Its training molecules of QM9, and training frames of MD17."""

LABEL_LEVEL = "B3LYP/6-31G(2df,p)"
"""Level of theory of QM9's labels."""


@dataclass(frozen=True)
class Published:
    """One published test error.

    Attributes:
        method: model and training.
        value: mean absolute error.
        unit: its unit.
        source: who published it.
        note: remark; "" for none.
    """

    method: str
    value: float
    unit: str
    source: str
    note: str = ""


def qm9(target: str) -> tuple[Published, ...]:
    """Return errors on one of QM9's 12 properties; none for another name."""
    if target not in QM9_UNITS:
        return ()
    column, unit = list(QM9_UNITS).index(target), QM9_UNITS[target]
    return tuple(
        Published(method, value, unit, source, NOTES.get(method, ""))
        for (method, source), values in _QM9.items()
        if (value := values[column]) is not None
    )


def md17(molecule: str) -> tuple[Published, ...]:
    """Return force errors on one of MD17's molecules; none for another name."""
    if molecule not in MD17_FORMULAS:
        return ()
    column = list(MD17_FORMULAS).index(molecule)
    return tuple(
        Published(
            method, values[column], FORCE_UNIT, source, "" if method == "Coord" else NOTES.get(method, "")
        )
        for (method, source), values in _MD17.items()
    )


def ablation(variant: str, target: str) -> Published | None:
    """Return the error of one variant of the method on HOMO, LUMO or gap; None where none is published."""
    if target not in _ABLATED or variant not in _ABLATIONS:
        return None
    value = _ABLATIONS[variant][_ABLATED.index(target)]
    return None if value is None else Published(variant, value, "meV", PAPER)


def pilot(target: str) -> tuple[Published, ...]:
    """Return errors of the pilot experiment on α and the gap; none for another name."""
    return tuple(
        Published(method, *values[target], PAPER) for method, values in _PILOT.items() if target in values
    )


_FACTORS: Mapping[tuple[str, str], float] = {
    ("eV", "meV"): 1000.0,
    ("Hartree", "meV"): 27211.386245988,
    ("eV/Å", FORCE_UNIT): 23.060547830619,
    ("Hartree", "eV"): 27.211386245988,
}
_SYNONYMS: Mapping[str, str] = {
    "bohr^3": "a0^3",
    "Bohr^3": "a0^3",
    "a_0^3": "a0^3",
    "a0³": "a0^3",
    "bohr^2": "a0^2",
    "Bohr^2": "a0^2",
    "a_0^2": "a0^2",
    "a0²": "a0^2",
    "Debye": "D",
    "hartree": "Hartree",
    "Ha": "Hartree",
    "cal/(mol K)": "cal/mol/K",
    "cal/(mol*K)": "cal/mol/K",
    "kcal/mol/A": FORCE_UNIT,
    "kcal/(mol Å)": FORCE_UNIT,
    "eV/A": "eV/Å",
}


def factor(unit: str, target: str) -> float | None:
    """Return the factor that converts `unit` to `target`; None for different or unknown quantities.

    Energies by CODATA 2018 (1 Hartree = 27.211386245988 eV, 1 eV = 23.0605 kcal/mol).
    """
    pair = _SYNONYMS.get(unit, unit), _SYNONYMS.get(target, target)
    return 1.0 if pair[0] == pair[1] else _FACTORS.get(pair)
