"""The assembled model: a 3D encoder, a spectrum encoder for pre-training, and heads."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from molspectra.compiled import fast
from molspectra.data.batch import Batch, to_device
from molspectra.errors import MismatchError
from molspectra.models.config import EGNNConfig, HeadConfig, ModelConfig, Readout
from molspectra.models.egnn import EGNN
from molspectra.models.equivariant_transformer import EquivariantTransformer
from molspectra.models.heads import NoiseHead, PropertyHead, SpectrumInput
from molspectra.models.segments import sum_by_molecule
from molspectra.models.shared import Encoded, Encoder, Shared
from molspectra.models.specformer import SpecFormer
from molspectra.models.spectrum_head import SpectrumHead

MOST_PARTNERS = 32
"""Mean number of other atoms in a molecule up to which a batch on a GPU gets the edges of all pairs."""


def property_heads(config: ModelConfig) -> tuple[HeadConfig, ...]:
    """Return the head of every property of a model; none before fine-tuning."""
    if config.heads or config.property is None:
        return config.heads
    is_pooled = config.readout == "pooled" or (config.readout == "auto" and config.property == "binary")
    readout: Readout = "pooled" if is_pooled else "sum"
    references = "published" if config.atom_references == "auto" else config.atom_references
    return (HeadConfig(config.property, readout, references),)


class MolSpectra(Shared):
    """3D encoder with heads, and the spectrum encoder where the configuration has one."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder: Encoder = (
            EGNN(config.encoder)
            if isinstance(config.encoder, EGNNConfig)
            else EquivariantTransformer(config.encoder)
        )
        channels = self.encoder.channels
        self.noise_head = NoiseHead(channels)
        heads = [
            PropertyHead(channels, head.property, head.atom_references != "none", head.readout)
            for head in property_heads(config)
        ]
        self.property_head: PropertyHead | None = heads[0] if heads else None
        self.further_heads = nn.ModuleList(heads[1:])
        self.spectrum_encoder: SpecFormer | None = None
        if config.spectrum_encoder is not None:
            self.spectrum_encoder = SpecFormer(config.spectrum_encoder, channels)
            self.log_scale = nn.Parameter(torch.tensor(-math.log(config.temperature)))
        self.force_head = (
            NoiseHead(channels) if config.force_head else None
        )  # last, so that the other initial weights do not depend on it
        self.spectrum_input = SpectrumInput(channels) if config.spectrum_input else None
        self.spectrum_head: SpectrumHead | None = None
        if config.spectrum_head and self.spectrum_encoder is not None:
            self.spectrum_head = SpectrumHead(channels, self.spectrum_encoder.kinds)

    def compile_passes(self, backend: str = "inductor") -> None:
        """Let `torch.compile` make the passes of both encoders, at their first calls.

        Weights and their names stay as they are. What is compiled has first derivatives only.

        Args:
            backend: of `torch.compile`.
        """
        self.encoder.compile(backend=backend)
        if (spectra := self.spectrum_encoder) is not None:
            spectra.compute = torch.compile(spectra.compute, backend=backend)  # type: ignore[method-assign]

    def encode(self, batch: Batch) -> Encoded:
        """Atom features of a batch; edges are built where the batch has none."""
        encoded: Encoded = self.encoder(self.with_edges(batch) if batch.edges is None else batch)
        return encoded

    def with_edges(self, batch: Batch) -> Batch:
        """Return a batch with all edges that the encoder needs.

        Which pairs are close only a GPU knows that has the positions, and the host would have to wait for it.
        So small molecules on one get the edges of all pairs, if those beyond the cutoff add exactly 0.
        """
        encoder, most = self.encoder, MOST_PARTNERS * len(batch.numbers)
        is_small = batch.pairs is not None and 2 * batch.pairs <= most
        takes_all = batch.positions.is_cuda and encoder.fades and is_small
        return batch.with_edges(math.inf if takes_all else encoder.cutoff)

    @staticmethod
    def molecule_features(encoded: Encoded, batch: Batch) -> Tensor:
        """[B, C] representation of every molecule for the alignment, Σ_i x_i."""
        return sum_by_molecule(encoded.scalars, batch.molecule, batch.ptr)

    def embed(self, batch: Batch) -> Tensor:
        """[B, C] representation of every molecule of a batch."""
        return self.molecule_features(self.encode(batch), batch)

    @property
    def property_heads(self) -> list[PropertyHead]:
        """The heads of all properties, in the order of the targets."""
        heads = [self.property_head, *self.further_heads]
        return [head for head in heads if isinstance(head, PropertyHead)]

    @property
    def input_spectra(self) -> tuple[str, ...]:
        """Modalities that a batch must carry for a prediction; none unless spectra are an input."""
        if self.spectrum_input is None or self.spectrum_encoder is None:
            return ()
        return tuple(self.spectrum_encoder.kinds)

    def predict(self, encoded: Encoded, batch: Batch) -> list[Tensor]:
        """Properties, each [B], from the atom features of a batch, and its spectra where they are an input.

        Vectors and tensors are so many properties as they have components. Of classes these are logits;
        `PropertyHead.in_unit` turns them into probabilities.

        Raises:
            MismatchError: the model has no property head, or the batch lacks spectra that are an input.
        """
        if self.property_head is None:
            raise MismatchError("the model has no property head: fine-tune it first")
        if self.spectrum_input is not None:
            encoded = self.spectrum_input(encoded, batch, *self._read_spectra(batch))
        return [value for head in self.property_heads for value in head.components(encoded, batch)]

    def predict_spectra(self, encoded: Encoded, batch: Batch) -> dict[str, Tensor]:
        """Spectra [B, points] per modality from the atom features of a batch, in its unit on its axis.

        Raises:
            MismatchError: the model has no spectrum head.
        """
        if self.spectrum_head is None:
            raise MismatchError(
                "the model has no spectrum head: pre-train it with weights.spectrum above 0 (stage 2)"
            )
        spectra: dict[str, Tensor] = self.spectrum_head(encoded, batch)
        return spectra

    def _read_spectra(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Representations [B, C], 0 for molecules without any spectrum, and [B] bool, which have one."""
        assert self.spectrum_encoder is not None
        names = self.input_spectra
        missing = [name for name in names if name not in batch.spectra]
        if missing:
            raise MismatchError(
                f"this model takes spectra as input, and the batch has no {', '.join(missing)}"
            )
        present = torch.stack([batch.present[name] for name in names]).any(0)
        on_device = to_device(present, batch.positions.device)
        if not self.any_rank(present):  # batch norms need at least one row
            return batch.positions.new_zeros(len(batch), self.encoder.channels), on_device
        spectra = {name: batch.spectra[name] for name in names}
        representation = self.spectrum_encoder(spectra, batch.present).representation
        return representation.masked_fill(~on_device.unsqueeze(1), 0.0), on_device

    def forward(self, batch: Batch) -> Tensor:
        """Predicted (first) property [B] in the unit of the targets, or logits; float64 with atom references.

        Raises:
            MismatchError: as in `predict`.
        """
        return self.predict(self.encode(batch), batch)[0]


class EnergyForces(NamedTuple):
    """A scalar property and its negative gradient."""

    energy: Tensor
    """[B] in the unit of the targets."""
    forces: Tensor
    """[N, 3] -∂E/∂r, that unit per Å."""
    encoded: Encoded
    """Atom features of the same pass."""
    further: tuple[Tensor, ...] = ()
    """Further properties of the model, each [B]."""


def energy_and_forces(model: MolSpectra, batch: Batch, create_graph: bool = False) -> EnergyForces:
    """Energy and forces, by automatic differentiation where no kernel has its gradient written down.

    Args:
        model: a model with a property head.
        batch: molecules, with or without edges.
        create_graph: keep the graph, for a loss on energy and forces; without it the results have none.

    Raises:
        MismatchError: as in `MolSpectra.predict`.
    """
    if not create_graph and (found := _without_graph(model, batch)) is not None:
        return found
    edges = batch.edges
    with torch.enable_grad():
        positions = batch.positions.detach().requires_grad_(True)
        moved = batch.with_positions(positions)
        moved = model.with_edges(moved) if edges is None else moved.with_edge_list(edges)
        encoded = model.encode(moved)
        energy, *further = model.predict(encoded, moved)
        (gradient,) = torch.autograd.grad(energy.sum(), positions, create_graph=create_graph)
    if not create_graph:
        energy, encoded = energy.detach(), Encoded(*(features.detach() for features in encoded))
        further = [values.detach() for values in further]
    return EnergyForces(energy, -gradient, encoded, tuple(further))


def _without_graph(model: MolSpectra, batch: Batch) -> EnergyForces | None:
    """Energy and forces of a sum over atoms by compiled kernels; None where they do not apply."""
    encoder, head = model.encoder, model.property_head
    if not isinstance(encoder, EquivariantTransformer) or model.spectrum_input is not None:
        return None
    if head is None or head.kind != "scalar" or head.pooled is not None:
        return None
    if torch.is_autocast_enabled("cpu") or not fast(batch.positions, encoder.embedding.weight):
        return None
    from molspectra.models.kernels.forces import atom_scalars

    with torch.no_grad():
        found = atom_scalars(encoder, head.atoms, batch)
        energy = head.total(found.scalars, batch)
        further = [
            value for one in model.property_heads[1:] for value in one.components(found.encoded, batch)
        ]
    return EnergyForces(energy, -head.std * found.gradient, found.encoded, tuple(further))
