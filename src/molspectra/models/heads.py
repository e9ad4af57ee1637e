"""Heads: from atom features to properties, noise vectors, dipoles and forces (method, section 4)."""

import torch
from torch import Tensor, nn

from molspectra.chem.elements import MAX_ATOMIC_NUMBER
from molspectra.data.batch import Batch
from molspectra.errors import MismatchError, SettingError
from molspectra.models.config import COMPONENTS, PropertyKind, Readout
from molspectra.models.segments import spread_to_atoms, sum_by_molecule
from molspectra.models.shared import Encoded


class GatedEquivariantBlock(nn.Module):
    """Gated equivariant block of PaiNN and TorchMD-NET: (x, v) → (x', v') of a new width.

    Args:
        channels: input width C.
        out_channels: output width.
        activate: apply SiLU to the outgoing scalars.
        gain: factor on the initial weights of the last linear map.
    """

    def __init__(self, channels: int, out_channels: int, activate: bool, gain: float = 1.0) -> None:
        super().__init__()
        self.invariant = nn.Linear(channels, channels, bias=False)
        self.equivariant = nn.Linear(channels, out_channels, bias=False)
        last = nn.Linear(channels, 2 * out_channels)
        self.update = nn.Sequential(nn.Linear(2 * channels, channels), nn.SiLU(), last)
        self.activate = activate
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(last.weight, gain)

    def forward(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Map [N, C], [N, 3, C] to [N, C'], [N, 3, C']."""
        length = safe_norm(self.invariant(vectors))
        update, gate = self.update(torch.cat([scalars, length], dim=-1)).chunk(2, dim=-1)
        gated = gate.unsqueeze(1) * self.equivariant(vectors)
        return (nn.functional.silu(update) if self.activate else update), gated


def safe_norm(vectors: Tensor) -> Tensor:
    """Norm over axis 1 whose gradient at the zero vector is zero instead of NaN; [N, 3, C] to [N, C]."""
    squared = vectors.square().sum(1)
    zero = squared == 0
    return torch.sqrt(squared.masked_fill(zero, 1.0)).masked_fill(zero, 0.0)


class AtomHead(nn.Module):
    """Two gated blocks, C → C/2 → 1: one scalar and one vector per atom."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            [
                GatedEquivariantBlock(channels, channels // 2, activate=True),
                # predictions begin near the mean: features are large, their sum over atoms larger
                GatedEquivariantBlock(channels // 2, 1, activate=False, gain=0.1),
            ]
        )

    def forward(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        """Atom scalars [N] and vectors [N, 3]."""
        scalars, vectors = encoded
        for block in self.blocks:
            scalars, vectors = block(scalars, vectors)
        return scalars.squeeze(-1), vectors.squeeze(-1)


def pooled_features(encoded: Encoded, batch: Batch) -> Tensor:
    """Statistics [B, 4 C] of the atoms' features that do not grow with the molecule.

    With f_i = [x_i, ‖v_i‖]: μ = mean_i f_i, σ with σ² = mean_i (f_i - μ)² + 1e-6, and together [μ, σ].
    """
    features = torch.cat([encoded.scalars, safe_norm(encoded.vectors)], dim=1)
    atoms = batch.ptr.diff().to(features).unsqueeze(1)
    mean = sum_by_molecule(features, batch.molecule, batch.ptr) / atoms
    offset = features - spread_to_atoms(mean, batch.molecule, batch.ptr)
    variance = sum_by_molecule(offset.square(), batch.molecule, batch.ptr) / atoms
    return torch.cat([mean, (variance + 1e-6).sqrt()], dim=1)


class PooledHead(nn.Module):
    """One scalar per molecule from the p = `pooled_features`: W₂ SiLU(W₁ LayerNorm(p) + b₁) + b₂, at first 0.

    Unlike a sum it does not grow with the molecule: the orbital energies of two equal molecules far apart are
    those of one.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        last = nn.Linear(channels, 1)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(4 * channels), nn.Linear(4 * channels, channels), nn.SiLU(), last
        )
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, encoded: Encoded, batch: Batch) -> Tensor:
        """Scalars [B]."""
        scalars: Tensor = self.perceptron(pooled_features(encoded, batch)).squeeze(1)
        return scalars


class NoiseHead(nn.Module):
    """Predicts the (standardised) noise of every atom: the vector output of an `AtomHead`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.atoms = AtomHead(channels)

    def forward(self, encoded: Encoded) -> Tensor:
        """Noise vectors [N, 3]."""
        noise: Tensor = self.atoms(encoded)[1]
        return noise


class PropertyHead(nn.Module):
    """Predicts one property per molecule.

    | kind | formula |
    |---|---|
    | scalar | Σ_i std·x_i + mean |
    | scalar, pooled | std·p + mean, p of `PooledHead` |
    | dipole | std·‖Σ_i (x_i (r_i - r_c) + μ_i)‖, r_c the centre of mass |
    | spatial_extent | Σ_i std·x_i ‖r_i - r_c‖² + mean |
    | vector | std·Σ_i (x_i (r_i - r_c) + μ_i), three components |
    | tensor | std·Σ_i (x_i 1 + (μ_i ⊗ (r_i - r_c) + (r_i - r_c) ⊗ μ_i)) + mean·1, six components |
    | binary | as a scalar, of std 1: the logit ln(P/(1 - P)) of class 1; mean is that of the base rate |

    Vectors and tensors turn with the molecule (Schütt et al. 2021, doi:10.48550/arXiv.2102.03150, equations
    11 and 12). Of a charged molecule a vector is that about its centre of mass.

    With atom references, Σ_i reference(z_i) is added to a scalar in float64: total energies are so large that
    float32 would round away the differences to be learnt.

    Args:
        channels: width C of the atom features.
        kind: row of the table.
        has_references: whether an energy per element is added.
        readout: "pooled" for a scalar or a logit that does not grow with the molecule.

    Attributes:
        mean: [] added to the sum, the training set's mean; of classes the log-odds of its base rate.
        std: [] multiplies every atom's scalar, the training set's standard deviation.
        references: [119] float64 by atomic number; None without.

    Raises:
        SettingError: references for a property that is no sum over atoms, or one of vectors that is pooled.
    """

    mean: Tensor
    std: Tensor
    masses: Tensor
    references: Tensor | None

    def __init__(
        self,
        channels: int,
        kind: PropertyKind = "scalar",
        has_references: bool = False,
        readout: Readout = "sum",
    ) -> None:
        super().__init__()
        from ase.data import atomic_masses

        self.kind = kind
        self.pooled: PooledHead | None = None
        if readout == "pooled":
            if kind not in ("scalar", "binary") or has_references:
                what = "atom references belong to a sum" if has_references else f"a {kind} is a sum"
                raise SettingError(f"model.readout: {what} over atoms, which cannot be pooled; use sum")
            self.pooled = PooledHead(channels)
        else:
            self.atoms = AtomHead(channels)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))
        masses = torch.tensor(atomic_masses, dtype=torch.float64)
        self.register_buffer("masses", masses, persistent=False)
        if has_references and kind != "scalar":
            what = "class" if kind == "binary" else kind
            raise SettingError(f"model.atom_references: a {what} has none; leave them out")
        references = torch.zeros(MAX_ATOMIC_NUMBER + 1, dtype=torch.float64) if has_references else None
        self.register_buffer("references", references)

    def standardise(self, mean: float, std: float) -> None:
        """Set the training set's mean and standard deviation (a std of 0 counts as 1).

        The mean of a dipole stays 0: it is a length, nothing can be added before its norm is taken. That of a
        vector is 0 since no direction is special, and that of a tensor a third of its mean trace.
        """
        self.mean.fill_(0.0 if self.kind in ("dipole", "vector") else mean)
        self.std.fill_(std if std > 0 else 1.0)

    def components(self, encoded: Encoded, batch: Batch) -> list[Tensor]:
        """Predictions [B] of every component, in the order of `COMPONENTS`."""
        values = self(encoded, batch)
        return list(values.unbind(1)) if self.kind in COMPONENTS else [values]

    @property
    def width(self) -> int:
        """Number of components."""
        return len(COMPONENTS.get(self.kind, ("",)))

    def forward(self, encoded: Encoded, batch: Batch) -> Tensor:
        """Predictions in the unit of the targets, of classes logits; float64 with atom references.

        [B], of a vector [B, 3], and of a tensor [B, 6] in the order of `COMPONENTS`.
        """
        if self.pooled is not None:
            prediction: Tensor = self.std * self.pooled(encoded, batch) + self.mean
            return prediction
        scalars, vectors = self.atoms(encoded)
        if self.kind in ("scalar", "binary"):
            return self.total(scalars, batch)
        if self.kind == "dipole":
            return self.std * safe_norm(self._dipole(scalars, vectors, batch).unsqueeze(-1)).squeeze(-1)
        if self.kind == "vector":
            return self.std * self._dipole(scalars, vectors, batch)
        if self.kind == "tensor":
            return self._tensor(scalars, vectors, batch)
        extent = self.std * scalars * self._offset(scalars, batch).square().sum(1)
        return sum_by_molecule(extent, batch.molecule, batch.ptr) + self.mean

    def total(self, scalars: Tensor, batch: Batch) -> Tensor:
        """Predictions [B] of a scalar or a logit from the atoms' scalars [N]."""
        total = sum_by_molecule(self.std * scalars, batch.molecule, batch.ptr) + self.mean
        if self.references is None:
            return total
        references = self.references[batch.numbers]
        return total.double() + sum_by_molecule(references, batch.molecule, batch.ptr)

    def in_unit(self, values: Tensor) -> Tensor:
        """Turn the outputs [B] of the head into what they stand for: logits into probabilities."""
        return torch.sigmoid(values) if self.kind == "binary" else values

    def dipole(self, encoded: Encoded, batch: Batch) -> Tensor:
        """Dipole vectors [B, 3] in the unit of the targets, std·Σ_i (x_i (r_i - r_c) + μ_i).

        Of the kind "dipole" their lengths are the predictions. Training on lengths leaves the sign
        undetermined, and the direction as far as symmetry does not dictate it.

        Raises:
            MismatchError: a head of another kind.
        """
        if self.kind not in ("dipole", "vector"):
            raise MismatchError(f"the {self.kind} head predicts no dipole; fine-tune with --vectors")
        scalars, vectors = self.atoms(encoded)
        return self.std * self._dipole(scalars, vectors, batch)

    def _dipole(self, scalars: Tensor, vectors: Tensor, batch: Batch) -> Tensor:
        """Σ_i (x_i (r_i - r_c) + μ_i) [B, 3]."""
        moments = scalars.unsqueeze(1) * self._offset(scalars, batch) + vectors
        return sum_by_molecule(moments, batch.molecule, batch.ptr)

    def _tensor(self, scalars: Tensor, vectors: Tensor, batch: Batch) -> Tensor:
        """Symmetric tensors [B, 6]."""
        offset = self._offset(scalars, batch)
        first, second = torch.tensor([0, 1, 2, 0, 0, 1]), torch.tensor([0, 1, 2, 1, 2, 2])
        mixed = vectors[:, first] * offset[:, second] + vectors[:, second] * offset[:, first]
        one = scalars.new_tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
        atoms = scalars.unsqueeze(1) * one + mixed
        return self.std * sum_by_molecule(atoms, batch.molecule, batch.ptr) + self.mean * one

    def _offset(self, scalars: Tensor, batch: Batch) -> Tensor:
        """Positions [N, 3] about the centre of mass, r_i - r_c."""
        masses = self.masses.to(scalars.dtype)[batch.numbers].unsqueeze(1)
        weighted = torch.cat([masses, masses * batch.positions], dim=1)
        total = sum_by_molecule(weighted, batch.molecule, batch.ptr)
        centre = spread_to_atoms(total[:, 1:] / total[:, :1], batch.molecule, batch.ptr)
        return batch.positions - centre


class SpectrumInput(nn.Module):
    """Concatenates the representation of a molecule's spectra to the scalars of its atoms, before a head.

    x_i ← Linear([x_i, s, p]) with the representation s of the spectra and p = 1 where there are any, else 0.
    The paper's pilot concatenates them to the features of the molecule; at the atoms, all
    kinds of heads can use them.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.combine = nn.Linear(2 * channels + 1, channels)

    def forward(self, encoded: Encoded, batch: Batch, spectra: Tensor, present: Tensor) -> Encoded:
        """Combine atom features with representations [B, C] and `present` [B]."""
        molecules = torch.cat([spectra, present.unsqueeze(1).to(spectra)], dim=1)
        atoms = spread_to_atoms(molecules, batch.molecule, batch.ptr)
        return Encoded(self.combine(torch.cat([encoded.scalars, atoms], dim=1)), encoded.vectors)
