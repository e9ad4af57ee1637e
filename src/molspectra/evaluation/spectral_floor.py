"""Spectra by kernel ridge regression on distances: what a search against predicted spectra has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import cdist, pdist
from torch import Tensor
from torch.nn import functional as F

from molspectra.chem.molecule import Molecule
from molspectra.data.store.store import Store
from molspectra.evaluation.predicted_retrieval import comparable
from molspectra.spectra.modality import modality
from molspectra.training.data import Rows

Floats = npt.NDArray[np.float64]

LEARNT = 2_000
"""At most so many molecules are learnt from, evenly spaced: the time grows with their cube."""

WIDTHS = (0.5, 1.0, 2.0)
"""Lengths of the kernel that are tried, in medians of the distance of two molecules."""

PENALTIES = (1e-4, 1e-2, 1e-1)
"""Penalties that are tried; all are chosen on a tenth of the molecules."""

_GRID = np.arange(0.8, 6.0, 0.1)  # Å


def distances(molecules: Sequence[Molecule], elements: Sequence[int]) -> Floats:
    """Numbers of atoms of each element, and histograms of the distances of each pair of elements, [n, D].

    A pair counts 1/d² in a Gaussian of 0.1 Å, as in two-body terms of a many-body tensor representation
    (H. Huo and M. Rupp, arXiv:1704.06439). Other elements than those given are left out.
    """
    pairs = list(combinations_with_replacement(sorted(elements), 2))
    found = np.zeros((len(molecules), len(elements) + len(pairs) * len(_GRID)))
    for row, molecule in zip(found, molecules, strict=True):
        numbers = np.asarray(molecule.numbers)
        row[: len(elements)] = [(numbers == element).sum() for element in sorted(elements)]
        first, second = np.triu_indices(len(numbers), 1)
        apart = pdist(molecule.positions)
        low, high = (f(numbers[first], numbers[second]) for f in (np.minimum, np.maximum))
        for index, pair in enumerate(pairs):
            own = apart[(low == pair[0]) & (high == pair[1])]
            start = len(elements) + index * len(_GRID)
            bumps = np.exp(-0.5 * ((_GRID[:, None] - own) / 0.1) ** 2) / own**2
            row[start : start + len(_GRID)] = bumps.sum(1)
    return found


def floor_spectra(store: Store, fit: Rows, rows: Rows, modalities: Sequence[str]) -> dict[str, Tensor]:
    """Spectra of rows of a store, learnt from those of other rows, as `comparable`: [n, bins] by modality.

    Of a row that is learnt from, the spectrum is that of a fit without it (leave-one-out): else all of these
    had their own sharp spectra, and a query would be told by the blur of the few that were not learnt.

    Args:
        store: holds all.
        fit: rows to learn from, those of them that have a spectrum, at most `LEARNT`.
        rows: whose spectra are predicted.
        modalities: one without a spectrum to learn from is left out.
    """
    molecules = [store.molecule(int(row)) for row in rows]
    found = {}
    for name in modalities:
        having = fit[store.has(name)[fit]]
        if len(having) < 10:
            continue
        places = np.unique(np.linspace(0, len(having) - 1, min(LEARNT, len(having))).astype(np.int64))
        chosen = having[places]
        known = [store.molecule(int(row)) for row in chosen]
        elements = sorted({int(number) for molecule in known for number in molecule.numbers})
        spectra = comparable(store.batch(chosen, modalities=(name,)).spectra[name], modality(name)).numpy()
        features = distances(molecules, elements)
        predicted, without = kernel_ridge(distances(known, elements), spectra, features)
        place = {int(row): index for index, row in enumerate(chosen)}
        for index, row in enumerate(rows):
            if int(row) in place:
                predicted[index] = without[place[int(row)]]
        found[name] = F.normalize(torch.from_numpy(predicted).clamp(min=0), dim=1)
    return found


def kernel_ridge(known: Floats, targets: Floats, asked: Floats) -> tuple[Floats, Floats]:
    """Kernel ridge regression with exp(−d/w), from [n, D] and [n, T] for [m, D].

    Width and penalty are those with the least squared error on every tenth of the n, learnt from the rest.

    Returns:
        Values [m, T]; and [n, T] of every known one by a fit without it, which is y − α / diag(C) for the
        inverse C of the kernel with its penalty and α = C y.
    """
    apart, to_asked = cdist(known, known), cdist(asked, known)
    median = float(np.median(apart[apart > 0])) if (apart > 0).any() else 1.0
    held = np.arange(len(known)) % 10 == 0

    def factor(width: float, penalty: float, rows: npt.NDArray[np.bool_]) -> Any:
        kernel = np.exp(-apart[np.ix_(rows, rows)] / width)
        kernel[np.diag_indices(len(kernel))] += penalty
        return cho_factor(kernel)

    mean, errors = targets[~held].mean(0), {}
    for width in (share * median for share in WIDTHS):
        kernel = np.exp(-apart[np.ix_(held, ~held)] / width)
        for penalty in PENALTIES:
            guess = mean + kernel @ cho_solve(factor(width, penalty, ~held), targets[~held] - mean)
            errors[width, penalty] = float(np.square(guess - targets[held]).mean())
    width, penalty = min(errors, key=errors.__getitem__)
    inverse = cho_solve(factor(width, penalty, held | ~held), np.eye(len(known)))
    weights = inverse @ (targets - mean)
    values = mean + np.exp(-to_asked / width) @ weights
    return np.asarray(values), np.asarray(targets - weights / np.diag(inverse)[:, None])
