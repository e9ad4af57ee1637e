"""Properties and forces of molecules by a fine-tuned model, with their units."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from molspectra._version import __version__
from molspectra.apps.loading import LoadedEnsemble, LoadedModel, load
from molspectra.apps.molecules import (
    CheckedMolecule,
    Molecules,
    checked_batches,
    identity_columns,
)
from molspectra.apps.tables import Tabular, table_of, write_rejected
from molspectra.chem.molecule import Molecule
from molspectra.chem.readers import ErrorPolicy, OnError, Rejection
from molspectra.chem.xyz import xyz_frame
from molspectra.data.atomic import atomic_file
from molspectra.data.batch import Batch
from molspectra.data.output import free_path, vectors_of, write_table
from molspectra.data.store.schema import Quantity
from molspectra.errors import FormatError, MismatchError, ValueRangeError
from molspectra.evaluation.ensemble import mean_and_spread
from molspectra.evaluation.finetuned import in_brackets
from molspectra.evaluation.predict import moved, predict_batch
from molspectra.evaluation.uncertainty import check_coverage, uncertainties_of
from molspectra.models.model import MolSpectra
from molspectra.training.targets import quantities_of

SUFFIXES = (".csv", ".parquet", ".extxyz", ".xyz")
"""Files that predictions can be written to."""


COVERAGE = 0.9
"""Default probability with which the intervals of an ensemble hold the value."""


class _Column(NamedTuple):
    """A column of predictions: key in tables, name for people without the unit, values [n], quantity."""

    key: str
    name: str
    values: npt.NDArray[np.float64]
    quantity: Quantity


@dataclass(frozen=True, eq=False, repr=False)
class Predicted(Tabular):
    """Predictions of T properties for n molecules.

    Attributes:
        targets: names of the T properties.
        values: [n] float64 of one property, [n, T] of several.
        quantities: unit and level of theory of the training values of each ("" where the model does not
            tell); the unit of a class is "probability", namely of class 1.
        forces: [N, 3] float64 of every molecule, -∂(property)/∂r in the order of its atoms; None without.
        force_quantity: unit and level of the forces; None without.
        molecules: the structures that were predicted.
        columns: source, identity, name, SMILES and formula of each, by name [n].
        about: model, target, version; of an ensemble the coverage.
        rejected: molecules that were left out, with the reason.
        uncertainties: standard deviations of an ensemble, calibrated, of the shape of `values`; of a class
            the spread of its probability; None of one model.
        half_widths: of the intervals around `values` that hold the computed value with the probability
            `coverage`, for molecules like those of the calibration; NaN of a class, None of one model.
        coverage: see `half_widths`.
    """

    targets: tuple[str, ...]
    values: npt.NDArray[np.float64]
    quantities: tuple[Quantity, ...]
    forces: tuple[npt.NDArray[np.float64], ...] | None
    force_quantity: Quantity | None
    molecules: tuple[Molecule, ...]
    columns: Mapping[str, list[str | None]]
    about: Mapping[str, str]
    rejected: tuple[Rejection, ...] = ()
    uncertainties: npt.NDArray[np.float64] | None = None
    half_widths: npt.NDArray[np.float64] | None = None
    coverage: float = COVERAGE

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        """Return a short description for people."""
        facts = [f"{', '.join(self.targets)} of {len(self)}"]
        if len(self.targets) == 1:
            facts += [self.quantities[0].unit, self.quantities[0].level]
        facts += ["with forces"] if self.forces is not None else []
        facts += [f"{len(self.rejected)} left out"] if self.rejected else []
        return f"Predicted({', '.join(filter(None, facts))})"

    def _columns(self) -> list[_Column]:
        """Values, and of an ensemble uncertainties and the ends of intervals, of every property in turn."""
        columns = []
        for index, (target, quantity) in enumerate(zip(self.targets, self.quantities, strict=True)):
            value = self._of(self.values, index)
            columns.append(_Column(target, target, value, quantity))
            if self.uncertainties is not None and self.half_widths is not None:
                width, share = self._of(self.half_widths, index), f"{100 * self.coverage:g} %"
                uncertainty = self._of(self.uncertainties, index)
                columns.append(
                    _Column(f"{target}_uncertainty", f"{target} uncertainty", uncertainty, quantity)
                )
                if np.isnan(width).all():  # of a class
                    continue
                columns += [
                    _Column(f"{target}_low", f"{target} {share} from", value - width, quantity),
                    _Column(f"{target}_high", f"{target} {share} to", value + width, quantity),
                ]
        return columns

    def _of(self, values: npt.NDArray[np.float64], index: int) -> npt.NDArray[np.float64]:
        """Those [n] of one property among values of the shape of `values`."""
        return values.reshape(len(self), len(self.targets))[:, index]

    def table(self) -> pa.Table:
        """An Arrow table; units and levels are in the metadata of its columns.

        With forces it also has the structures (`numbers`, `positions` in Å, `charge`) that they belong to.
        """
        predicted = self._columns()
        columns: dict[str, Any] = {**self.columns, **{one.key: one.values for one in predicted}}
        quantities = {one.key: one.quantity for one in predicted}
        if self.forces is not None and self.force_quantity is not None:
            columns["numbers"] = pa.array([molecule.numbers for molecule in self.molecules])
            columns["charge"] = pa.array([molecule.charge for molecule in self.molecules], pa.int32())
            columns["positions"] = _vectors([molecule.positions for molecule in self.molecules])
            columns["forces"] = _vectors(list(self.forces))
            quantities |= {"positions": Quantity("Å"), "forces": self.force_quantity}
        table = table_of(columns, self.about)
        for name, quantity in quantities.items():
            index = table.schema.get_field_index(name)
            field = table.schema.field(name).with_metadata({"unit": quantity.unit, "level": quantity.level})
            table = table.set_column(index, field, table[name])
        return table

    def save(self, out: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write `.csv` (unit in the header, level in a column), `.parquet` (as `table`) or `.extxyz`.

        What was left out is listed in `FILE.rejected.jsonl`.

        Raises:
            InputError: another suffix, a file that exists or cannot be written, or forces in a CSV table.
        """
        path = free_path(out, SUFFIXES, overwrite=overwrite)
        refuse_forces(path.suffix, self.forces is not None)
        if path.suffix.lower() == ".parquet":
            write_table(self.table(), path)
        elif path.suffix.lower() == ".csv":
            columns: dict[str, Any] = dict(self.columns)
            for one in self._columns():
                columns[f"{one.name}{in_brackets(one.quantity.unit)}"] = one.values
            levels = list(dict.fromkeys(quantity.level for quantity in self.quantities))
            names = ["level"] if len(levels) == 1 else [f"level of {name}" for name in self.targets]
            for name, quantity in zip(names, self.quantities, strict=False):
                columns[name] = [quantity.level] * len(self)
            write_table(table_of(columns, self.about), path)
        else:
            with atomic_file(path) as file:
                for frame in self._frames():
                    file.write(frame.encode())
        write_rejected(path, self.rejected)

    def _frames(self) -> Iterator[str]:
        """Extended XYZ frames, whose comments have the values, units and levels."""
        facts: dict[str, str] = {}
        for name, quantity in zip(self.targets, self.quantities, strict=True):
            facts |= {f"{name}_unit": quantity.unit, f"{name}_level": quantity.level}
        if self.force_quantity is not None:
            facts["forces_unit"] = self.force_quantity.unit
        facts["coverage"] = self.about.get("coverage", "")
        facts = {name: text for name, text in facts.items() if text}
        forces = self.forces or [None] * len(self)
        columns = self._columns()
        rows = zip(*(one.values for one in columns), strict=True)
        for molecule, values, force in zip(self.molecules, rows, forces, strict=True):
            texts = {one.key: repr(float(value)) for one, value in zip(columns, values, strict=True)}
            yield xyz_frame(molecule, {**texts, **facts}, force)


