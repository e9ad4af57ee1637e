"""What one training step computes, per stage: batch in, named losses out.

A stage is a module so that Fabric can wrap it for several devices. `counts` says, before any pass, how many items
each loss will have, so that micro-batches and ranks add up to exactly the loss of one large batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from molspectra.data.batch import Batch
from molspectra.models.model import MolSpectra, energy_and_forces
from molspectra.objectives.alignment import Alignment
from molspectra.objectives.denoising import CoordDenoising
from molspectra.objectives.loss import Loss, NoiseKey
from molspectra.objectives.reconstruction import MaskedReconstruction
from molspectra.objectives.supervised import Smoothed, regression_loss
from molspectra.training.config import FinetuneConfig, PretrainConfig

Gather = Callable[[Tensor], tuple[Tensor, int]]
"""Rows of this rank to (rows of all ranks with gradients, place of this rank's first row)."""


class Stage(nn.Module, ABC):
    """A model with the objectives of a stage.

    Attributes:
        model: the model that is trained.
        modalities: spectra that batches must carry.
        targets: columns that batches must carry.
    """

    model: MolSpectra
    modalities: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()

    @abstractmethod
    def weights(self) -> dict[str, float]:
        """Weight of every loss that the stage has."""

    @abstractmethod
    def counts(self, batch: Batch) -> dict[str, float]:
        """Items of every loss in a batch."""

    @abstractmethod
    def forward(self, batch: Batch, key: NoiseKey, gather: Gather | None = None) -> dict[str, Loss]:
        """Losses of a batch of clean structures; in evaluation mode too."""

    def smooth(self, name: str, loss: Tensor) -> Tensor:
        """Hook for losses that are smoothed over the steps; [] mean loss to []."""
        return loss


class PretrainStage(Stage):
    """Denoising; with a spectrum encoder also masked patch reconstruction and alignment."""

    def __init__(self, model: MolSpectra, config: PretrainConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.denoising = CoordDenoising(config.denoising)
        self.alignment = Alignment(config.alignment)
        self.reconstruction: MaskedReconstruction | None = None
        if model.spectrum_encoder is not None:
            kinds = model.spectrum_encoder.kinds
            self.modalities = tuple(kinds)
            self.reconstruction = MaskedReconstruction(config.reconstruction, kinds)

    def weights(self) -> dict[str, float]:
        """See `Stage.weights`; reconstruction counts once per modality."""
        weights = self.config.weights
        chosen = {"denoising": weights.denoising}
        if self.modalities:
            chosen |= {f"reconstruction_{name}": weights.reconstruction for name in self.modalities}
            chosen["alignment"] = weights.alignment
        return chosen

    def counts(self, batch: Batch) -> dict[str, float]:
        """See `Stage.counts`."""
        counts = {"denoising": self.denoising.count(len(batch.numbers))}
        if self.reconstruction is not None:
            for name in self.modalities:
                counts[f"reconstruction_{name}"] = self.reconstruction.count(batch, name)
            counts["alignment"] = float(has_spectrum(batch).sum())
        return counts

    def forward(self, batch: Batch, key: NoiseKey, gather: Gather | None = None) -> dict[str, Loss]:
        """See `Stage.forward`."""
        model = self.model
        noised = self.denoising.perturb(batch, key)
        encoded = model.encode(noised.batch)
        losses = {"denoising": self.denoising(model.noise_head(encoded), noised.target)}
        if (
            model.spectrum_encoder is None
            or self.reconstruction is None
            or not bool(has_spectrum(batch).any())
        ):
            return losses

        spectra, present = batch.spectra, batch.present
        masks = self.reconstruction.masks(batch, key)
        masked = model.spectrum_encoder(spectra, present, masks)
        predicted = model.spectrum_encoder.reconstruct(masked.tokens)
        parts = self.reconstruction(predicted, batch, masks)
        losses |= {f"reconstruction_{name}": loss for name, loss in parts.items()}

        whole = masked if self.config.alignment.masked else model.spectrum_encoder(spectra, present)
        aligned = model.encode(batch) if self.config.alignment.structure == "clean" else encoded
        features = model.molecule_features(aligned, batch)
        losses["alignment"] = self._align(features, whole.representation, batch, gather)
        return losses

    def _align(self, features: Tensor, spectra: Tensor, batch: Batch, gather: Gather | None) -> Loss:
        here = has_spectrum(batch)
        rows = (features[here], spectra[here], batch.geometry_id[here])
        scale = self.model.log_scale
        if gather is None:
            return self.alignment(rows[0], rows[1], scale, identity=rows[2])
        (molecules, first), (everyone, _), (twins, _) = (gather(row) for row in rows)
        return self.alignment(
            rows[0], rows[1], scale, identity=rows[2], everyone=(molecules, everyone, twins), first=first
        )


class FinetuneStage(Stage):
    """A property, optionally forces, and denoising of slightly moved structures (noisy nodes)."""

    def __init__(self, model: MolSpectra, config: FinetuneConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.targets = (config.target, "forces") if config.forces else (config.target,)
        self.denoising = CoordDenoising(config.denoising)
        self.smoothing = Smoothed(config.energy_smoothing)

    def weights(self) -> dict[str, float]:
        """See `Stage.weights`."""
        config = self.config
        chosen = {config.target: config.energy_weight}
        if config.forces:
            chosen["forces"] = config.force_weight
        if config.denoising_weight > 0:
            chosen["denoising"] = config.denoising_weight
        return chosen

    def counts(self, batch: Batch) -> dict[str, float]:
        """See `Stage.counts`."""
        counts = {name: float((~torch.isnan(batch.targets[name])).sum()) for name in self.targets}
        if self.config.denoising_weight > 0:
            counts["denoising"] = self.denoising.count(len(batch.numbers))
        return counts

    def smooth(self, name: str, loss: Tensor) -> Tensor:
        """The property's loss is smoothed over the steps, where asked for."""
        return self.smoothing(loss) if name == self.config.target else loss

    def forward(self, batch: Batch, key: NoiseKey, gather: Gather | None = None) -> dict[str, Loss]:
        """See `Stage.forward`; structures are moved in training only."""
        config, head = self.config, self.model.property_head
        assert head is not None
        noised = None
        if self.training and config.denoising_weight > 0:
            noised = self.denoising.perturb(batch, key)
        structures = batch if noised is None else noised.batch
        predicted = {}
        if config.forces:
            energy, forces, encoded = energy_and_forces(self.model, structures, create_graph=self.training)
            predicted["forces"] = forces
        else:
            encoded = self.model.encode(structures)
            energy = head(encoded, structures)
        predicted[config.target] = energy
        unit = head.std if config.supervised.standardised else 1.0
        losses = {
            name: regression_loss(value, batch.targets[name].to(value), unit, config.supervised.error)
            for name, value in predicted.items()
        }
        if noised is not None:
            losses["denoising"] = self.denoising(self.model.noise_head(encoded), noised.target)
        return losses


def has_spectrum(batch: Batch) -> Tensor:
    """[B] bool, whether a molecule has any of the batch's spectra."""
    return torch.stack(list(batch.present.values())).any(0)
