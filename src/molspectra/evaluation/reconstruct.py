"""Reconstruction of masked patches of held-out spectra."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from molspectra.data.batch import Batch
from molspectra.data.store.store import Store
from molspectra.errors import MismatchError, NotFoundError, ValueRangeError
from molspectra.evaluation.predict import on_device
from molspectra.models.model import MolSpectra
from molspectra.models.specformer import transform
from molspectra.objectives.loss import NoiseKey
from molspectra.objectives.reconstruction import MaskedReconstruction, patch_errors
from molspectra.spectra.modality import Modality
from molspectra.training.data import in_order


@dataclass(frozen=True, eq=False)
class ReconstructedSpectrum:
    """One spectrum, its masked patches, and the model's values there; all as log10(s + 1).

    Attributes:
        kind: the modality, with the model's patches.
        values: [points] the true spectrum.
        mask: [patches] bool, True where a patch was masked.
        predicted: [masked, P] predicted values of the masked patches.
    """

    kind: Modality
    values: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    predicted: npt.NDArray[np.float32]

    @property
    def error(self) -> float:
        """Mean squared error over the masked patches."""
        windows = np.lib.stride_tricks.sliding_window_view(self.values, self.kind.patch)
        target = windows[np.flatnonzero(self.mask) * self.kind.stride]
        return float(np.square(self.predicted.astype(np.float64) - target).mean())

    @property
    def masked_points(self) -> npt.NDArray[np.bool_]:
        """Whether each point belongs to a masked patch, [points]."""
        return self._covered(self.mask)

    @property
    def hidden_points(self) -> npt.NDArray[np.bool_]:
        """Whether each point is masked and in no visible patch, [points]; neighbouring patches overlap."""
        return self.masked_points & ~self._covered(~self.mask)

    def _covered(self, patches: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Whether each point belongs to one of the chosen patches, [points]."""
        points = np.zeros(self.kind.points, dtype=bool)
        for start in np.flatnonzero(patches) * self.kind.stride:
            points[start : start + self.kind.patch] = True
        return points


@dataclass(frozen=True)
class ReconstructionErrors:
    """Mean squared errors of the masked patches of n rows, in log10(s + 1).

    Attributes:
        per_row: mean over the modalities that a row has, [n]; NaN for a row without spectra.
        mean: by modality, mean over all masked patches: the training objective's loss.
        flat: by modality, the same error with the mean spectrum of these rows as the prediction.
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
    """Mask patches of the rows' spectra (seed 0, epoch 0) and compute the errors of the reconstruction.

    Raises:
        InputError: no rows, or none of them has a spectrum.
    """
    names = tuple(objective.kinds)
    means = _mean_spectra(model, store, rows, names, batch_size)
    per_row: list[torch.Tensor] = []
    sums = {name: [0.0, 0.0, 0.0] for name in names}  # errors, errors of the mean spectrum, patches
    for micro in in_order(store, rows, batch_size, modalities=names):
        batch = on_device(micro.batch, model)
        masks, predicted = _masked_pass(model, batch, objective, micro.key)
        row_errors = []
        for name in names:
            kind = objective.kinds[name]
            present = batch.present[name].to(masks[name].device).unsqueeze(1)
            masked = (masks[name] & present).double()
            errors = patch_errors(predicted[name], batch.spectra[name], kind, masks[name]).double() * present
            flat = means[name].unfold(-1, kind.patch, kind.stride)
            flat_errors = patch_errors(flat, batch.spectra[name], kind, masks[name]).double() * present
            for index, values in enumerate((errors, flat_errors, masked)):
                sums[name][index] += float(values.sum())
            row_errors.append(errors.sum(1) / masked.sum(1))  # 0/0 = NaN where the spectrum is absent
        per_row.append(torch.stack(row_errors).nanmean(0).cpu())
    known = {name: totals for name, totals in sums.items() if totals[2]}
    return ReconstructionErrors(
        per_row=torch.cat(per_row).numpy(),
        mean={name: totals[0] / totals[2] for name, totals in known.items()},
        flat={name: totals[1] / totals[2] for name, totals in known.items()},
    )


@torch.no_grad()
def reconstruct(
    model: MolSpectra, store: Store, row: int, objective: MaskedReconstruction
) -> dict[str, ReconstructedSpectrum]:
    """Mask patches of one row's spectra as in `reconstruction_errors` and return their reconstruction."""
    (micro,) = in_order(store, np.array([row]), 1, modalities=tuple(objective.kinds))
    batch = on_device(micro.batch, model)
    masks, predicted = _masked_pass(model, batch, objective, micro.key)
    spectra = {}
    for name, kind in objective.kinds.items():
        if not bool(batch.present[name]):
            continue
        values = transform(batch.spectra[name][0]).float().cpu().numpy()
        patches = predicted[name][masks[name]].float().cpu().numpy()
        spectra[name] = ReconstructedSpectrum(kind, values, masks[name][0].cpu().numpy(), patches)
    return spectra


def _masked_pass(
    model: MolSpectra, batch: Batch, objective: MaskedReconstruction, key: NoiseKey
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return masks [B, patches] and predicted patches [B, patches, P] by modality."""
    encoder = model.eval().spectrum_encoder
    if encoder is None:
        raise MismatchError("the model has no spectrum encoder; only a stage-2 model reconstructs spectra")
    masks = objective.masks(batch, key._replace(epoch=key.epoch.to(batch.geometry_id.device)))
    visible = objective.visible(batch.spectra, masks)
    return masks, encoder.reconstruct(encoder(visible, batch.present, masks).tokens)


def _mean_spectra(
    model: MolSpectra, store: Store, rows: npt.NDArray[np.int64], names: tuple[str, ...], batch_size: int
) -> dict[str, torch.Tensor]:
    """Return the mean spectrum of the rows by modality, in log10(s + 1), [points] each."""
    if not len(rows):
        raise ValueRangeError("there are no molecules whose spectra could be reconstructed")
    totals: dict[str, torch.Tensor] = {}
    counts = dict.fromkeys(names, 0)
    for micro in in_order(store, rows, batch_size, modalities=names):
        batch = on_device(micro.batch, model)
        for name in names:
            total = transform(batch.spectra[name]).sum(0)  # an absent spectrum is zero, also transformed
            totals[name] = totals.get(name, torch.zeros_like(total)) + total
            counts[name] += int(batch.present[name].sum())
    if not any(counts.values()):
        raise NotFoundError("no molecule of the part has a spectrum")
    return {name: total / max(counts[name], 1) for name, total in totals.items()}
