"""Attention maps of a trained spectrum encoder over wavenumbers: averaged over molecules, or of one sample.

The encoder never stores its attention; here the softmax is recomputed from the queries and keys of a forward
pass, in chunks of molecules. Layer l attends with the sum of the scores of the layers up to l (residual
attention, method, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from molspectra.data.store.store import Store
from molspectra.errors import MismatchError, NotFoundError
from molspectra.evaluation.predict import on_device
from molspectra.evaluation.subject import open_subject
from molspectra.models.formulas import split_heads
from molspectra.models.specformer import SpecFormer, transform
from molspectra.spectra.modality import Modality
from molspectra.training.data import in_order

LIMIT = 256
"""At most this many molecules are averaged."""

BATCH = 8
"""Molecules at a time: the scores of one take heads x T x T numbers, 8 MB as published."""


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """Mean attention of a spectrum encoder.

    Attributes:
        run: the run directory.
        rows: [n] rows of the store that were averaged; all have the same modalities.
        kinds: modalities with the encoder's patches, in the order of the T tokens.
        heads: number of heads.
        matrix: [layers, T, T] attention weight of each query token (row) on each key token (column), the mean
            over molecules and heads; every row adds up to 1.
        spectra: mean of log10(s + 1) by modality, [points] each.
    """

    run: str
    rows: npt.NDArray[np.int64]
    kinds: dict[str, Modality]
    heads: int
    matrix: npt.NDArray[np.float64]
    spectra: dict[str, npt.NDArray[np.float64]]

    @property
    def layers(self) -> range:
        """Numbers of the layers, from 1."""
        return range(1, len(self.matrix) + 1)

    def received(self) -> dict[str, npt.NDArray[np.float64]]:
        """Mean attention that each patch receives from all tokens, by modality, [layers, patches] each.

        In units of uniform attention: 1 is what every patch receives if all weights are equal.
        """
        return _received(self.matrix, self.kinds)

    def blocks(self) -> npt.NDArray[np.float64]:
        """Share of the attention from one modality's tokens that goes to another's, [layers, S, S].

        Rows are the modalities of the queries, columns those of the keys; every row adds up to 1.
        """
        slices = list(token_slices(self.kinds).values())
        to_modality = np.stack([self.matrix[:, :, keys].sum(axis=2) for keys in slices], axis=2)
        return np.stack([to_modality[:, queries].mean(axis=1) for queries in slices], axis=1)

    def uniform(self) -> list[float]:
        """Share of each modality in the tokens, [S]: the rows of `blocks` under uniform attention."""
        return [kind.patches / self.matrix.shape[1] for kind in self.kinds.values()]

    def plain(self) -> dict[str, Any]:
        """Return JSON values, without the full matrix."""
        received, spectra = self.received(), self.spectra
        return {
            "run": self.run,
            "part": "test",
            "molecules": len(self.rows),
            "rows": self.rows.tolist(),
            "layers": list(self.layers),
            "heads": list(range(1, self.heads + 1)),
            "blocks": {
                "modalities": list(self.kinds),
                "uniform": self.uniform(),
                "layers": self.blocks().tolist(),
            },
            "modalities": {
                name: {
                    "unit": kind.unit,
                    "patch": kind.patch,
                    "centres": patch_centres(kind).tolist(),
                    "received": received[name].tolist(),
                    "mean_log_spectrum": np.round(spectra[name], 6).tolist(),
                }
                for name, kind in self.kinds.items()
            },
        }


def patch_centres(kind: Modality) -> npt.NDArray[np.float64]:
    """Centre of every patch in the unit of the modality's axis, [patches]."""
    first = np.arange(kind.patches) * kind.stride
    axis = kind.axis()
    return np.asarray((axis[first] + axis[first + kind.patch - 1]) / 2)


def token_slices(kinds: Mapping[str, Modality]) -> dict[str, slice]:
    """Slice of the tokens that belong to each modality, in the order of the tokens."""
    ends = np.cumsum([0, *(kind.patches for kind in kinds.values())]).tolist()
    return {name: slice(*pair) for name, pair in zip(kinds, pairwise(ends), strict=True)}


def _received(
    matrix: npt.NDArray[np.float64], kinds: Mapping[str, Modality]
) -> dict[str, npt.NDArray[np.float64]]:
    """Attention [layers, patches] that each patch receives, by modality, of weights [layers, T, T]."""
    share = matrix.mean(axis=1) * matrix.shape[1]
    return {name: share[:, tokens] for name, tokens in token_slices(kinds).items()}


