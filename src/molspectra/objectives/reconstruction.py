"""Masked patch reconstruction of spectra (method, section 3).

Patches overlap, so that a kept patch shows points of its masked neighbours: with random masks at α = 0.1,
nine tenths of the points that are to be predicted stand in the input. Block masks hide runs of patches, and
take the points of masked patches out of all others too: nothing that is to be predicted can be seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from molspectra.data.batch import Batch
from molspectra.data.random import Purpose, seed_for, uniform
from molspectra.errors import InputError
from molspectra.models.specformer import at_places, patchify, transform
from molspectra.objectives.loss import Loss, NoiseKey
from molspectra.spectra.modality import Modality


@dataclass(frozen=True)
class ReconstructionConfig:
    """Settings of masked patch reconstruction."""

    mask_ratio: float = 0.1
    """Share α of the patches of every spectrum that is removed."""
    mask: Literal["random", "block"] = "random"
    """"random": single patches, whose points stay visible where kept patches overlap them (as published).
    "block": runs of patches, whose points are removed from all patches."""
    block: int = 7
    """Patches of a run (the last run may be shorter)."""

    def __post_init__(self) -> None:
        """Refuse what masks nothing or all.

        Raises:
            InputError: a mask ratio outside (0, 1), or a run without patches.
        """
        if not 0 < self.mask_ratio < 1:
            raise InputError(f"mask_ratio must lie between 0 and 1, not {self.mask_ratio}")
        if self.block < 1:
            raise InputError(f"reconstruction: block must be at least 1, not {self.block}")


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
        scores: [B, runs] random numbers in [0, 1), one per run, see `runs_of_patches`: where among the kept
            patches the run is put. Runs keep their order and may touch.
        patches: patches of the spectrum.
        ratio: share α.
        block: patches of a run.

    Returns:
        [B, patches] bool, True is removed.
    """
    lengths = torch.tensor(runs_of_patches(patches, ratio, block), device=scores.device)
    kept = kept_patches(patches, ratio)
    before = (scores.sort(dim=1).values * (kept + 1)).long().clamp(max=kept)
    start = before + (torch.cumsum(lengths, 0) - lengths)
    place = torch.arange(patches, device=scores.device)
    inside = (place >= start.unsqueeze(2)) & (place < (start + lengths).unsqueeze(2))
    return inside.any(1)


def runs_of_patches(patches: int, ratio: float, block: int) -> list[int]:
    """Lengths of the runs that make up the masked patches of a spectrum."""
    masked = patches - kept_patches(patches, ratio)
    return [min(block, masked - start) for start in range(0, masked, block)]


def covered(chosen: Tensor, kind: Modality) -> Tensor:
    """Points [B, points] bool that lie in any of the chosen patches [B, patches] bool."""
    starts = torch.arange(kind.patches, device=chosen.device) * kind.stride
    points = (starts.unsqueeze(1) + torch.arange(kind.patch, device=chosen.device)).flatten()
    counts = torch.zeros(len(chosen), kind.points, dtype=torch.int32, device=chosen.device)
    return counts.index_add_(1, points, chosen.int().repeat_interleave(kind.patch, dim=1)) > 0


class Leakage(NamedTuple):
    """How much of what is to be predicted the encoder sees."""

    points: float
    """Share of the values of masked patches that stand in its input."""
    patches: float
    """Share of masked patches of which all points do."""


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
        """The spectra [B, points] that the masked pass may see: for block masks without the masked points."""
        if self.config.mask == "random":
            return dict(spectra)
        return {
            name: spectrum.masked_fill(covered(masks[name], self.kinds[name]), 0.0)
            for name, spectrum in spectra.items()
        }

    def leakage(self, name: str, mask: Tensor) -> Leakage:
        """How much of the masked patches [B, patches] of a modality the masked pass sees."""
        kind = self.kinds[name]
        seen = covered(~mask, kind)
        if self.config.mask == "block":
            seen &= ~covered(mask, kind)
        wanted = patchify(seen, kind)[mask]
        return Leakage(float(wanted.float().mean()), float(wanted.all(-1).float().mean()))

    def places(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Places [B, k] int64 of the masked patches, ascending; k is the same for all molecules."""
        return {
            name: mask.byte().argsort(dim=1, descending=True, stable=True)[:, : self._masked(name)]
            for name, mask in masks.items()
        }

    def forward(
        self, predictions: Mapping[str, Tensor], batch: Batch, places: Mapping[str, Tensor]
    ) -> dict[str, Loss]:
        """One loss per modality; an item is a masked patch of a present spectrum.

        Args:
            predictions: per modality the patches [B, k, P] at `places`.
            batch: with the spectra.
            places: of the masked patches.
        """
        losses = {}
        for name, predicted in predictions.items():
            target = transform(at_places(patchify(batch.spectra[name], self.kinds[name]), places[name]))
            errors = (predicted - target).square().mean(-1)
            here = batch.present[name].to(errors.device).unsqueeze(1)
            losses[name] = Loss((errors * here).sum(), self.count(batch, name))
        return losses

    def _masked(self, name: str) -> int:
        """Masked patches of one spectrum."""
        patches = self.kinds[name].patches
        return patches - kept_patches(patches, self.config.mask_ratio)

    def count(self, batch: Batch, name: str) -> float:
        """Masked patches of one modality in a batch, known before any pass."""
        return float(self._masked(name) * int(batch.present[name].sum()))
