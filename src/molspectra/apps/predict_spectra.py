"""IR, Raman and UV-Vis spectra of molecules, by the spectrum head of a model or from learned dipoles."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from molspectra._version import __version__
from molspectra.apps.learned import Run
from molspectra.apps.learned_vibrations import LearnedVibrations
from molspectra.apps.loading import LoadedModel, loaded
from molspectra.apps.molecules import CheckedMolecule, Molecules, checked_batches, identity_columns
from molspectra.apps.tables import Tabular, table_of, write_rejected
from molspectra.chem.drawing import title_of
from molspectra.chem.molecule import Molecule
from molspectra.chem.readers import ErrorPolicy, OnError, Rejection
from molspectra.data.output import free_path, write_table
from molspectra.data.store.schema import Metadata
from molspectra.data.store.writer import Row, write_store
from molspectra.errors import InputError, MismatchError, MolspectraError, NotFoundError, SettingError, hint
from molspectra.evaluation.predict import moved
from molspectra.models.model import MolSpectra
from molspectra.spectra.modality import Modality, modality, modality_names
from molspectra.spectra.plausible import check_values
from molspectra.spectra.spectrum import LineSpectrum, SampledSpectrum

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

SUFFIXES = (".arrow", ".parquet", ".csv")
"""Files that predicted spectra can be written to."""

_FAINT = 0.01  # of the highest maximum


class Band(NamedTuple):
    """A maximum of a spectrum: position in the modality's axis unit, height in its intensity unit."""

    position: float
    height: float


