"""What happens to the spectra of training batches before a model sees them: some of them are withheld.

A model that is always given every spectrum of a molecule learns to lean on all of them together. Withholding
some (modality dropout) makes each subset a case that it was trained on. What is withheld depends on the
seed, the epoch, the molecule and the modality alone.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from molspectra.data.batch import Batch
from molspectra.data.random import Purpose, seed_for, uniform
from molspectra.errors import InputError


@dataclass(frozen=True)
class SpectraConfig:
    """What happens to the spectra of training batches; those of validation and test stay as they are."""

    dropout: float = 0.0
    """Chance of every spectrum of a molecule to be withheld in an epoch (modality dropout). A molecule keeps
    at least one of those that it has."""

    def __post_init__(self) -> None:
        """Refuse what is no chance.

        Raises:
            InputError: a chance outside [0, 1).
        """
        if not 0 <= self.dropout < 1:
            raise InputError(f"spectra.dropout must lie in [0, 1), not {self.dropout}")


def augmented(batch: Batch, config: SpectraConfig, seed: int, epoch: Tensor) -> Batch:
    """Return a training batch with its spectra treated as the settings say.

    Args:
        batch: with spectra or without.
        config: the settings.
        seed: of the run.
        epoch: [B] int64, how often each molecule's data was passed before.
    """
    if batch.spectra and config.dropout:
        batch = withheld(batch, config.dropout, seed, epoch)
    return batch


def withheld(batch: Batch, chance: float, seed: int, epoch: Tensor) -> Batch:
    """Return a batch in which every spectrum is absent with a certain chance.

    Where all that a molecule has would go, the one with the largest draw stays: of S spectra each is
    withheld with the chance p - p^S/S.

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
    here = torch.stack([batch.present[name] for name in names], dim=1)
    drawn = torch.stack(draws, dim=1).masked_fill(~here, -1.0)
    last = torch.zeros_like(here).scatter_(1, drawn.argmax(dim=1, keepdim=True), True)
    kept = here & ((drawn >= chance) | last)
    present = {name: kept[:, place] for place, name in enumerate(names)}
    spectra = {
        name: spectrum.masked_fill(~present[name].unsqueeze(1), 0.0)
        for name, spectrum in batch.spectra.items()
    }
    return replace(batch, spectra=spectra, present=present)
