"""Retrieval of held-out molecules against spectra that the model predicts for the gallery's structures.

Bare structures are enough, as for retrieval by embeddings. Both spectra are compared as in `comparable`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from molspectra.data.batch import Batch
from molspectra.data.store.store import Store
from molspectra.evaluation.predict import on_device
from molspectra.evaluation.ranking import answer_scores
from molspectra.evaluation.retrieval import AmongPeers, Gallery, joined, subsets
from molspectra.models.model import MolSpectra
from molspectra.spectra.modality import Modality, modality
from molspectra.training.data import in_order

POWER = 0.3
"""Exponent of the intensity: the smaller, the more do weak bands count; chosen on validation molecules."""

WEIGHTS: Mapping[str, float] = {"uv_vis": 0.1}
"""Weight of a modality's cosine beside others, 1 where none is given: the few bands of a UV-Vis spectrum are
predicted less well than those of vibrations. Chosen likewise."""

BIN_WIDTHS = 1 / 3
"""Width of a bin in full widths at half maximum of the modality's lines."""


def comparable(spectra: Tensor, kind: Modality) -> Tensor:
    """Spectra [n, points] as they are compared: binned, to the power `POWER`, unit length, [n, bins] float64.

    Points behind the last whole bin are left out; negative values count as zero; a spectrum of zeros stays
    one.
    """
    width = max(1, round(BIN_WIDTHS * kind.fwhm / kind.step))
    bins = spectra.shape[1] // width
    means = spectra[:, : bins * width].reshape(len(spectra), bins, width).mean(2)
    return F.normalize(means.clamp(min=0.0).double() ** POWER, dim=1)


@torch.no_grad()
def predicted_spectra(
    model: MolSpectra, store: Store, rows: npt.NDArray[np.int64], batch_size: int = 64
) -> dict[str, Tensor]:
    """Predict the spectra of a store's structures and return them as `comparable`, [n, bins] per modality.

    Raises:
        MismatchError: the model has no spectrum head.
    """
    model.eval()
    parts: dict[str, list[Tensor]] = {}
    for micro in in_order(store, rows, batch_size):
        batch = on_device(micro.batch, model)
        for name, spectra in model.predict_spectra(model.encode(batch), batch).items():
            parts.setdefault(name, []).append(comparable(spectra.cpu(), modality(name)))
    return {name: torch.cat(found) for name, found in parts.items()}


def retrieve_by_prediction(
    library: Mapping[str, Tensor],
    store: Store,
    queries: npt.NDArray[np.int64],
    gallery: Gallery,
    modalities: Sequence[str],
    batch_size: int = 256,
    change: Callable[[Batch], Batch] | None = None,
) -> dict[str, AmongPeers]:
    """Search the molecules of the query rows with every subset of their spectra.

    The score is the sum over the subset of the cosines of the query's spectra with the predicted ones, each
    with its weight of `WEIGHTS`.
    Queries that lack a spectrum of a subset are left out of it, and a subset without queries is left out.

    Args:
        library: what `predicted_spectra` gives for the gallery's rows.
        store: holds the queries.
        queries: rows, whose molecules must be in the gallery.
        gallery: what to search in.
        modalities: spectra to use.
        batch_size: queries whose scores are held at once.
        change: applied to the batches of queries.

    Returns:
        Ranks by the names of the subset.
    """
    number = {identity: n for n, identity in enumerate(gallery.identities)}
    identities = store.identities
    found: dict[str, list[AmongPeers]] = {}
    for start in range(0, len(queries), batch_size):
        rows = queries[start : start + batch_size]
        batch = store.batch(rows, modalities=modalities)
        batch = batch if change is None else change(batch)
        true = torch.tensor([number[identities[row]] for row in rows])
        cosines = {
            name: WEIGHTS.get(name, 1.0) * comparable(batch.spectra[name], modality(name)) @ library[name].T
            for name in modalities
        }
        for names in subsets(modalities):
            has_all = torch.stack([batch.present[name] for name in names]).all(0)
            if not bool(has_all.any()):
                continue
            scores = torch.stack([cosines[name][has_all] for name in names]).sum(0)
            among = gallery.ranked(answer_scores(scores, gallery.answer), true[has_all])
            found.setdefault(" + ".join(names), []).append(among)
    return {label: joined(parts) for label, parts in found.items()}
