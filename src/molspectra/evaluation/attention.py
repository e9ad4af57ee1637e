"""Attention maps of a trained spectrum encoder over wavenumbers, averaged over molecules.

The encoder never stores its attention; here the softmax is recomputed from the queries and keys of a forward
pass, in chunks of molecules. Layer l attends with the sum of the scores of the layers up to l (residual
attention, method, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
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
"""At most this many molecules are averaged, unless rows are given."""


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """Mean attention of a spectrum encoder.

    Attributes:
        run: the run directory.
        part: part of the split that the molecules are from, "" where rows were given.
        rows: [n] rows of the store that were averaged; all have the same modalities.
        kinds: modalities with the encoder's patches, in the order of the T tokens.
        layers: numbers of the layers, from 1.
        heads: numbers of the heads that were averaged, from 1.
        matrix: [layers, T, T] attention weight of each query token (row) on each key token (column), the mean
            over molecules and heads; every row adds up to 1.
        spectra: mean of log10(s + 1) by modality, [points] each.
    """

    run: str
    part: str
    rows: npt.NDArray[np.int64]
    kinds: dict[str, Modality]
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    matrix: npt.NDArray[np.float64]
    spectra: dict[str, npt.NDArray[np.float64]]

    def token_slices(self) -> dict[str, slice]:
        """Slice of the tokens that belong to each modality."""
        ends = np.cumsum([0, *(kind.patches for kind in self.kinds.values())]).tolist()
        return {name: slice(*pair) for name, pair in zip(self.kinds, pairwise(ends), strict=True)}

    def received(self) -> dict[str, npt.NDArray[np.float64]]:
        """Mean attention that each patch receives from all tokens, by modality, [layers, patches] each.

        In units of uniform attention: 1 is what every patch receives if all weights are equal.
        """
        share = self.matrix.mean(axis=1) * self.matrix.shape[1]
        return {name: share[:, tokens] for name, tokens in self.token_slices().items()}

    def blocks(self) -> npt.NDArray[np.float64]:
        """Share of the attention from one modality's tokens that goes to another's, [layers, S, S].

        Rows are the modalities of the queries, columns those of the keys; every row adds up to 1.
        """
        slices = list(self.token_slices().values())
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
            "part": self.part,
            "molecules": len(self.rows),
            "rows": self.rows.tolist(),
            "layers": list(self.layers),
            "heads": list(self.heads),
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


def attention_map(
    run_dir: str | Path,
    rows: Sequence[int] | npt.NDArray[np.int64] | None = None,
    *,
    part: str = "test",
    limit: int = LIMIT,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    batch_size: int = 8,
    store: str | None = None,
    allow_other_data: bool = False,
    device: str = "cpu",
) -> AttentionMap:
    """Compute the mean attention of a stage-2 run's best model over whole, unmasked spectra.

    Args:
        run_dir: a stage-2 run.
        rows: rows of its store; None takes the part's first `limit` molecules among those with the most
            modalities. Of given rows, too, those with the most modalities are used.
        part: part of the run's split.
        limit: at most so many molecules of the part; 0 for all.
        layers: numbers of the layers from 1; None takes all.
        heads: numbers of the heads from 1 to average; None takes all.
        batch_size: molecules at a time (the scores of one take heads x T x T numbers: 8 MB as published).
        store: another path of the run's store.
        allow_other_data: accept a store with other content.
        device: where to compute.

    Raises:
        InputError: not a stage-2 run, no such layer, head or row, or no molecule with a spectrum.
    """
    subject = open_subject(
        Path(run_dir), Path(run_dir), part, store, allow_other_data=allow_other_data, device=device
    )
    encoder = subject.model.spectrum_encoder
    if encoder is None:
        raise MismatchError(f"{run_dir}: has no spectrum encoder; attention maps need a stage-2 run")
    chosen_layers = _numbers(layers, encoder.config.layers, "layer")
    chosen_heads = _numbers(heads, encoder.config.heads, "head")
    # the rows to average, all with the same modalities
    data = subject.selection.store
    candidates = subject.rows if rows is None else np.asarray(rows, dtype=np.int64)
    if len(candidates) and (candidates.min() < 0 or candidates.max() >= len(data)):
        raise NotFoundError(f"{run_dir}: rows must lie between 0 and {len(data) - 1}")
    names, averaged = most_complete(data, candidates, tuple(encoder.kinds))
    if rows is None and limit:
        averaged = averaged[:limit]
    # sums over molecules, and means at the end
    kinds = {name: encoder.kinds[name] for name in names}
    matrix = np.zeros((len(chosen_layers), *[sum(kind.patches for kind in kinds.values())] * 2))
    sums = {name: np.zeros(kind.points) for name, kind in kinds.items()}
    for micro in in_order(data, averaged, batch_size, modalities=names):
        spectra = on_device(micro.batch, subject.model).spectra
        for name in names:
            sums[name] += transform(spectra[name]).double().sum(0).cpu().numpy()
        for index, weights in enumerate(layer_attention(encoder, spectra, chosen_layers)):
            of_heads = weights[:, [head - 1 for head in chosen_heads]]  # [B, heads, T, T]
            matrix[index] += of_heads.double().mean(1).sum(0).cpu().numpy()
    return AttentionMap(
        run=str(run_dir),
        part=part if rows is None else "",
        rows=averaged,
        kinds=kinds,
        layers=chosen_layers,
        heads=chosen_heads,
        matrix=matrix / len(averaged),
        spectra={name: total / len(averaged) for name, total in sums.items()},
    )


@torch.no_grad()
def layer_attention(encoder: SpecFormer, spectra: dict[str, Tensor], layers: Sequence[int]) -> list[Tensor]:
    """Compute the attention weights [B, H, T, T] of the chosen layers (from 1) for raw spectra [B, points].

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
    weights = {}
    for number, (query, key) in enumerate(zip(queries, keys, strict=True), start=1):
        scores = scores.to(query) + query @ key.transpose(-1, -2) * scale
        if number in layers:
            weights[number] = scores.softmax(-1)
    return [weights[number] for number in layers]


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


def _numbers(chosen: Sequence[int] | None, count: int, what: str) -> tuple[int, ...]:
    """Return the chosen numbers from 1 to count, ascending without repeats; all for None."""
    if chosen is None:
        return tuple(range(1, count + 1))
    numbers = tuple(sorted(set(chosen)))
    if not numbers or numbers[0] < 1 or numbers[-1] > count:
        raise NotFoundError(f"there is no {what} {list(chosen)}; choose from 1 to {count}")
    return numbers
