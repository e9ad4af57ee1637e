"""A small network that tells whether two infrared spectra are of the same molecule.

It is trained on computed spectra only: each is disturbed as measured ones differ (bands shifted together and
one by one, intensities changed by factors, other widths, rotational branches, saturation, baseline, noise, a
cut range), and must be nearer to its own undisturbed spectrum than to those of other molecules (InfoNCE: van
den Oord et al., arXiv:1807.03748). `scripts/train_network.py` trains it and chooses `WEIGHT`.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from molspectra.search.vectors import Floats, coarse
from molspectra.spectra.modality import modality

MODALITY = "ir"
"""The spectra that it reads."""

VERSION = 1
"""Raised with new weights; vectors in an index are of one version."""

WIDTH = 96
"""Numbers in a vector."""

WEIGHT = 0.3
"""Share of the network in the score `match`; the rest is that of `shape`."""

SCALES = (0.98, 0.99, 1.0)
"""Factors on the frequencies of the library that are tried; GFN2-xTB's lie 2 % too high."""

FLOOR = 0.01
"""Intensity relative to the largest, about which the scale turns from linear to logarithmic."""

ARRAY = f"network{VERSION}-{MODALITY}"
"""Name of the array of vectors [n, WIDTH] in an index."""

FILE = Path(__file__).with_name("network.safetensors")
"""Its weights, bfloat16."""

_POINTS = 875  # stored points of an infrared spectrum
_BATCH = 512


class Network(nn.Module):
    """Four convolutions over the logarithm of a spectrum, and one linear layer.

    Attributes:
        log_inverse_temperature: of the loss of its training.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, width, stride in ((1, 32, 13, 2), (32, 64, 9, 2), (64, 64, 7, 2), (64, 16, 5, 1)):
            layers += [nn.Conv1d(before, after, width, stride, width // 2), nn.GELU()]
        self.layers = nn.Sequential(*layers)
        self.last = nn.Linear(16 * -(-_POINTS // 8), WIDTH)
        self.log_inverse_temperature = nn.Parameter(torch.tensor(2.5))

    def forward(self, spectra: Tensor) -> Tensor:
        """Vectors [B, WIDTH] of length 1 of stored points [B, P] on any scale."""
        spectra = spectra.clamp(min=0)
        spectra = spectra / spectra.amax(1, keepdim=True).clamp(min=1e-20)
        scaled = torch.log1p(spectra / FLOOR) / np.log1p(1 / FLOOR)
        hidden = self.layers(scaled[:, None]).flatten(1)
        return functional.normalize(self.last(functional.dropout(hidden, 0.1, self.training)), dim=1)


def vectors(samples: npt.NDArray[np.floating]) -> Floats:
    """Vectors [n, WIDTH] of stored points [n, P]; zeros for spectra of zeros."""
    network, found = _loaded(), np.zeros((len(samples), WIDTH), np.float32)
    present = np.flatnonzero(np.asarray(samples).any(1))
    with torch.no_grad():
        for start in range(0, len(present), _BATCH):
            rows = present[start : start + _BATCH]
            found[rows] = network(torch.from_numpy(np.asarray(samples[rows], np.float32))).numpy()
    return found


def stretched(values: npt.NDArray[np.floating], scales: tuple[float, ...]) -> Floats:
    """Vectors [S, Q, WIDTH] of spectra [Q, points] as they look where the entries' frequencies have a factor.

    Args:
        values: on the modality's axis, 0 or more; 0 where nothing was measured.
        scales: factors on the frequencies of the entries.
    """
    kind = modality(MODALITY)
    axis = kind.axis()
    found = [
        vectors(
            coarse(np.stack([np.interp(axis * scale, axis, row, left=0, right=0) for row in values]), kind)
        )
        for scale in scales
    ]
    return np.stack(found)


def similarities(entries: Floats, queries: Floats) -> Floats:
    """Largest cosine [n, Q] over the S factors of vectors [n, WIDTH] and [S, Q, WIDTH]; 0 for zeros."""
    best: Floats = np.max([entries @ query.T for query in queries], axis=0)
    return best


@lru_cache(maxsize=1)
def _loaded() -> Network:
    network = Network()
    network.load_state_dict({name: values.float() for name, values in load_file(FILE).items()})
    return network.eval()