@dataclass(frozen=True, eq=False, repr=False)
class PredictedSpectra(Tabular):
    """Predicted spectra of n molecules; item i holds those of molecule i, a `SampledSpectrum` by modality.

    Attributes:
        intensities: by modality [n, points] float32, not negative, in its `intensity_unit` on its axis.
        molecules: the structures that were predicted.
        columns: source, identity, name, SMILES and formula of each, by name [n].
        about: model, level, version.
        rejected: molecules that were left out, with the reason.
        lines: by modality those of each molecule, of which `intensities` are the broadened spectra; empty
            where a spectrum head predicted.
    """

    intensities: Mapping[str, npt.NDArray[np.float32]]
    molecules: tuple[Molecule, ...]
    columns: Mapping[str, list[str | None]]
    about: Mapping[str, str]
    rejected: tuple[Rejection, ...] = ()
    lines: Mapping[str, tuple[LineSpectrum, ...]] = field(default_factory=dict)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the predicted modalities."""
        return tuple(self.intensities)

    @property
    def level(self) -> str:
        """Level that stores and spectra name: "predicted by MODEL", or those of the lines."""
        return self.about["level"]

    def _level(self, name: str) -> str:
        """Level of the spectra of a modality."""
        return self.lines[name][0].level if self.lines else self.level

    def __len__(self) -> int:
        return len(self.molecules)

    def __getitem__(self, index: int) -> dict[str, SampledSpectrum]:
        """The spectra of one molecule by modality."""
        return {
            name: SampledSpectrum(name, values[index].astype(np.float64), self._level(name))
            for name, values in self.intensities.items()
        }

    def __iter__(self) -> Iterator[dict[str, SampledSpectrum]]:
        """The spectra of the molecules in turn."""
        return map(self.__getitem__, range(len(self)))

    def __repr__(self) -> str:
        """Return a short description for people."""
        left_out = f", {len(self.rejected)} left out" if self.rejected else ""
        return f"PredictedSpectra({', '.join(self.modalities)} of {len(self)}, {self.level}{left_out})"

    def bands(self, index: int, name: str, most: int = 3) -> list[Band]:
        """The `most` highest maxima of a molecule's spectrum of a modality, the highest first.

        Left out are those below a hundredth of the highest, and those nearer than two line widths to a
        higher one.
        """
        from scipy.signal import find_peaks

        values, kind = self.intensities[name][index], modality(name)
        apart = max(1, round(2 * kind.fwhm / kind.step))  # nearer maxima are of one band
        places = find_peaks(values, height=_FAINT * values.max(), distance=apart)[0]
        places = places[np.argsort(-values[places], kind="stable")][:most]
        return [Band(float(kind.axis()[place]), float(values[place])) for place in places]

    def table(self) -> pa.Table:
        """A row for each molecule and modality, with the lists `axis` and `intensity` and their units."""
        lists = [
            pa.LargeListArray.from_arrays(
                pa.array(np.cumsum([0, *(len(row) for row in rows)]), pa.int64()),
                pa.array(np.concatenate(rows)),
            )
            for rows in (
                [modality(name).axis() for name in self.modalities] * len(self),
                [values[row] for row in range(len(self)) for values in self.intensities.values()],
            )
        ]
        return table_of({**self._row_columns(), "axis": lists[0], "intensity": lists[1]}, self.about)

    def _row_columns(self) -> dict[str, list[str | None] | list[str]]:
        """Columns of a table with a row for each molecule and modality."""
        kinds = [modality(name) for name in self.modalities]
        columns = {
            name: [text for text in texts for _ in self.modalities] for name, texts in self.columns.items()
        }
        return {
            **columns,
            "modality": list(self.modalities) * len(self),
            "axis_unit": [kind.unit for kind in kinds] * len(self),
            "intensity_unit": [kind.intensity_unit for kind in kinds] * len(self),
            "level": [self._level(name) for name in self.modalities] * len(self),
        }

    def _points(self) -> dict[str, pa.Array]:
        """Columns of a CSV table, one for each position of an axis, such as "500 cm⁻¹".

        Modalities with the same positions share their columns; a column is empty in the rows of others.
        """
        columns: dict[str, npt.NDArray[np.float32]] = {}
        for part, (name, values) in enumerate(self.intensities.items()):
            kind = modality(name)
            for position, points in zip(kind.axis(), values.T, strict=True):
                empty = np.full(len(self) * len(self.modalities), np.nan, np.float32)
                column = columns.setdefault(f"{position:.10g} {kind.unit}", empty)
                column[part :: len(self.modalities)] = points
        return {label: pa.array(column, mask=np.isnan(column)) for label, column in columns.items()}

    def save(self, out: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write a store (`.arrow`; of lines where there are any), `.parquet` (as `table`) or `.csv`.

        The header of `.csv` holds the positions.
        What was left out is listed in `FILE.rejected.jsonl`. The file appears complete or not at all.

        Raises:
            InputError: another suffix, a file that exists, or one that cannot be written.
        """
        path = free_path(out, SUFFIXES, overwrite=overwrite)
        if path.suffix.lower() == ".arrow":
            levels = {name: self._level(name) for name in self.modalities}
            metadata = Metadata(
                source="molecules given to predict-spectrum",
                licence="",
                lines=levels if self.lines else {},
                samples={} if self.lines else levels,
                notes={"geometry": "as given; of SMILES a conformer by ETKDGv3 and MMFF94", **self.about},
            )
            spectra: Iterable[Mapping[str, LineSpectrum | SampledSpectrum]] = self._lines() or self
            rows = (
                Row(molecule, each, identity=identity)
                for molecule, each, identity in zip(
                    self.molecules, spectra, self.columns["identity"], strict=True
                )
            )
            write_store(path, rows, metadata, overwrite=overwrite)
        elif path.suffix.lower() == ".parquet":
            write_table(self.table(), path)
        else:
            write_table(table_of({**self._row_columns(), **self._points()}, self.about), path)
        write_rejected(path, self.rejected)

    def _lines(self) -> list[dict[str, LineSpectrum]]:
        """The lines of the molecules in turn, by modality; none where a spectrum head predicted."""
        return [dict(zip(self.lines, each, strict=True)) for each in zip(*self.lines.values(), strict=True)]

    def figure(self) -> Figure:
        """Draw the spectra of the first twelve molecules, a row for each, a column for each modality."""
        from molspectra.spectra.plots import spectra_figure

        lines = self._lines() or [{}] * len(self)
        rows = (
            (title_of(molecule), {name: (spectrum, sticks.get(name)) for name, spectrum in spectra.items()})
            for molecule, spectra, sticks in zip(self.molecules, self, lines, strict=True)
        )
        return spectra_figure(rows, len(self), self.level)

    def _repr_png_(self) -> bytes:
        """The figure, for notebooks."""
        from molspectra.spectra.style import png

        return png(self.figure(), dpi=80)

    def plot(self, out: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write `figure` as PNG, SVG or PDF, by the suffix.

        Raises:
            InputError: another suffix, a file that exists, or one that cannot be written.
        """
        from molspectra.reporting.canvas import write_figure

        return write_figure(out, self.figure(), overwrite=overwrite)


def predict_spectra(
    molecules: Molecules,
    model: str | os.PathLike[str] | LoadedModel = "base",
    *,
    modalities: Sequence[str] | None = None,
    dipole: Run | None = None,
    polarisability: Run | None = None,
    checkpoint: Literal["best", "last"] = "best",
    batch_size: int = 64,
    device: str = "cpu",
    on_error: OnError = "raise",
    smiles: str = "smiles",
    show: bool = False,
) -> PredictedSpectra:
    """Predict spectra of molecules, as sampled spectra of the level that the model was trained on.

    They are kept in memory, about 30 kB for each molecule.

    With `dipole` or `polarisability` no spectrum head predicts. Structure and normal modes are those of
    GFN2-xTB, as in `simulate`, and the intensities follow from the derivatives of the networks: the result
    also has `lines`.

    Args:
        molecules: as for `molspectra.embed`. SMILES get the conformer of `from_smiles`.
        model: a model with a spectrum head, see `load`; not together with the next two.
        modalities: those to predict, of the model's own; None for all.
        dipole: a run of a dipole vector (`finetune --vectors`) for `ir`, as for `Calculator`.
        polarisability: a run of a polarisability (`finetune --tensors`) for `raman`.
        checkpoint: of these two runs, the weights with the lowest validation loss or the newest.
        batch_size: molecules per pass; results depend on it by rounding only.
        device: where to compute; a loaded model moves there.
        on_error: "raise" stops at the first bad molecule, "skip" lists it in `rejected`.
        smiles: column of a frame with SMILES.
        show: progress on standard error.

    Raises:
        InputError: no such model or file, a model without a spectrum head or without the modality, a bad
            molecule, an element that the model was not trained on, a spectrum that is not finite, or no
            molecule that could be predicted.
    """
    runs = {name: run for name, run in (("ir", dipole), ("raman", polarisability)) if run is not None}
    if runs:
        if model != "base":
            raise SettingError(
                "a model with a spectrum head and runs of dipoles are two ways; give one of them"
            )
        return _from_derivatives(
            molecules,
            LearnedVibrations(_chosen(runs, modalities), device, checkpoint),
            on_error,
            smiles,
            show,
        )
    model, policy = loaded(model), ErrorPolicy(on_error)
    kinds = _kinds(model, modalities)
    net = moved(model.model, device).eval()
    predicted: list[CheckedMolecule] = []
    parts: dict[str, list[npt.NDArray[np.float32]]] = {kind.name: [] for kind in kinds}
    for molecules_of_batch, batch in checked_batches(
        molecules, model, policy, batch_size, smiles=smiles, title="predict-spectrum", show=show
    ):
        with torch.no_grad():
            spectra = net.predict_spectra(net.encode(batch), batch)
        found = {name: spectra[name].float().cpu().numpy() for name in parts}
        usable = []
        for index, molecule in enumerate(molecules_of_batch):
            try:
                for name, values in found.items():
                    _check(name, values[index])
            except InputError as error:
                policy.reject(molecule.path, molecule.where, error)
            else:
                usable.append(index)
        predicted += [molecules_of_batch[index] for index in usable]
        for name, values in found.items():
            parts[name].append(values[usable])
    if not predicted:
        raise policy.nothing_left("predicted")
    return PredictedSpectra(
        {name: np.concatenate(part) for name, part in parts.items()},
        tuple(row.molecule for row in predicted),
        identity_columns(predicted),
        {"model": model.name, "level": f"predicted by {model.name}", "molspectra": __version__},
        tuple(policy.rejected),
    )


def _chosen(runs: Mapping[str, Run], names: Sequence[str] | None) -> dict[str, Run]:
    """The runs of the modalities asked for, all if None.

    Raises:
        NotFoundError: a modality without a run.
    """
    if names is None:
        return dict(runs)
    wanted = modality_names([names] if isinstance(names, str) else names)
    for name in wanted:
        if name not in runs:
            need = {"ir": "a dipole run", "raman": "a polarisability run"}.get(name, "a spectrum head")
            raise NotFoundError(f"{name}: is predicted by {need}, which was not given; {hint(name, runs)}")
    return {name: run for name, run in runs.items() if name in wanted}


def _from_derivatives(
    molecules: Molecules, vibrations: LearnedVibrations, on_error: OnError, smiles: str, show: bool
) -> PredictedSpectra:
    """Predict lines and their broadened spectra, molecule by molecule; see `predict_spectra`."""
    policy = ErrorPolicy(on_error)
    predicted: list[CheckedMolecule] = []
    lines: dict[str, list[LineSpectrum]] = {name: [] for name in vibrations.levels}
    parts: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in lines}
    for (row,), _ in checked_batches(
        molecules, vibrations.first, policy, 1, smiles=smiles, title="predict-spectrum", show=show
    ):
        try:
            molecule, found = vibrations.lines_of(row.molecule)
            spectra = {name: each.broadened().values.astype(np.float32) for name, each in found.items()}
            for name, values in spectra.items():
                _check(name, values)
        except MolspectraError as error:
            policy.reject(row.path, row.where, error)
            continue
        predicted.append(replace(row, molecule=molecule))
        for name in lines:
            lines[name].append(found[name])
            parts[name].append(spectra[name])
    if not predicted:
        raise policy.nothing_left("predicted")
    return PredictedSpectra(
        {name: np.stack(part) for name, part in parts.items()},
        tuple(row.molecule for row in predicted),
        identity_columns(predicted),
        {
            "level": "; ".join(vibrations.levels.values()),
            "geometry": "minimum of GFN2-xTB",
            "molspectra": __version__,
        },
        tuple(policy.rejected),
        {name: tuple(each) for name, each in lines.items()},
    )


def _check(name: str, values: npt.NDArray[np.float32]) -> None:
    """Refuse a predicted spectrum that no store takes: not finite, all zero or absurdly high."""
    try:
        check_values(values)
    except InputError as error:
        raise error.with_context(f"its predicted {name} spectrum") from error


def _kinds(model: LoadedModel, names: Sequence[str] | None) -> list[Modality]:
    """The modalities to predict, in the order of the model.

    Raises:
        MismatchError: a model without a spectrum head.
        NotFoundError: a modality that the head has not, or none.
    """
    known = spectra_of(model.model)
    if not known:
        raise MismatchError(
            f"{model.name}: the model has no spectrum head; give base, or a run of stage 2 that was "
            "pre-trained with weights.spectrum above 0"
        )
    wanted = known if names is None else modality_names([names] if isinstance(names, str) else names)
    for name in wanted:
        if name not in known:
            raise NotFoundError(f"{model.name}: predicts no {name} spectra; {hint(name, known)}")
    if not wanted:
        raise NotFoundError(f"{model.name}: no modality was given; it predicts {', '.join(known)}")
    return [modality(name) for name in known if name in wanted]


def spectra_of(model: MolSpectra) -> tuple[str, ...]:
    """Names of the modalities that a model predicts from structures; none without a spectrum head."""
    return () if model.spectrum_head is None else tuple(model.spectrum_head.heights)
