"""The spectra of one sample, from files or from memory, prepared for comparison with a library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from molspectra.errors import MismatchError, ValueRangeError
from molspectra.search import network
from molspectra.search.pipeline import DEFAULT, Pipeline
from molspectra.search.shape import Shapes, shapes
from molspectra.search.vectors import Floats, SearchModel, coarse, coarse_mask, unit
from molspectra.spectra.files.measured import MeasuredSpectrum, onto_axis
from molspectra.spectra.files.read import holds_lines, read_measured, read_spectra
from molspectra.spectra.measured import Preparation, corrected
from molspectra.spectra.modality import IR, Modality, modality
from molspectra.spectra.plausible import check_spectrum, check_values
from molspectra.spectra.spectrum import LineSpectrum, SampledSpectrum

_FLAT = 1e-6  # what rounding, and the solution of a baseline, leave of a straight line, relative to it

Spectrum = LineSpectrum | SampledSpectrum | MeasuredSpectrum | Path | str
"""Forms of a query's spectrum; a path is read."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """One spectrum on the axis of its modality.

    Attributes:
        values: [points] intensities, 0 or more.
        signed: [points] the same before negative values, of noise about zero, were set to 0.
        measured: [points] mask of the range that was measured.
        known: [points] mask of the part of it that is compared.
        absolute: whether `values` are in the modality's intensity unit, rather than of an arbitrary scale.
        remarks: conversions, for people.
    """

    values: npt.NDArray[np.float64]
    signed: npt.NDArray[np.float64]
    measured: npt.NDArray[np.bool_]
    known: npt.NDArray[np.bool_]
    absolute: bool
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Query:
    """The spectra of Q samples in the forms that are compared.

    Attributes:
        vector: embeddings [Q, D] of all spectra of a sample together; None for a comparison of shapes alone.
        embedded: intensities [Q, points] in `vector` by modality, as the encoder reads them.
        learned: embeddings [Q, D] of each spectrum alone, by modality.
        samples: stored points [Q, P] by modality, of length 1 over the known ones, and the mask of these [P].
        shapes: bands of each spectrum, by modality.
        network: vectors [S, Q, D] of the infrared spectra, see `molspectra.search.network`; None where they
            are not compared.
        gases: whether the infrared spectrum was measured, so that small molecules are also compared as gases.
        remarks: conversions of the spectra, for people.
    """

    vector: Floats | None = None
    embedded: Mapping[str, Floats] = field(default_factory=dict)
    learned: Mapping[str, Floats] = field(default_factory=dict)
    samples: Mapping[str, tuple[Floats, npt.NDArray[np.bool_]]] = field(default_factory=dict)
    shapes: Mapping[str, Shapes] = field(default_factory=dict)
    network: Floats | None = None
    gases: bool = False
    remarks: tuple[str, ...] = ()

    def covered(self, name: str) -> float:
        """Share of the axis of a modality that is compared."""
        return float(self.samples[name][1].mean()) if name in self.samples else 0.0


def read_query(
    path: Path | str,
    name: str,
    *,
    unit: str | None = None,
    quantity: str | None = None,
    reflectance: str = "refuse",
    pipeline: Pipeline = DEFAULT,
) -> Prepared:
    """Read the spectrum of one modality from a file: JCAMP-DX, text, an instrument's, or a program's.

    Args:
        path: the file.
        name: its modality.
        unit: of the axis of a text file without one in its header.
        quantity: of the values of a text file without one in its header.
        reflectance: see `molspectra.spectra.files.measured.to_absorbance`.
        pipeline: what is done to it.

    Raises:
        InputError: the file is damaged, lacks unit or quantity, or has not one spectrum of this modality.
    """
    path, kind = Path(path), modality(name)
    if holds_lines(path):
        (lines,) = read_spectra(path, kind.name)
        return prepare(lines, kind.name, pipeline=pipeline)
    measured = read_measured(path, modality=kind.name, unit=unit, quantity=quantity)
    spectra = [spectrum for spectrum in measured if spectrum.modality in (None, kind.name)]
    if not spectra:
        kinds = ", ".join(sorted({str(spectrum.modality) for spectrum in measured}))
        raise MismatchError(f"{path} holds no {kind.name} spectrum, but {kinds}")
    if len(spectra) > 1:
        raise MismatchError(f"{path} holds {len(spectra)} {kind.name} spectra; give a file with one")
    return prepare(spectra[0], kind.name, reflectance=reflectance, pipeline=pipeline)


def prepare(
    spectrum: Spectrum | Prepared, name: str, *, reflectance: str = "refuse", pipeline: Pipeline = DEFAULT
) -> Prepared:
    """Put a spectrum on the axis of its modality, with a mask of the range that was measured.

    Raises:
        InputError: it is of another modality, cannot be converted, or has no intensity.
    """
    if isinstance(spectrum, Prepared):
        return spectrum
    kind = modality(name)
    if isinstance(spectrum, str | Path):
        return read_query(spectrum, name, reflectance=reflectance, pipeline=pipeline)
    if spectrum.modality not in (None, kind.name):
        raise MismatchError(f"a {spectrum.modality} spectrum was given as {kind.name}")
    where = f"{spectrum.source}: " if isinstance(spectrum, MeasuredSpectrum) and spectrum.source else ""
    if isinstance(spectrum, MeasuredSpectrum):
        signed, measured, settings, told = _of_file(spectrum, kind, reflectance, pipeline)
        absolute, remarks = False, tuple(f"{kind.name}: {remark}" for remark in told)
    else:
        try:
            check_spectrum(spectrum)
        except ValueRangeError as error:
            raise error.with_context(kind.name) from error
        absolute = isinstance(spectrum, LineSpectrum) or not spectrum.source.startswith("measured")
        sampled = spectrum.broadened() if isinstance(spectrum, LineSpectrum) else spectrum
        settings, remarks = pipeline.preparation(kind, not absolute), ()
        signed, measured = _of_samples(sampled.values, kind, absolute, settings)
    known = measured
    if settings.window is not None:
        low, high = settings.window
        axis = kind.axis()
        known = measured & (axis >= low) & (axis <= high)
    values = np.where(known, np.maximum(signed, 0), 0)
    largest = float(values.max())
    if not coarse(values / max(largest, 1e-300), kind)[coarse_mask(known, kind)].any():
        raise ValueRangeError(f"{where}too little of the {kind.name} axis is covered to compare anything")
    scale = 1.0 if absolute else largest
    remarks += pipeline.remarks(kind, settings)
    return Prepared(values / scale, signed / scale, measured, known, absolute, remarks)


def _of_file(
    spectrum: MeasuredSpectrum, kind: Modality, reflectance: str, pipeline: Pipeline
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], Preparation, tuple[str, ...]]:
    """Samples [points] of a spectrum from a file, negative ones included; known ones; steps; remarks."""
    settings = pipeline.preparation(kind, True)
    signed = np.zeros(kind.points)

    def process(values: npt.NDArray[np.float64], kind: Modality, covered: slice) -> npt.NDArray[np.float64]:
        if values.max() <= 0:
            check_values(values)  # a baseline would hide that it lies below zero
        signed[covered] = corrected(values[None, covered], kind, settings)[0]
        if np.abs(signed).max() < _FLAT * np.abs(values).max():
            raise ValueRangeError("it is flat: no band rises above the baseline")
        return signed

    with np.errstate(all="ignore"):  # overflow is checked below
        converted = onto_axis(
            spectrum,
            kind.name,
            outside="zero",
            reflectance=reflectance,
            scale=settings.scale,
            process=process,
        )
        ones = replace(spectrum, values=np.ones(len(spectrum)), quantity="absorbance", remarks=())
        known = onto_axis(ones, kind.name, outside="zero", scale=settings.scale).spectrum.values > 0
    return signed, known, settings, converted.remarks


def _of_samples(
    values: npt.NDArray[np.floating], kind: Modality, absolute: bool, settings: Preparation
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Samples [points] after the steps, negative ones included, and the known ones."""
    known = np.ones(kind.points, bool)
    if not absolute:  # `onto_axis` puts zeros where nothing was measured
        nonzero = np.flatnonzero(values)
        known[: nonzero.min(initial=kind.points)] = known[nonzero.max(initial=-1) + 1 :] = False
    signed = np.array(values, np.float64)
    if settings.scale != 1:
        axis = kind.axis()
        signed = np.interp(axis / settings.scale, axis, signed, left=0, right=0)
        known = np.interp(axis / settings.scale, axis, known.astype(float), left=0, right=0) > 0.999
    if known.any():
        signed[known] = corrected(signed[None, known], kind, settings)[0]
    return signed, known


