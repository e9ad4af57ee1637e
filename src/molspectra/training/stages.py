"""What one training step computes, per stage: batch in, named losses out.

`counts` says, before any pass, how many items each loss will have, so that micro-batches and ranks add up to
exactly the loss of one large batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor

from molspectra.data.batch import Batch
from molspectra.models.model import MolSpectra, energy_and_forces
from molspectra.models.shared import Shared
from molspectra.objectives.alignment import Alignment
from molspectra.objectives.denoising import CoordDenoising, denoising_objective
from molspectra.objectives.loss import Loss, NoiseKey
from molspectra.objectives.reconstruction import MaskedReconstruction
from molspectra.objectives.supervised import Smoothed, regression_loss
from molspectra.training.config import FinetuneConfig, PretrainConfig
from molspectra.training.contrast import Contrast, Gather


class Stage(Shared, ABC):
    """A model with the objectives of a stage.

    Attributes:
        model: the model that is trained.
        denoising: the denoising objective.
        modalities: spectra that batches must carry.
        targets: columns that batches must carry.
        internal: whether batches must carry internal coordinates.
    """

    model: MolSpectra
    denoising: CoordDenoising
    modalities: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    internal: bool = False

    @abstractmethod
    def weights(self) -> dict[str, float]:
        """Weight of every loss that the stage has."""

    def gradient_weights(self) -> dict[str, float]:
        """Factor of the gradient of every mean loss; the weight, unless the loss is smoothed."""
        return self.weights()

    def smoothed(self, means: dict[str, float]) -> dict[str, float]:
        """Mean losses of a step as they are logged; remembers what it needs to smooth those of the next."""
        return means

    @abstractmethod
    def counts(self, batch: Batch) -> dict[str, float]:
        """Items of every loss in a batch."""

    def observe(self, micros: Iterable[tuple[Batch, NoiseKey]]) -> None:
        """See all micro-batches of a training step before the first of them passes."""
        if "denoising" in self.weights():
            self.denoising.observe(micros)

    @abstractmethod
    def forward(self, batch: Batch, key: NoiseKey, contrast: Contrast | None = None) -> dict[str, Loss]:
        """Losses of a batch of clean structures; in evaluation mode too.

        Args:
            batch: on the model's device.
            key: what noise and masks depend on.
            contrast: who is contrasted with whom; None for the molecules of the batch.
        """


class PretrainStage(Stage):
    """Denoising; with a spectrum encoder also masked patch reconstruction and alignment."""

    def __init__(self, model: MolSpectra, config: PretrainConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.denoising = denoising_objective(config.denoising)
        self.internal = self.denoising.internal
        self.alignment = Alignment(config.alignment)
        self.reconstruction: MaskedReconstruction | None = None
        if model.spectrum_encoder is not None:
            kinds = model.spectrum_encoder.kinds
            self.modalities = tuple(kinds)
            self.reconstruction = MaskedReconstruction(config.reconstruction, kinds)

    def weights(self) -> dict[str, float]:
        """See `Stage.weights`; reconstruction counts once per modality."""
        weights = self.config.weights
        chosen = {name: getattr(weights, name) for name in self.denoising.losses}
        if self.modalities:
            chosen |= {f"reconstruction_{name}": weights.reconstruction for name in self.modalities}
            chosen["alignment"] = weights.alignment
        return chosen

    def counts(self, batch: Batch) -> dict[str, float]:
        """See `Stage.counts`."""
        counts = self.denoising.counts(batch)
        if self.reconstruction is not None:
            for name in self.modalities:
                counts[f"reconstruction_{name}"] = self.reconstruction.count(batch, name)
            counts["alignment"] = float(has_spectrum(batch).sum())
        return counts

    def forward(self, batch: Batch, key: NoiseKey, contrast: Contrast | None = None) -> dict[str, Loss]:
        """See `Stage.forward`."""
        model = self.model
        noised = self.denoising.perturb(batch, key)
        encoded = model.encode(noised.batch)
        predictions = {"denoising": model.noise_head(encoded)}
        if model.force_head is not None:
            predictions["slide"] = model.force_head(encoded)
        losses: dict[str, Loss] = self.denoising(predictions, noised)
        if self.reconstruction is None:
            return losses
        here = has_spectrum(batch)
        if not self.any_rank(here):  # a rank without any still takes part where another has one
            return losses
        aligned = model.encode(batch) if self.config.alignment.structure == "clean" else encoded
        those = slice(None) if bool(here.all()) else here
        features = model.molecule_features(aligned, batch)[those]
        parts, representation = self._read_spectra(batch, key)
        losses |= {f"reconstruction_{name}": loss for name, loss in parts.items()}
        pairs = torch.cat([features, representation[those].to(features)], dim=1)
        losses["alignment"] = (contrast or Contrast())(self._align, pairs, batch.geometry_id[those])
        return losses

    def _read_spectra(self, batch: Batch, key: NoiseKey) -> tuple[dict[str, Loss], Tensor]:
        """Losses of the reconstruction, and the representations [B, C] to align."""
        encoder, reconstruction = self.model.spectrum_encoder, self.reconstruction
        assert encoder is not None
        assert reconstruction is not None
        masks = reconstruction.masks(batch, key)
        visible = reconstruction.visible(batch.spectra, masks)
        if self.config.alignment.masked:  # one pass for both, so it has to feed the running statistics
            masked = whole = encoder.reference_forward(visible, masks, batch.present)
        else:
            masked = encoder(visible, batch.present, masks)
            whole = encoder(batch.spectra, batch.present)
        index = reconstruction.masked_index(masks)
        parts = reconstruction(encoder.reconstruct(masked.tokens, index=index), batch, index)
        return parts, whole.representation

    def _align(self, pairs: Tensor, identity: Tensor, gather: Gather | None) -> Loss:
        """Contrast molecules and their spectra, [b, 2 D], with those of all ranks."""
        gathered, first = None, 0
        if gather is not None:
            all_pairs, first = gather(pairs)
            gathered = (*all_pairs.chunk(2, dim=1), gather(identity)[0])
        molecules, spectra = pairs.chunk(2, dim=1)
        scale = self.model.log_scale
        return self.alignment(molecules, spectra, scale, identity=identity, gathered=gathered, first=first)


class FinetuneStage(Stage):
    """A property, optionally forces, and denoising of slightly moved structures (noisy nodes)."""

    def __init__(self, model: MolSpectra, config: FinetuneConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.targets = (config.target, "forces") if config.forces else (config.target,)
        self.modalities = model.input_spectra
        self.denoising = denoising_objective(config.denoising)
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
            counts |= self.denoising.counts(batch)
        return counts

    def gradient_weights(self) -> dict[str, float]:
        """See `Stage.gradient_weights`; of α·loss + (1 - α)·previous only the first term has a gradient."""
        weights = self.weights()
        return weights | {self.config.target: self.smoothing.alpha * weights[self.config.target]}

    def smoothed(self, means: dict[str, float]) -> dict[str, float]:
        """See `Stage.smoothed`; the property's loss is smoothed where asked for."""
        target = self.config.target
        return means | {target: float(self.smoothing(torch.tensor(means[target])))}

    def forward(self, batch: Batch, key: NoiseKey, contrast: Contrast | None = None) -> dict[str, Loss]:
        """See `Stage.forward`; structures are moved in training only."""
        config, head, mode = self.config, self.model.property_head, self.config.noise_mode
        assert head is not None
        noised = None
        if self.training and (config.denoising_weight > 0 or mode == "reference"):
            noised = self.denoising.perturb(batch, key)
        structures = batch if noised is None or mode == "separate" else noised.batch
        predicted = {}
        if config.forces:
            energy, forces, encoded = energy_and_forces(self.model, structures, create_graph=self.training)
            predicted["forces"] = forces
        else:
            encoded = self.model.encode(structures)
            energy = self.model.predict(encoded, structures)
        predicted[config.target] = energy
        unit = head.std if config.supervised.standardised else 1.0
        losses = {
            name: regression_loss(value, batch.targets[name].to(value), unit, config.supervised.error)
            for name, value in predicted.items()
        }
        if noised is not None and config.denoising_weight > 0:
            if mode == "separate":
                encoded = self.model.encode(noised.batch)
            losses |= self.denoising({"denoising": self.model.noise_head(encoded)}, noised)
        return losses


def has_spectrum(batch: Batch) -> Tensor:
    """[B] bool on the CPU, whether a molecule has any of the batch's spectra."""
    return torch.stack(list(batch.present.values())).any(0)