def attention_of(
    encoder: SpecFormer, spectra: Mapping[str, npt.NDArray[np.floating]]
) -> dict[str, npt.NDArray[np.float64]]:
    """Attention that the points of one sample's spectra receive in the last layer, [points] by modality.

    The mean over heads and tokens, in units of uniform attention, and over the patches that cover a point; 0
    where none does. Scores are added up over the layers, so the last layer has those of all.

    Args:
        encoder: in evaluation mode.
        spectra: [points] intensities by modality, in its unit; of modalities that the encoder reads.
    """
    kinds = {name: kind for name, kind in encoder.kinds.items() if name in spectra}
    weight = next(encoder.parameters())
    rows = {name: torch.tensor(spectra[name][None]).to(weight.device, weight.dtype) for name in kinds}
    last = layer_attention(encoder, rows)[-1].double().mean(1).cpu().numpy()  # [1, T, T]
    return {name: over_axis(parts[0], kinds[name]) for name, parts in _received(last, kinds).items()}


def over_axis(patches: npt.NDArray[np.float64], kind: Modality) -> npt.NDArray[np.float64]:
    """Values [points] of the points of an axis: the mean of the patches [patches] that cover each, else 0."""
    totals, counts = np.zeros(kind.points), np.zeros(kind.points)
    for number, value in enumerate(patches):
        covered = slice(number * kind.stride, number * kind.stride + kind.patch)
        totals[covered] += value
        counts[covered] += 1
    return totals / np.maximum(counts, 1)


def attention_map(run_dir: str | Path) -> AttentionMap:
    """Compute the mean attention of a stage-2 run's best model over whole, unmasked spectra of the test part.

    Taken are the first `LIMIT` molecules among those with the most modalities.

    Raises:
        InputError: not a stage-2 run, its store is gone or changed, or no molecule has a spectrum.
    """
    run = Path(run_dir)
    subject = open_subject(run, run, "test", allow_other_data=False, device="cpu")
    encoder = subject.model.spectrum_encoder
    if encoder is None:
        raise MismatchError(f"{run_dir}: has no spectrum encoder; attention maps need a stage-2 run")
    store = subject.selection.store
    names, rows = most_complete(store, subject.rows, tuple(encoder.kinds))
    rows = rows[:LIMIT]
    # sums over molecules, and means at the end
    kinds = {name: encoder.kinds[name] for name in names}
    matrix = np.zeros((encoder.config.layers, *[sum(kind.patches for kind in kinds.values())] * 2))
    sums = {name: np.zeros(kind.points) for name, kind in kinds.items()}
    for micro in in_order(store, rows, BATCH, modalities=names):
        spectra = on_device(micro.batch, subject.model).spectra
        for name in names:
            sums[name] += transform(spectra[name]).double().sum(0).numpy()
        for index, weights in enumerate(layer_attention(encoder, spectra)):
            matrix[index] += weights.double().mean(1).sum(0).numpy()
    return AttentionMap(
        run=str(run_dir),
        rows=rows,
        kinds=kinds,
        heads=encoder.config.heads,
        matrix=matrix / len(rows),
        spectra={name: total / len(rows) for name, total in sums.items()},
    )


@torch.no_grad()
def layer_attention(encoder: SpecFormer, spectra: dict[str, Tensor]) -> list[Tensor]:
    """Compute the attention weights [B, H, T, T] of every layer for raw spectra [B, points].

    Every molecule has all the given spectra.
    """
    captured: list[tuple[list[Tensor], list[Tensor], float]] = []

    def capture(module: Any, arguments: tuple[Any, ...], output: Tensor) -> None:
        queries, keys = ([split_heads(layer, module.heads) for layer in part] for part in arguments[1:3])
        captured.append((queries, keys, float(module.scale)))

    last: Any = encoder.layers[-1]  # is given the queries and keys of all layers
    handle = last.attention.register_forward_hook(capture)
    try:
        encoder(spectra)
    finally:
        handle.remove()
    queries, keys, scale = captured[0]
    scores = torch.zeros(())
    weights = []
    for query, key in zip(queries, keys, strict=True):
        scores = scores.to(query) + query @ key.transpose(-1, -2) * scale
        weights.append(scores.softmax(-1))
    return weights


def most_complete(
    store: Store, rows: npt.NDArray[np.int64], names: Sequence[str]
) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Return the largest set of modalities that any row has, and the rows that have exactly these.

    Of sets of the same size, the one that more rows have is taken.

    Raises:
        NotFoundError: no row has any spectrum.
    """
    known = [name for name in names if name in store.metadata.modalities]
    present = np.array([store.has(name)[rows] for name in known], dtype=bool).reshape(len(known), len(rows))
    patterns, inverse, counts = np.unique(present, axis=1, return_inverse=True, return_counts=True)
    sizes = patterns.sum(axis=0)
    if not len(rows) or not sizes.max(initial=0):
        raise NotFoundError(f"{store.path}: none of the {len(rows)} molecules has a spectrum")
    best = max(range(len(counts)), key=lambda column: (sizes[column], counts[column]))
    chosen = tuple(name for name, has in zip(known, patterns[:, best], strict=True) if has)
    return chosen, rows[inverse.reshape(-1) == best]
