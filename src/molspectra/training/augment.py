"""Augmentation of the spectra of training batches: modality dropout and distortion.

A model that always receives every spectrum of a molecule comes to depend on having all of them; with modality
dropout it is trained on each subset. Distortions like those of instruments and levels of theory make it use
features that measured and computed spectra share. Both depend only on the seed, the epoch, the molecule and
the modality.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from molspectra.data.batch import Batch
from molspectra.data.random import Purpose, normal, seed_for, uniform
from molspectra.spectra.distortion import cut, drifted, moved, noised, widened
from molspectra.spectra.modality import Modality, modality
from molspectra.training.config import AS_IS, SpectraConfig


def augmented(batch: Batch, config: SpectraConfig, seed: int, epoch: Tensor) -> Batch:
    """Return a training batch with augmented spectra.

    Args:
        batch: with spectra or without; lines broadened as by `SpectraConfig.broadening`.
        config: the settings.
        seed: of the run.
        epoch: [B] int64, number of earlier passes over the data of each molecule.
    """
    if batch.spectra and config.dropout:
        batch = withheld(batch, config.dropout, seed, epoch)
    if batch.spectra and config.distorts():
        batch = distorted(batch, config, seed, epoch)
    return batch


def withheld(batch: Batch, chance: float, seed: int, epoch: Tensor) -> Batch:
    """Return a batch in which every spectrum is dropped with a given probability.

    If all spectra of a molecule would be dropped, the one with the largest draw is kept: each of S spectra is
    dropped with the probability p - p^S/S.

    Args:
        batch: B molecules with spectra.
        chance: p, in [0, 1).
        seed: of the run.
        epoch: [B] int64.
    """
    names = list(batch.present)
    draws = [
        uniform(seed_for(seed, name), epoch, batch.geometry_id, Purpose.MODALITY, 1)[:, 0] for name in names
    ]
    available = torch.stack([batch.present[name] for name in names], dim=1)
    drawn = torch.stack(draws, dim=1).masked_fill(~available, -1.0)
    largest = torch.zeros_like(available).scatter_(1, drawn.argmax(dim=1, keepdim=True), True)
    kept = available & ((drawn >= chance) | largest)
    present = {name: kept[:, column] for column, name in enumerate(names)}
    return replace(batch, spectra=_only_present(batch.spectra, present), present=present)


def distorted(batch: Batch, config: SpectraConfig, seed: int, epoch: Tensor) -> Batch:
    """Return a batch whose spectra are shifted, widened, scaled, given a baseline and noise, and cut.

    Each spectrum with the probability `config.share`. Negative values are set to 0, as in the pipeline for
    measured spectra. Ranges are sampled uniformly. The spectra must already have the smallest width of the
    range (see `SpectraConfig.broadening`).
    """
    spectra = {}
    for name, spectrum in batch.spectra.items():
        modality_seed = seed_for(seed, name)
        draws = uniform(modality_seed, epoch, batch.geometry_id, Purpose.DISTORTION, 11)
        noise = None
        if config.noise:
            ones = torch.ones_like(batch.geometry_id)
            noise = normal(
                modality_seed, epoch, batch.geometry_id, Purpose.SAMPLE_NOISE, ones, spectrum.shape[1]
            )
        changed = _distorted(spectrum, modality(name), config, draws, noise)
        is_spared = draws[:, 10] >= config.share
        spectra[name] = (
            torch.where(is_spared.unsqueeze(1), spectrum, changed) if config.share < 1 else changed
        )
    return replace(batch, spectra=_only_present(spectra, batch.present))


def _distorted(
    spectra: Tensor, kind: Modality, config: SpectraConfig, draws: Tensor, noise: Tensor | None
) -> Tensor:
    """Return distorted spectra [B, points] of one modality.

    Args:
        spectra: [B, points].
        kind: the modality.
        config: the settings.
        draws: [B, 10 or more] uniform numbers in [0, 1).
        noise: [B, points] standard normal numbers, None without noise.
    """
    draw = draws.unbind(1)
    if config.shift or config.scale != AS_IS:
        spectra = moved(
            spectra, kind, _between(config.scale, draw[0]), config.shift * kind.fwhm * (2 * draw[1] - 1)
        )
    if config.width != AS_IS:
        extra = _between(config.width, draw[2]) - min(config.width[0], 1.0)
        spectra = widened(spectra, kind, extra * kind.fwhm)
    if config.gain != AS_IS:
        low, high = map(math.log, config.gain)
        spectra = spectra * _between((low, high), draw[3]).exp().to(spectra.dtype).unsqueeze(1)
    if config.drift:
        spectra = drifted(spectra, config.drift * draw[4], draw[5], draw[6])
    if noise is not None:
        spectra = noised(spectra, noise, config.noise * draw[7])
    spectra = spectra.clamp(min=0.0)
    return cut(spectra, config.crop * draw[8], config.crop * draw[9]) if config.crop else spectra


def _between(limits: tuple[float, float], draw: Tensor) -> Tensor:
    """Return numbers [B] between two limits, from uniform draws [B] in [0, 1)."""
    low, high = limits
    return low + (high - low) * draw


def _only_present(spectra: dict[str, Tensor], present: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the spectra [B, points] of each modality, zeros where a molecule has none."""
    return {
        name: spectrum.masked_fill(~present[name].unsqueeze(1), 0.0) for name, spectrum in spectra.items()
    }
