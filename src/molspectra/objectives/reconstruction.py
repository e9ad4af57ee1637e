"""Masked patch reconstruction of spectra (method, section 3)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from molspectra.data.batch import Batch
from molspectra.data.random import Purpose, seed_for, uniform
from molspectra.errors import InputError
from molspectra.models.specformer import patchify, transform
from molspectra.objectives.loss import Loss, NoiseKey
from molspectra.spectra.modality import Modality


@dataclass(frozen=True)
class ReconstructionConfig:
    """Settings of masked patch reconstruction."""

    mask_ratio: float = 0.1
    """Share α of the patches of every spectrum that is removed."""


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


def patch_errors(prediction: Tensor, spectrum: Tensor, kind: Modality, mask: Tensor) -> Tensor:
    """Mean squared error over the points of every masked patch, in log10(s + 1).

    Args:
        prediction: [B, patches, P] predicted patches.
        spectrum: [B, points] raw intensities.
        kind: the modality, with its patches.
        mask: [B, patches] bool, True is removed (and so has to be predicted).

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

    Raises:
        InputError: a mask ratio outside (0, 1).
    """

    def __init__(self, config: ReconstructionConfig, kinds: Mapping[str, Modality]) -> None:
        super().__init__()
        if not 0 < config.mask_ratio < 1:
            raise InputError(f"mask_ratio must lie between 0 and 1, not {config.mask_ratio}")
        self.config = config
        self.kinds = dict(kinds)

    def masks(self, batch: Batch, key: NoiseKey) -> dict[str, Tensor]:
        """Masks [B, patches] for every modality of the batch, from (seed, epoch, molecule, modality)."""
        return {name: self._mask(batch, key, name) for name in self.kinds if name in batch.spectra}

    def _mask(self, batch: Batch, key: NoiseKey, name: str) -> Tensor:
        seed = seed_for(key.seed, name)
        scores = uniform(seed, key.epoch, batch.geometry_id, Purpose.MASK, self.kinds[name].patches)
        return random_masks(scores, self.config.mask_ratio)

    def forward(
        self, predictions: Mapping[str, Tensor], batch: Batch, masks: Mapping[str, Tensor]
    ) -> dict[str, Loss]:
        """One loss per modality; an item is a masked patch of a present spectrum."""
        losses = {}
        for name, predicted in predictions.items():
            errors = patch_errors(predicted, batch.spectra[name], self.kinds[name], masks[name])
            here = batch.present[name].unsqueeze(1)
            losses[name] = Loss((errors * here).sum(), float((masks[name] & here).sum()))
        return losses

    def count(self, batch: Batch, name: str) -> float:
        """Masked patches of one modality in a batch, known before any pass."""
        patches = self.kinds[name].patches
        masked = patches - kept_patches(patches, self.config.mask_ratio)
        return float(masked * int(batch.present[name].sum()))