def query_of(
    prepared: Mapping[str, Prepared],
    model: SearchModel | None,
    typical: Mapping[str, npt.NDArray[np.floating]],
    *,
    learned: bool = False,
    scales: tuple[float, ...] | None = None,
    match: bool = False,
) -> Query:
    """Make a query of the spectra of one sample.

    Spectra of an arbitrary scale are scaled to the mean area of the library's spectra over the same range,
    since the encoder reads intensities and not only shapes.

    Args:
        prepared: by modality.
        model: makes the embeddings; None for a comparison of shapes alone.
        typical: mean spectrum of the library by modality, stored points [P].
        learned: also embed every spectrum alone.
        scales: factors on the library's frequencies, for the comparison of `shapes`; None leaves these out.
        match: also compute the vectors of the network.

    Raises:
        InputError: the model reads none of the spectra.
    """
    remarks = [remark for spectrum in prepared.values() for remark in spectrum.remarks]
    values, samples = {}, {}
    for name, spectrum in prepared.items():
        kind = modality(name)
        points, covered = coarse(spectrum.values, kind), coarse_mask(spectrum.known, kind)
        scale = 1.0
        if not spectrum.absolute and name in typical:
            scale = float(np.sum(typical[name][covered]) / max(float(points[covered].sum()), 1e-30))
        elif not spectrum.absolute:
            remarks.append(f"{name}: scaled to a largest value of 1, as the library has no such spectra")
        values[name] = (spectrum.values * scale)[None].astype(np.float32)
        if covered.any():
            samples[name] = (unit(np.where(covered, points, 0)[None]), covered)
    bands = {
        name: shapes(spectrum.signed[None], spectrum.measured, spectrum.known, modality(name), scales)
        for name, spectrum in prepared.items()
        if scales is not None
    }
    trained = None
    gases = IR.name in prepared and not prepared[IR.name].absolute
    if match and network.MODALITY in prepared:
        factors = network.SCALES if scales and len(scales) > 1 else (1.0,)
        trained = network.stretched(prepared[network.MODALITY].values[None], factors)
    if model is None:
        return Query(samples=samples, shapes=bands, network=trained, gases=gases, remarks=tuple(remarks))
    readable = {name: rows for name, rows in values.items() if name in model.modalities}
    if not readable:
        raise MismatchError(f"the model reads {', '.join(model.modalities)}, not {', '.join(prepared)}")
    single = {name: model.spectra({name: rows}) for name, rows in readable.items()} if learned else {}
    return Query(model.spectra(readable), readable, single, samples, bands, trained, gases, tuple(remarks))
