"""The training stages: a batch in, named losses out.

`counts` gives, before any pass, the number of items of each loss, so that micro-batches and ranks add up to
exactly the loss of one large batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from molspectra.data.batch import Batch, to_device
from molspectra.models.model import MolSpectra, energy_and_forces
from molspectra.models.shared import Encoded, Shared
from molspectra.objectives.alignment import Alignment
from molspectra.objectives.denoising import CoordDenoising, denoising_objective
from molspectra.objectives.loss import Loss, NoiseKey
from molspectra.objectives.reconstruction import MaskedReconstruction
from molspectra.objectives.spectrum import SpectrumPrediction
from molspectra.objectives.supervised import Smoothed, class_loss, regression_loss
from molspectra.training.config import FinetuneConfig, PretrainConfig
from molspectra.training.ranks import Gather, Negatives
from molspectra.training.targets import classes_of


class Stage(Shared, ABC):
    """A model with the objectives of a stage.

    Attributes:
        model: the model that is trained.
        denoising: the denoising objective.
        modalities: spectra that batches must carry.
        targets: columns that batches must carry.
        internal: whether batches must carry internal coordinates.
        predicts_spectra: whether batches must also carry their spectra before augmentation.
        units: of the labels, whose mean absolute errors a validation tells, too.
        classes: labels that are classes, whose AUROC a validation tells.
        logits: [B, classes] of the last batch that was not trained on; None without classes.
    """

    model: MolSpectra
    denoising: CoordDenoising
    modalities: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    internal: bool = False
    predicts_spectra: bool = False
    units: Mapping[str, str] = MappingProxyType({})
    classes: tuple[str, ...] = ()
    logits: Tensor | None = None

    @abstractmethod
    def weights(self) -> dict[str, float]:
        """Weight of every loss that the stage has."""

    def gradient_weights(self) -> dict[str, float]:
        """Return the factor of the gradient of every mean loss: its weight, unless the loss is smoothed."""
        return self.weights()

    def smoothed(self, means: dict[str, float]) -> dict[str, float]:
        """Return the mean losses of a step as they are logged, smoothed over the steps where asked for."""
        return means

    @abstractmethod
    def counts(self, batch: Batch) -> dict[str, float]:
        """Count the items of every loss in a batch."""

    def observe(self, micros: Iterable[tuple[Batch, NoiseKey]]) -> None:
        """Update the noise statistics from all micro-batches of a step, before the first forward pass."""
        if "denoising" in self.weights():
            self.denoising.observe(micros)

    @abstractmethod
    def forward(self, batch: Batch, key: NoiseKey, negatives: Negatives | None = None) -> dict[str, Loss]:
        """Compute the losses of a batch of clean structures; in evaluation mode too.

        Args:
            batch: on the model's device.
            key: seeds of noise and masks.
            negatives: collects the negatives of the contrastive loss; None takes those of the batch.
        """


class PretrainStage(Stage):
    """Denoising; with a spectrum encoder also masked patches, alignment and predicted spectra."""

    def __init__(self, model: MolSpectra, config: PretrainConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.denoising = denoising_objective(config.denoising)
        self.alignment = Alignment(config.alignment)
        self.reconstruction: MaskedReconstruction | None = None
        if model.spectrum_encoder is not None:
            kinds = model.spectrum_encoder.kinds
            self.modalities = tuple(kinds)
            self.reconstruction = MaskedReconstruction(config.reconstruction, kinds)
        weights, has_spectra = config.weights, bool(self.modalities)  # losses of weight 0 are not computed
        self.denoises = any(getattr(weights, name) > 0 for name in self.denoising.losses)
        self.reconstructs = has_spectra and weights.reconstruction > 0
        self.aligns = has_spectra and weights.alignment > 0
        self.internal = self.denoises and self.denoising.internal
        self.spectrum_prediction: SpectrumPrediction | None = None
        if config.weights.spectrum > 0:
            self.spectrum_prediction = SpectrumPrediction(self.modalities)
            self.predicts_spectra = True

    def weights(self) -> dict[str, float]:
        """See `Stage.weights`; reconstruction and prediction count once per modality."""
        weights = self.config.weights
        chosen = {name: getattr(weights, name) for name in self.denoising.losses} if self.denoises else {}
        if self.reconstructs:
            chosen |= {f"reconstruction_{name}": weights.reconstruction for name in self.modalities}
        if self.aligns:
            chosen["alignment"] = weights.alignment
        if self.predicts_spectra:
            chosen |= {f"spectrum_{name}": weights.spectrum for name in self.modalities}
        return chosen

    def counts(self, batch: Batch) -> dict[str, float]:
        """See `Stage.counts`."""
        counts = self.denoising.counts(batch) if self.denoises else {}
        if self.reconstruction is not None and self.reconstructs:
            for name in self.modalities:
                counts[f"reconstruction_{name}"] = self.reconstruction.count(batch, name)
        if self.aligns:
            counts["alignment"] = float(has_spectrum(batch).sum())
        if self.spectrum_prediction is not None:
            counts |= {
                f"spectrum_{name}": self.spectrum_prediction.count(batch, name) for name in self.modalities
            }
        return counts

    def forward(self, batch: Batch, key: NoiseKey, negatives: Negatives | None = None) -> dict[str, Loss]:
        """See `Stage.forward`."""
        model = self.model
        losses: dict[str, Loss] = {}
        noisy: Encoded | None = None

        # Perturb the structures, encode and denoise them.
        if self.denoises:
            noised = self.denoising.perturb(batch, key)
            noisy = model.encode(noised.batch)
            predictions = {"denoising": model.noise_head(noisy)}
            if model.force_head is not None:
                predictions["slide"] = model.force_head(noisy)
            losses |= self.denoising(predictions, noised)
        if not self.modalities or not self._any_spectrum(batch):
            return losses

        # Reconstruct the masked patches of the spectra.
        clean, aligns_noisy = None, self.denoises and self.config.alignment.structure == "noised"
        if self.predicts_spectra or (self.aligns and not aligns_noisy):
            clean = model.encode(batch)
        if self.reconstructs or self.aligns:
            reconstructed, spectra = self._read_spectra(batch, key)
            losses |= {f"reconstruction_{name}": loss for name, loss in reconstructed.items()}

        # Align the molecules with their spectra.
        if self.aligns:
            encoded = noisy if aligns_noisy else clean
            assert encoded is not None
            molecules = model.molecule_features(encoded, batch)
            losses["alignment"] = self._align(batch, molecules, spectra, negatives or Negatives())

        # Predict the spectra from the clean structures.
        if self.spectrum_prediction is not None:
            assert clean is not None
            predicted = self.spectrum_prediction(model.predict_spectra(clean, batch), batch)
            losses |= {f"spectrum_{name}": loss for name, loss in predicted.items()}
        return losses

    def _any_spectrum(self, batch: Batch) -> bool:
        """Whether any molecule on any rank has a spectrum: then all ranks take part in what follows."""
        return self.any_rank(has_spectrum(batch))

    def _read_spectra(self, batch: Batch, key: NoiseKey) -> tuple[dict[str, Loss], Tensor]:
        """Return the losses of the reconstruction, and the spectrum representations [B, D] to align."""
        encoder, reconstruction = self.model.spectrum_encoder, self.reconstruction
        assert encoder is not None
        assert reconstruction is not None
        is_masked = self.config.alignment.masked
        if not (self.reconstructs or is_masked):
            return {}, encoder(batch.spectra, batch.present).representation
        masks = reconstruction.masks(batch, key)
        visible = reconstruction.visible(batch.spectra, masks)
        if is_masked or not self.aligns:  # one pass, so it has to feed the running statistics
            masked = whole = encoder.reference_forward(visible, masks, batch.present)
        else:
            masked = encoder(visible, batch.present, masks)
            whole = encoder(batch.spectra, batch.present)
        if not self.reconstructs:
            return {}, whole.representation
        index = reconstruction.masked_index(masks)
        parts = reconstruction(encoder.reconstruct(masked.tokens, index=index), batch, index)
        return parts, whole.representation

    def _align(self, batch: Batch, molecules: Tensor, spectra: Tensor, negatives: Negatives) -> Loss:
        """Contrast the molecules [B, D] that have spectra with their spectra [B, D]."""
        present = has_spectrum(batch)
        pairs, identity = torch.cat([molecules, spectra.to(molecules)], dim=1), batch.geometry_id
        if not bool(present.all()):
            rows = to_device(present.nonzero().squeeze(1), pairs.device)
            pairs, identity = pairs.index_select(0, rows), identity[rows]
        return negatives(self._alignment_loss, pairs, identity)

    def _alignment_loss(self, pairs: Tensor, identity: Tensor, gather: Gather | None) -> Loss:
        """Contrastive loss of pairs [b, 2 D] with identities [b], among those of all ranks."""
        gathered, first = None, 0
        if gather is not None:
            all_pairs, first = gather(pairs)
            gathered = (*all_pairs.chunk(2, dim=1), gather(identity)[0])
        molecules, spectra = pairs.chunk(2, dim=1)
        scale = self.model.log_scale
        return self.alignment(molecules, spectra, scale, identity=identity, gathered=gathered, first=first)


class FinetuneStage(Stage):
    """Properties, optionally forces, and denoising of slightly moved structures (noisy nodes)."""

    def __init__(
        self, model: MolSpectra, config: FinetuneConfig, units: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        super().__init__()
        self.units = units
        self.model = model
        self.config = config
        self.targets = config.labels
        self.classes = classes_of(config)
        self.modalities = model.input_spectra
        self.denoising = denoising_objective(config.denoising)
        self.smoothing = Smoothed(config.energy_smoothing)

    def weights(self) -> dict[str, float]:
        """See `Stage.weights`."""
        config = self.config
        chosen = {  # the loss of a vector is the mean over its components
            column: config.energy_weight / len(config.columns(name))
            for name in config.names
            for column in config.columns(name)
        }
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
        weights, target = self.weights(), self.targets[0]
        return weights | {target: self.smoothing.alpha * weights[target]}

    def smoothed(self, means: dict[str, float]) -> dict[str, float]:
        """See `Stage.smoothed`; the loss of the first property is smoothed where asked for."""
        target = self.targets[0]
        return means | {target: float(self.smoothing(torch.tensor(means[target])))}

    def forward(self, batch: Batch, key: NoiseKey, negatives: Negatives | None = None) -> dict[str, Loss]:
        """See `Stage.forward`; structures are moved in training only."""
        config, mode = self.config, self.config.noise_mode
        noised = None
        if self.training and (config.denoising_weight > 0 or mode == "reference"):
            noised = self.denoising.perturb(batch, key)
        structures = batch if noised is None or mode == "separate" else noised.batch
        if config.forces:
            result = energy_and_forces(self.model, structures, create_graph=self.training)
            encoded, values = result.encoded, [result.energy, *result.further, result.forces]
        else:
            encoded = self.model.encode(structures)
            values = self.model.predict(encoded, structures)
        units: list[Tensor | float] = [
            head.std for head in self.model.property_heads for _ in range(head.width)
        ]
        if not config.supervised.standardised:
            units = [1.0] * len(units)
        losses = {
            name: class_loss(value, batch.targets[name].to(value))
            if name in self.classes
            else regression_loss(value, batch.targets[name].to(value), unit, config.supervised.error)
            for name, value, unit in zip(self.targets, values, [*units, units[0]], strict=False)
        }
        if not self.training:
            losses |= {
                error_of(name): regression_loss(value, batch.targets[name].to(value), error="mae")
                for name, value in zip(self.targets, values, strict=True)
                if name in self.units
            }
            by_name = dict(zip(self.targets, values, strict=True))
            if self.classes:
                self.logits = torch.stack([by_name[name].detach() for name in self.classes], dim=1)
        if noised is not None and config.denoising_weight > 0:
            if mode == "separate":
                encoded = self.model.encode(noised.batch)
            losses |= self.denoising({"denoising": self.model.noise_head(encoded)}, noised)
        return losses


def error_of(label: str) -> str:
    """Return the name of the mean absolute error of a label in a validation."""
    return f"{label}_mae"


def auroc_of(label: str) -> str:
    """Return the name of the area under the receiver operating characteristic of a class in a validation."""
    return f"{label}_auroc"


def validated(config: FinetuneConfig) -> tuple[str, ...]:
    """Return the names of all that a validation of resolved settings tells, of classes with both labels."""
    classes = classes_of(config)
    errors = (error_of(label) for label in config.labels if label not in classes)
    return ("loss", *config.labels, *errors, *map(auroc_of, classes))


def has_spectrum(batch: Batch) -> Tensor:
    """Return [B] bool on the CPU: whether a molecule has any of the batch's spectra."""
    return torch.stack(list(batch.present.values())).any(0)
