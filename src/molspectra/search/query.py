"""Spectra of one sample, from files or from memory, made ready to be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from molspectra.errors import InputError
from molspectra.search.vectors import Floats, coarse, coarse_mask, unit
from molspectra.spectra.files.measured import MeasuredSpectrum, onto_axis
from molspectra.spectra.files.read import OUTPUT, read_measured, read_spectra
from molspectra.spectra.modality import modality
from molspectra.spectra.spectrum import LineSpectrum, SampledSpectrum

if TYPE_CHECKING:
    from molspectra.search.vectors import SearchModel

Spectrum = LineSpectrum | SampledSpectrum | MeasuredSpectrum | Path | str
"""What a query's spectrum may be; a path is read."""

LARGEST = 1e12
"""A larger intensity in a modality's unit is a mistake."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """One spectrum on the axis of its modality.

    Attributes:
        values: [points] intensities.
        inside: [points] where it is known.
        absolute: whether `values` are in the modality's intensity unit, not of any scale.
        remarks: what was done to it.
    """

    values: npt.NDArray[np.float64]
    inside: npt.NDArray[np.bool_]
    absolute: bool
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Query:
    """The spectra of one sample as they are compared.

    Attributes:
        vector: [D] of all spectra together; None where it was not asked for.
        learned: by modality [D], of each spectrum alone.
        samples: by modality the stored points [P], of length 1 over those that are known, and which are [P].
        remarks: what was done to the spectra, for people.
    """

    vector: Floats | None = None
    learned: Mapping[str, Floats] = field(default_factory=dict)
    samples: Mapping[str, tuple[Floats, npt.NDArray[np.bool_]]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def read_query(
    path: Path | str,
    name: str,
    *,
    unit: str | None = None,
    quantity: str | None = None,
    reflectance: str = "refuse",
) -> Prepared:
    """Read the spectrum of one modality from a file: JCAMP-DX, two columns of text, or a program's output.

    Args:
        path: the file.
        name: its modality.
        unit: of the axis of a text file, where its header does not tell it.
        quantity: of the values of a text file, where its header does not tell it.
        reflectance: see `molspectra.spectra.files.measured.to_absorbance`.

    Raises:
        InputError: the file is damaged, does not tell what is needed, holds a spectrum of another kind, or
            several of this one.
    """
    path, kind = Path(path), modality(name)
    if path.suffix.lower() in OUTPUT:
        (lines,) = read_spectra(path, kind.name)
        return prepare(lines, kind.name)
    found = read_measured(path, modality=kind.name, unit=unit, quantity=quantity)
    mine = [each for each in found if each.modality in (None, kind.name)]
    if not mine:
        kinds = ", ".join(sorted({str(each.modality) for each in found}))
        raise InputError(f"{path} holds no {kind.name} spectrum, but {kinds}")
    if len(mine) > 1:
        raise InputError(f"{path} holds {len(mine)} {kind.name} spectra; give a file with one")
    return prepare(mine[0], kind.name, reflectance=reflectance)


def prepare(spectrum: Spectrum, name: str, *, reflectance: str = "refuse") -> Prepared:
    """Put a spectrum on the axis of its modality; what was not measured is marked so.

    Raises:
        InputError: it is of another modality, cannot be converted, or has no intensity.
    """
    kind = modality(name)
    if isinstance(spectrum, str | Path):
        return read_query(spectrum, name, reflectance=reflectance)
    if spectrum.modality not in (None, kind.name):
        raise InputError(f"a {spectrum.modality} spectrum was given as {kind.name}")
    where = f"{spectrum.source}: " if isinstance(spectrum, MeasuredSpectrum) and spectrum.source else ""
    inside, absolute = np.ones(kind.points, bool), True
    remarks: tuple[str, ...] = ()
    if isinstance(spectrum, MeasuredSpectrum):
        with np.errstate(all="ignore"):  # numbers near the end of their range are looked at below
            converted = onto_axis(spectrum, kind.name, outside="zero", reflectance=reflectance)
            ones = replace(spectrum, values=np.ones(len(spectrum)), quantity="absorbance", remarks=())
            inside = onto_axis(ones, kind.name, outside="zero").spectrum.values > 0
        values, absolute, remarks = converted.spectrum.values, False, converted.remarks
    elif isinstance(spectrum, LineSpectrum):
        values = spectrum.broadened().values
    else:
        values = spectrum.values
        absolute = not spectrum.source.startswith("measured")
        if not absolute:  # `onto_axis` has put zeros where nothing was measured
            known = np.flatnonzero(values)
            inside = np.zeros(kind.points, bool)
            inside[known.min(initial=kind.points) : known.max(initial=-1) + 1] = True
    largest = float(values.max())
    if not largest > 0:
        raise InputError(f"{where}the {kind.name} spectrum is zero everywhere")
    if not coarse(values / largest, kind)[coarse_mask(inside, kind)].any():
        raise InputError(f"{where}too little of the {kind.name} axis is covered to compare anything")
    if absolute and largest > LARGEST:
        raise InputError(f"{where}the {kind.name} spectrum reaches {largest:.3g} {kind.intensity_unit}")
    scale = 1.0 if absolute else largest
    said = tuple(f"{kind.name}: {remark}" for remark in remarks)
    return Prepared(values / scale, inside, absolute, said)


def query_of(
    prepared: Mapping[str, Prepared],
    model: SearchModel | None,
    typical: Mapping[str, npt.NDArray[np.floating]],
    *,
    learned: bool = False,
) -> Query:
    """Make a query of the spectra of one sample.

    Spectra of any scale are given the area that the library's spectra have on average over the same range,
    since the encoder reads intensities and not only shapes.

    Args:
        prepared: by modality.
        model: makes the vectors; None for a comparison of shapes alone.
        typical: by modality the mean spectrum of the library, stored points [P].
        learned: also make a vector of every spectrum alone.

    Raises:
        InputError: the model reads none of the spectra.
    """
    remarks = [remark for each in prepared.values() for remark in each.remarks]
    values, samples = {}, {}
    for name, each in prepared.items():
        kind = modality(name)
        points, covered = coarse(each.values, kind), coarse_mask(each.inside, kind)
        scale = 1.0
        if not each.absolute and name in typical:
            scale = float(np.sum(typical[name][covered]) / max(float(points[covered].sum()), 1e-30))
        elif not each.absolute:
            remarks.append(f"{name}: scaled to a largest value of 1, as the library has no such spectra")
        values[name] = (each.values * scale)[None].astype(np.float32)
        if covered.any():
            samples[name] = (unit(np.where(covered, points, 0)[None])[0], covered)
    if model is None:
        return Query(samples=samples, remarks=tuple(remarks))
    known = {name: each for name, each in values.items() if name in model.modalities}
    if not known:
        raise InputError(f"the model reads {', '.join(model.modalities)}, not {', '.join(prepared)}")
    alone = {name: model.spectra({name: each})[0] for name, each in known.items()} if learned else {}
    return Query(model.spectra(known)[0], alone, samples, tuple(remarks))
