"""Predictions of a fine-tuned model for rows of a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from molspectra.data.batch import Batch
from molspectra.data.store.store import Store
from molspectra.errors import MismatchError, MolspectraError, SettingError, ValueRangeError
from molspectra.models.model import MolSpectra, energy_and_forces
from molspectra.training.data import in_order
from molspectra.training.devices import chosen


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predicted and computed values of T properties of n molecules of N atoms in all, in the rows' order.

    Attributes:
        rows: [n] int64 rows of the store.
        identities: split key of every row.
        targets: names of the T properties.
        target: [n, T] float64, as in the store; NaN where a molecule has no value.
        prediction: [n, T] float64, of classes probabilities.
        force_target: [N, 3] float64, as in the store, NaN for a molecule without forces; None unless
            requested.
        force_prediction: [N, 3] float64, the negative gradient of the predicted property.
        spectra: modalities given to the model for each molecule; None for a model without spectrum input.
    """

    rows: npt.NDArray[np.int64]
    identities: tuple[str, ...]
    targets: tuple[str, ...]
    target: npt.NDArray[np.float64]
    prediction: npt.NDArray[np.float64]
    force_target: npt.NDArray[np.float64] | None = None
    force_prediction: npt.NDArray[np.float64] | None = None
    spectra: tuple[tuple[str, ...], ...] | None = None


def predict_rows(
    model: MolSpectra,
    store: Store,
    rows: npt.NDArray[np.int64],
    targets: Sequence[str],
    *,
    batch_size: int = 64,
    forces: bool = False,
) -> Predictions:
    """Predict properties, and optionally forces, for clean structures.

    Args:
        model: fine-tuned on `targets`; it is put into evaluation mode.
        store: holds the structures, the computed values, and the spectra where they are an input.
        rows: n rows.
        targets: properties of the store.
        batch_size: molecules per pass; the result does not depend on it beyond rounding.
        forces: also predict forces (of the first property), which the store must have.

    Raises:
        InputError: no rows, no such property, forces or input spectra in the store, or a model without a
            property head.
        MolspectraError: a prediction is not a finite number.
    """
    if model.property_head is None:
        raise MismatchError("the model has no property head; only a fine-tuned model predicts a property")
    if not len(rows):
        raise ValueRangeError("there are no molecules to predict")
    names = (*targets, "forces") if forces else tuple(targets)
    model.eval()
    computed, predicted, force_targets, predicted_forces = [], [], [], []
    for micro in in_order(store, rows, batch_size, model.input_spectra, names):
        values, force = predict_batch(model, on_device(micro.batch, model), forces)
        computed.append(torch.stack([micro.batch.targets[name].double() for name in targets], dim=1))
        predicted.append(values)
        if force is not None:
            force_targets.append(micro.batch.targets["forces"].double())
            predicted_forces.append(force)

    prediction = torch.cat(predicted).numpy()
    all_identities = store.identities
    identities = tuple(all_identities[row] for row in rows)
    bad, columns = np.nonzero(~np.isfinite(prediction))
    if len(bad):
        which, name = f"{identities[bad[0]]} (row {rows[bad[0]]})", targets[columns[0]]
        raise MolspectraError(f"the predicted {name} of {which} is not finite; the model is not usable")

    return Predictions(
        rows=np.asarray(rows),
        identities=identities,
        targets=tuple(targets),
        target=torch.cat(computed).numpy(),
        prediction=prediction,
        force_target=torch.cat(force_targets).numpy() if forces else None,
        force_prediction=torch.cat(predicted_forces).numpy() if forces else None,
        spectra=_known_spectra(store, rows, model.input_spectra),
    )


def _known_spectra(
    store: Store, rows: npt.NDArray[np.int64], modalities: tuple[str, ...]
) -> tuple[tuple[str, ...], ...] | None:
    """Return the modalities that each row has of those that a model takes as input; None if it takes none."""
    if not modalities:
        return None
    has = {name: store.has(name)[rows] for name in modalities}
    return tuple(tuple(name for name in modalities if has[name][index]) for index in range(len(rows)))


def predict_batch(model: MolSpectra, batch: Batch, forces: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Predict properties [B, T] and, on request, forces [N, 3] of a batch, float64 on the CPU.

    Of classes these are probabilities.
    """
    if forces:
        result = energy_and_forces(model, batch)
        values, force = [result.energy, *result.further], result.forces.detach().double().cpu()
    else:
        with torch.no_grad():
            values, force = model.predict(model.encode(batch), batch), None
    heads = [head for head in model.property_heads for _ in range(head.width)]
    values = [head.in_unit(value) for head, value in zip(heads, values, strict=True)]
    return torch.stack([value.detach().double().cpu() for value in values], dim=1), force


def moved(model: MolSpectra, device: str) -> MolSpectra:
    """Move a model to a device, by the name that torch gives it or "auto".

    Raises:
        SettingError: the device is unknown or absent.
    """
    try:
        return model.to(chosen(device))
    except (RuntimeError, AssertionError) as error:  # what torch raises for unknown and absent devices
        reason = str(error).splitlines()[0]
        raise SettingError(f"device {device!r} cannot be used: {reason}") from error


def on_device(batch: Batch, model: torch.nn.Module) -> Batch:
    """Return a batch on the device and in the floating-point type of a model's weights."""
    weight = next(model.parameters())
    return batch.to(weight.device, weight.dtype)
