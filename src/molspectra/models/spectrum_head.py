"""Spectra predicted from a structure: every atom contributes lines, which are broadened and added up.

Spectra are extensive, and most vibrations and orbitals are localised on a few atoms. So the heights of lines
at fixed positions of the axis are predicted for each atom, from its own features and those of the whole
molecule, and added up. Lines have the default shape and width of the modality, twice the distance of two
positions, so that two neighbours represent a line between them.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from molspectra.data.batch import Batch
from molspectra.models.heads import safe_norm
from molspectra.models.segments import spread_to_atoms, sum_by_molecule
from molspectra.models.shared import Encoded
from molspectra.spectra.modality import Modality

HIDDEN = 128
"""Width of the hidden layers."""

MAX_LINES = 1024
"""Largest number of lines of a modality; on a longer axis they are wider than the modality's default."""

GAIN = 32.0
"""Factor on the heights before softplus: they change by several units while features change by tenths."""

INITIAL = -4.0
"""Initial bias of the heights: softplus(-4) = 0.02 per atom, the size of a usual spectrum."""


def line_basis(kind: Modality) -> Tensor:
    """Return the profiles [G, points] float32 of the lines that a predicted spectrum is a sum of.

    They have height 1 and are w/2 apart, with the modality's full width at half maximum w (a larger one where
    more than `MAX_LINES` would be needed): 1 / (1 + 4 Δ²/w²) or exp(−4 ln 2 Δ²/w²), by its line shape.
    """
    gaps = min(math.ceil((kind.stop - kind.start) / (kind.fwhm / 2)), MAX_LINES - 1)
    centres = torch.linspace(kind.start, kind.stop, gaps + 1, dtype=torch.float64)
    width = max(kind.fwhm, 2 * (kind.stop - kind.start) / gaps)
    offset = torch.from_numpy(kind.axis()) - centres.unsqueeze(1)
    square = 4 * (offset / width).square()
    profiles = torch.exp(-math.log(2) * square) if kind.shape == "gaussian" else 1 / (1 + square)
    return profiles.float()


class SpectrumHead(nn.Module):
    """Predicts the spectra of molecules as sums over their atoms.

    With the features x_i [C], v_i [3, C] of the atoms and f(x) = W₂ SiLU(W₁ x + b₁) + b₂:

    a_i, g_i = f(LayerNorm([x_i, ‖U v_i‖])),  m = f(LayerNorm(Σ_i a_i sigmoid(g_i))),
    s(ν) = Σ_k L_k(ν) Σ_i softplus(32 (w_k · (a_i + m) + c_k))

    with the profiles L_k of `line_basis`. A spectrum is never negative, and grows with the molecule.

    Args:
        channels: width C of the atom features.
        kinds: the modalities to predict, by name.
    """

    def __init__(self, channels: int, kinds: Mapping[str, Modality]) -> None:
        super().__init__()
        self.lengths = nn.Linear(channels, channels, bias=False)
        self.atoms = _perceptron(2 * channels, 2 * HIDDEN)
        self.whole = _perceptron(HIDDEN, HIDDEN)
        self.heights = nn.ModuleDict()
        for name, kind in kinds.items():
            basis = line_basis(kind)
            heights = nn.Linear(HIDDEN, len(basis))
            nn.init.normal_(heights.weight, 0.0, 0.3 / math.sqrt(HIDDEN) / GAIN)
            nn.init.constant_(heights.bias, INITIAL / GAIN)
            self.heights[name] = heights
            self.register_buffer(f"{name}_basis", basis, persistent=False)

    def forward(self, encoded: Encoded, batch: Batch) -> dict[str, Tensor]:
        """Return spectra [B, points] per modality, not negative, in its `intensity_unit` on its axis."""
        features = torch.cat([encoded.scalars, safe_norm(self.lengths(encoded.vectors))], dim=1)
        atoms, gate = self.atoms(features).chunk(2, dim=1)
        pooled = sum_by_molecule(atoms * torch.sigmoid(gate), batch.molecule, batch.ptr)
        atoms = atoms + spread_to_atoms(self.whole(pooled), batch.molecule, batch.ptr)
        spectra = {}
        for name, heights in self.heights.items():
            lines = sum_by_molecule(nn.functional.softplus(GAIN * heights(atoms)), batch.molecule, batch.ptr)
            spectra[name] = lines @ self.get_buffer(f"{name}_basis")
        return spectra


def _perceptron(width: int, out: int) -> nn.Sequential:
    """Return a LayerNorm and a perceptron with one hidden layer."""
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, out))