def refuse_forces(suffix: str, has_forces: bool) -> None:
    """Refuse forces in a CSV table, which has no room for them."""
    if has_forces and suffix.lower() == ".csv":
        raise FormatError("a CSV table has no room for forces; write .extxyz or .parquet, or leave them out")


def predict(
    molecules: Molecules,
    model: str | os.PathLike[str] | LoadedModel,
    *,
    forces: bool | None = None,
    batch_size: int = 64,
    device: str = "cpu",
    on_error: OnError = "raise",
    smiles: str = "smiles",
    coverage: float = COVERAGE,
    show: bool = False,
) -> Predicted:
    """Predict the property, or the properties, that a model or an ensemble was fine-tuned on.

    Args:
        molecules: as for `molspectra.embed`. The structure matters: SMILES get the conformer of
            `from_smiles`, which is not that of the training data.
        model: a fine-tuned run or checkpoint, see `load`; of an ensemble the mean is predicted, with
            uncertainties and intervals.
        forces: also -∂(first property)/∂r; None where the run learnt forces.
        batch_size: molecules per pass; results depend on it by rounding only.
        device: where to compute; a loaded model moves there.
        on_error: "raise" stops at the first bad molecule, "skip" lists it in `rejected`.
        smiles: column of a frame with SMILES.
        coverage: probability with which the intervals of an ensemble hold the value.
        show: progress on standard error.

    Raises:
        InputError: no such model or file, a model that was not fine-tuned or takes spectra as input, a bad
            molecule, an element that the model was not trained on, a prediction that is not finite, or no
            molecule that could be predicted.
    """
    model = model if isinstance(model, LoadedModel) else load(model)
    policy = ErrorPolicy(on_error)
    targets, with_forces = predicts(model, forces)
    check_coverage(coverage)
    nets = [moved(net, device).eval() for net in model.members]
    predicted: list[CheckedMolecule] = []
    rows: list[list[float]] = []
    spreads: list[list[float]] = []
    forces_of_molecules: list[npt.NDArray[np.float64]] = []
    for molecules_of_batch, batch in checked_batches(
        molecules, model, policy, batch_size, smiles=smiles, title="predict", show=show
    ):
        values, spread, batch_forces = _predict_members(nets, batch, with_forces)
        pieces = [np.zeros((0, 3))] * len(molecules_of_batch)  # without forces
        if batch_forces is not None:
            pieces = np.split(batch_forces, batch.ptr[1:-1].tolist())
        found = zip(molecules_of_batch, values.tolist(), spread.tolist(), pieces, strict=True)
        for molecule, value, spread_of_value, force in found:
            if np.isfinite(value).all() and np.isfinite(force).all():
                predicted.append(molecule)
                rows.append(value)
                spreads.append(spread_of_value)
                forces_of_molecules.append(force)
            else:
                error = ValueRangeError(f"its predicted {', '.join(targets)} is not finite")
                policy.reject(molecule.path, molecule.where, error)
    if not predicted:
        raise policy.nothing_left("predicted")
    shape = (len(rows),) if len(targets) == 1 else (len(rows), len(targets))
    uncertainties, half_widths = _calibrated(model, list(targets), np.array(spreads), coverage)
    return Predicted(
        tuple(targets),
        np.array(rows).reshape(shape),
        tuple(targets.values()),
        tuple(forces_of_molecules) if with_forces else None,
        _force_quantity(model.about) if with_forces else None,
        tuple(row.molecule for row in predicted),
        identity_columns(predicted),
        {"model": model.name, "target": ",".join(targets), "molspectra": __version__}
        | ({} if half_widths is None else {"coverage": f"{coverage:g}"}),
        tuple(policy.rejected),
        None if uncertainties is None else uncertainties.reshape(shape),
        None if half_widths is None else half_widths.reshape(shape),
        coverage,
    )


