"""Masked patch reconstruction of spectra (method, section 3).

Patches overlap, so that a kept patch contains points of its masked neighbours: with random masks at α = 0.1,
nine tenths of the target points are in the input. Block masks hide runs of patches, and remove the points of
masked patches from all others too: no target point is in the input.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from molspectra.data.batch import Batch, to_device
from molspectra.data.random import Purpose, seed_for, uniform
from molspectra.models.specformer import gather_rows, patchify, transform
from molspectra.objectives.config import ReconstructionConfig
from molspectra.objectives.loss import Loss, NoiseKey
from molspectra.spectra.modality import Modality


def kept_patches(patches: int, ratio: float) -> int:
    """Patches of a spectrum that are not masked, int(patches·(1-α))."""
    return int(patches * (1 - ratio))


def random_masks(scores: Tensor, ratio: float) -> Tensor:
    """Mask the patches with the highest scores.

    Args:
        scores: [B, patches] random numbers.
        ratio: share α; the first `kept_patches` in ascending order of score are kept.

    Returns:
        [B, patches] bool, True is removed.
    """
    kept = kept_patches(scores.shape[1], ratio)
    masks = torch.zeros_like(scores, dtype=torch.bool)
    return masks.scatter_(1, scores.argsort(dim=1, stable=True)[:, kept:], True)


def block_masks(scores: Tensor, patches: int, ratio: float, block: int) -> Tensor:
    """Mask runs of patches; as many patches in all as `random_masks`.

    Args:
        scores: [B, runs] random numbers in [0, 1), one per run of `runs_of_patches`: the position of the run
            among the kept patches. Runs keep their order and may touch.
        patches: patches of the spectrum.
        ratio: share α.
        block: patches of a run.

    Returns:
        [B, patches] bool, True is removed.
    """
    kept = kept_patches(patches, ratio)
    lengths = patches - kept - torch.arange(0, patches - kept, block, device=scores.device)
    lengths = lengths.clamp(max=block)  # `runs_of_patches`, made on the device
    before = (scores.sort(dim=1).values * (kept + 1)).long().clamp(max=kept)
    start = before + (torch.cumsum(lengths, 0) - lengths)
    patch = torch.arange(patches, device=scores.device)
    inside = (patch >= start.unsqueeze(2)) & (patch < (start + lengths).unsqueeze(2))
    return inside.any(1)


def runs_of_patches(patches: int, ratio: float, block: int) -> list[int]:
    """Lengths of the runs that make up the masked patches of a spectrum."""
    masked = patches - kept_patches(patches, ratio)
    return [min(block, masked - start) for start in range(0, masked, block)]


def covered(patches: Tensor, kind: Modality) -> Tensor:
    """Points [B, points] bool that lie in any of the flagged patches [B, patches] bool."""
    starts = torch.arange(kind.patches, device=patches.device) * kind.stride
    points = (starts.unsqueeze(1) + torch.arange(kind.patch, device=patches.device)).flatten()
    counts = torch.zeros(len(patches), kind.points, dtype=torch.int32, device=patches.device)
    return counts.index_add_(1, points, patches.int().repeat_interleave(kind.patch, dim=1)) > 0


class Leakage(NamedTuple):
    """Overlap of the targets of the masked pass with its input."""

    points: float
    """Share of the points of masked patches that are in the input."""
    patches: float
    """Share of masked patches with all points in the input."""


def patch_errors(prediction: Tensor, spectrum: Tensor, kind: Modality, mask: Tensor) -> Tensor:
    """Mean squared error over the points of every masked patch, in log10(s + 1).

    Args:
        prediction: [B, patches, P] predicted patches.
        spectrum: [B, points] raw intensities.
        kind: the modality, with its patches.
        mask: [B, patches] bool, True is removed (the targets).

    Returns:
        [B, patches] errors; zero at kept patches.
    """
    target = patchify(transform(spectrum), kind)
    return (prediction - target).square().mean(-1) * mask


class MaskedReconstruction(nn.Module):
    """Σ over modalities of Σ_masked mean_P (p̂ - p)² / number of masked patches.

    Args:
        config: settings.
        kinds: the spectrum encoder's modalities, `SpecFormerConfig.kinds()`.
    """

    def __init__(self, config: ReconstructionConfig, kinds: Mapping[str, Modality]) -> None:
        super().__init__()
        self.config = config
        self.kinds = dict(kinds)

    def masks(self, batch: Batch, key: NoiseKey) -> dict[str, Tensor]:
        """Masks [B, patches] for every modality of the batch, from (seed, epoch, molecule, modality)."""
        return {name: self._mask(batch, key, name) for name in self.kinds if name in batch.spectra}

    def _mask(self, batch: Batch, key: NoiseKey, name: str) -> Tensor:
        config, patches = self.config, self.kinds[name].patches
        count = patches
        if config.mask == "block":
            count = len(runs_of_patches(patches, config.mask_ratio, config.block))
        seed = seed_for(key.seed, name)
        scores = uniform(seed, key.epoch, batch.geometry_id, Purpose.MASK, count)
        if config.mask == "block":
            return block_masks(scores, patches, config.mask_ratio, config.block)
        return random_masks(scores, config.mask_ratio)

    def visible(self, spectra: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The spectra [B, points] as input of the masked pass: for block masks without the masked points."""
        if self.config.mask == "random":
            return dict(spectra)
        return {
            name: spectrum.masked_fill(covered(masks[name], self.kinds[name]), 0.0)
            for name, spectrum in spectra.items()
        }

    def leakage(self, name: str, mask: Tensor) -> Leakage:
        """Overlap of a modality's masked patches, `mask` [B, patches], with the input of the masked pass."""
        kind = self.kinds[name]
        visible = covered(~mask, kind)
        if self.config.mask == "block":
            visible &= ~covered(mask, kind)
        targets = patchify(visible, kind)[mask]
        return Leakage(float(targets.float().mean()), float(targets.all(-1).float().mean()))

    def masked_index(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Indices [B, k] int64 of the masked patches, ascending; k is the same for all molecules."""
        return {
            name: mask.byte().argsort(dim=1, descending=True, stable=True)[:, : self._masked(name)]
            for name, mask in masks.items()
        }

    def forward(
        self, predictions: Mapping[str, Tensor], batch: Batch, index: Mapping[str, Tensor]
    ) -> dict[str, Loss]:
        """One loss per modality; an item is a masked patch of a present spectrum.

        Args:
            predictions: per modality [B, k, P], the patches at `index`.
            batch: with the spectra.
            index: per modality [B, k], see `masked_index`.
        """
        losses = {}
        for name, predicted in predictions.items():
            patches = patchify(batch.spectra[name], self.kinds[name])
            errors = (predicted - transform(gather_rows(patches, index[name]))).square().mean(-1)
            present = to_device(batch.present[name], errors.device).unsqueeze(1)
            losses[name] = Loss((errors * present).sum(), self.count(batch, name))
        return losses

    def _masked(self, name: str) -> int:
        """Number of masked patches of one spectrum."""
        patches = self.kinds[name].patches
        return patches - kept_patches(patches, self.config.mask_ratio)

    def count(self, batch: Batch, name: str) -> float:
        """Number of masked patches of one modality in a batch, known before any pass."""
        return float(self._masked(name) * int(batch.present[name].sum()))
