"""Masked patches of held-out spectra and what the model puts there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from molspectra.data.batch import Batch
from molspectra.data.store.store import Store
from molspectra.errors import InputError
from molspectra.evaluation.predict import on_device
from molspectra.models.model import MolSpectra
from molspectra.models.specformer import transform
from molspectra.objectives.loss import NoiseKey
from molspectra.objectives.reconstruction import MaskedReconstruction, patch_errors
from molspectra.spectra.modality import Modality
from molspectra.training.data import in_order


@dataclass(frozen=True, eq=False)
class ReconstructedSpectrum:
    """One spectrum, its masked patches, and the model's values there; all in the scale log10(s + 1).

    Attributes:
        kind: the modality, with the model's patches.
        values: [points] the true spectrum.
        mask: [patches] bool, True where a patch was hidden.
        predicted: [masked, P] predicted patches, those that were hidden.
    """

    kind: Modality
    values: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    predicted: npt.NDArray[np.float32]

    @property
    def error(self) -> float:
        """Mean squared error over the hidden patches."""
        windows = np.lib.stride_tricks.sliding_window_view(self.values, self.kind.patch)
        wanted = windows[np.flatnonzero(self.mask) * self.kind.stride]
        return float(np.square(self.predicted.astype(np.float64) - wanted).mean())


@dataclass(frozen=True)
class ReconstructionErrors:
    """Errors of the hidden patches of n rows.

    Attributes:
        per_row: mean over the modalities that a row has, [n]; NaN for a row without spectra.
        mean: per modality, the mean over all hidden patches: the training objective's loss.
        flat: per modality, the same error for the mean spectrum of these rows in place of a prediction.
    """

    per_row: npt.NDArray[np.float64]
    mean: dict[str, float]
    flat: dict[str, float]


@torch.no_grad()
def reconstruction_errors(
    model: MolSpectra,
    store: Store,
    rows: npt.NDArray[np.int64],
    objective: MaskedReconstruction,
    batch_size: int = 64,
) -> ReconstructionErrors:
    """Hide patches of the rows' spectra (seed 0, epoch 0) and measure how well the model fills them.

    Raises:
        InputError: no rows, or none of them has a spectrum.
    """
    names = tuple(objective.kinds)
    means = _mean_spectra(model, store, rows, names, batch_size)
    per_row: list[torch.Tensor] = []
    sums = {name: [0.0, 0.0, 0.0] for name in names}
    for micro in in_order(store, rows, batch_size, modalities=names):
        batch = on_device(micro.batch, model)
        masks, predicted = _pass(model, batch, objective, micro.key)
        row_errors = []
        for name in names:
            kind = objective.kinds[name]
            here = batch.present[name].to(masks[name].device).unsqueeze(1)
            masked = (masks[name] & here).double()
            found = patch_errors(predicted[name], batch.spectra[name], kind, masks[name]).double() * here
            flat = means[name].unfold(-1, kind.patch, kind.stride)
            plain = patch_errors(flat, batch.spectra[name], kind, masks[name]).double() * here
            for index, values in enumerate((found, plain, masked)):
                sums[name][index] += float(values.sum())
            row_errors.append(found.sum(1) / masked.sum(1))  # 0/0 = NaN where the spectrum is absent
        per_row.append(torch.stack(row_errors).nanmean(0).cpu())
    known = {name: parts for name, parts in sums.items() if parts[2]}
    return ReconstructionErrors(
        per_row=torch.cat(per_row).numpy(),
        mean={name: parts[0] / parts[2] for name, parts in known.items()},
        flat={name: parts[1] / parts[2] for name, parts in known.items()},
    )


@torch.no_grad()
def reconstruct(
    model: MolSpectra, store: Store, row: int, objective: MaskedReconstruction
) -> dict[str, ReconstructedSpectrum]:
    """Hide patches of one row's spectra, as `reconstruction_errors` does; tell the model's values there."""
    (micro,) = in_order(store, np.array([row]), 1, modalities=tuple(objective.kinds))
    batch = on_device(micro.batch, model)
    masks, predicted = _pass(model, batch, objective, micro.key)
    found = {}
    for name, kind in objective.kinds.items():
        if not bool(batch.present[name]):
            continue
        values = transform(batch.spectra[name][0]).float().cpu().numpy()
        hidden = predicted[name][masks[name]].float().cpu().numpy()
        found[name] = ReconstructedSpectrum(kind, values, masks[name][0].cpu().numpy(), hidden)
    return found


def _pass(
    model: MolSpectra, batch: Batch, objective: MaskedReconstruction, key: NoiseKey
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Masks [B, patches] and predicted patches [B, patches, P] of the masked pass."""
    encoder = model.eval().spectrum_encoder
    if encoder is None:
        raise InputError("the model has no spectrum encoder; only a stage-2 model reconstructs spectra")
    masks = objective.masks(batch, key._replace(epoch=key.epoch.to(batch.geometry_id.device)))
    visible = objective.visible(batch.spectra, masks)
    return masks, encoder.reconstruct(encoder(visible, batch.present, masks).tokens)


def _mean_spectra(
    model: MolSpectra, store: Store, rows: npt.NDArray[np.int64], names: tuple[str, ...], batch_size: int
) -> dict[str, torch.Tensor]:
    """Mean over the rows that have a spectrum, in log10(s + 1), [points] per modality."""
    if not len(rows):
        raise InputError("there are no molecules whose spectra could be reconstructed")
    totals: dict[str, torch.Tensor] = {}
    counts = dict.fromkeys(names, 0)
    for micro in in_order(store, rows, batch_size, modalities=names):
        batch = on_device(micro.batch, model)
        for name in names:
            total = transform(batch.spectra[name]).sum(0)  # an absent spectrum is zero, also transformed
            totals[name] = totals.get(name, torch.zeros_like(total)) + total
            counts[name] += int(batch.present[name].sum())
    if not any(counts.values()):
        raise InputError("no molecule of the part has a spectrum")
    return {name: total / max(counts[name], 1) for name, total in totals.items()}