def _predict_members(
    nets: Sequence[MolSpectra], batch: Batch, forces: bool
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64] | None]:
    """Means and spreads [B, T] of the properties over the members, and mean forces [N, 3] on request."""
    found = [predict_batch(net, batch, forces) for net in nets]
    values = [one.numpy() for one, _ in found]
    force = [one.numpy() for _, one in found if one is not None]
    mean_force = np.mean(force, axis=0) if force else None
    if len(nets) == 1:
        return values[0], np.zeros_like(values[0]), mean_force
    return *mean_and_spread(values), mean_force


def _calibrated(
    model: LoadedModel, targets: Sequence[str], spreads: npt.NDArray[np.float64], coverage: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | tuple[None, None]:
    """Uncertainties and half widths of intervals [n, T] of spreads [n, T]; None of one model."""
    if not isinstance(model, LoadedEnsemble):
        return None, None
    half_widths = np.full_like(spreads, np.nan)
    for index, name in enumerate(targets):
        if name in model.calibrations:
            half_widths[:, index] = model.calibrations[name].half_width(spreads[:, index], coverage)
    return uncertainties_of(spreads, targets, model.calibrations), half_widths


def predicts(model: LoadedModel, forces: bool | None = None) -> tuple[dict[str, Quantity], bool]:
    """What a model predicts, with units, and whether forces are asked for (None: where it learnt them).

    Raises:
        MismatchError: a model that was not fine-tuned, one that takes spectra as input, or forces of a class.
    """
    if model.model.property_head is None:
        raise MismatchError(f"{model.name}: a pre-trained model predicts no property; give a fine-tuned run")
    if model.model.input_spectra:
        names = ", ".join(model.model.input_spectra)
        raise MismatchError(
            f"{model.name}: this model takes spectra ({names}) as input besides structures, which predict "
            "does not offer; evaluate tests it on a store"
        )
    quantities, learnt = quantities_of(model.about), "forces" in model.about
    if forces and model.model.property_head.kind == "binary":
        raise MismatchError(
            f"{model.name}: predicts the class {next(iter(quantities))!r}, which has no forces"
        )
    return quantities, learnt if forces is None else forces


def _quantity(about: Mapping[str, Any]) -> Quantity:
    return Quantity(str(about.get("unit", "")), str(about.get("level", "")))


def _force_quantity(about: Mapping[str, Any]) -> Quantity:
    """Unit and level of the forces that the model learnt, else of the derivative of its property."""
    if isinstance(about.get("forces"), Mapping):
        return _quantity(about["forces"])
    energy = _quantity(about)
    return Quantity(f"{energy.unit or '1'}/Å", energy.level)


def _vectors(arrays: list[npt.NDArray[np.float64]]) -> pa.Array:
    """Arrays [N, 3], one per molecule, as a column of lists of vectors."""
    offsets = np.concatenate([[0], np.cumsum([len(array) for array in arrays])])
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), vectors_of(np.concatenate(arrays)))
