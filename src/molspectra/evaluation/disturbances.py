"""Robustness of retrieval to what sets measured spectra apart: the queries disturbed, one way at a time.

Three searches are compared. `model`: the model reads the disturbed spectra as they are. `prepared`: it reads
them after the pipeline for measured spectra. `similarity`: no model, the cosine of the disturbed spectra with
the computed ones of the gallery's molecules, all after the pipeline. The last one is given the spectra of the
true molecules, which the model has never seen, so that it finds every one where nothing is disturbed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from molspectra.data.batch import Batch
from molspectra.data.random import Purpose, normal, seed_for, uniform
from molspectra.data.store.store import Broadening, Store
from molspectra.errors import NotFoundError
from molspectra.evaluation.predicted_retrieval import retrieve_by_prediction
from molspectra.evaluation.ranking import RankFigures, answer_scores, rank_figures, ranks
from molspectra.evaluation.retrieval import Gallery, figures_of, known_modalities, retrieve
from molspectra.models.model import MolSpectra
from molspectra.spectra.distortion import cut, drifted, moved, noised, widened
from molspectra.spectra.measured import Preparation, prepare
from molspectra.spectra.modality import Modality, modality

Change = Callable[[Tensor, Modality, Tensor], Tensor]
"""Spectra [B, points] of a modality and molecule ids [B], to disturbed spectra [B, points]."""

_Transform = Callable[[Batch], Batch]

SMOOTHING = 0.75
"""Window of the pipeline's filter, in line widths: 9 cm⁻¹; at least five points."""

SAMPLED = 256
"""Training rows whose mean area is taken."""


@dataclass(frozen=True)
class Disturbance:
    """One way to disturb a spectrum, and how strongly.

    Attributes:
        name: kind of disturbance.
        strength: how strong, as text.
        change: applied to the sampled spectra.
        width: full width at half maximum with which lines are broadened before, in units of the modality's
            own width.
    """

    name: str
    strength: str
    change: Change
    width: float = 1.0


def disturbances() -> tuple[Disturbance, ...]:
    """Return all reported disturbances; lengths are those of IR and Raman, elsewhere as many line widths."""
    return (
        Disturbance("none", "", lambda spectra, *_: spectra),
        *(Disturbance("noise", f"{size:.0%} of the maximum", _noise(size)) for size in (0.01, 0.02, 0.05)),
        *(Disturbance("baseline drift", f"{size:.0%} of the maximum", _drift(size)) for size in (0.02, 0.1)),
        *(Disturbance("shift", f"±{shift} cm⁻¹", _shift(shift / 12)) for shift in (2, 5, 10)),
        *(Disturbance("scale", f"× {scale:g}", _scale(scale)) for scale in (0.99, 0.98, 0.95)),
        Disturbance("width", "4 cm⁻¹", lambda spectra, *_: spectra, 1 / 3),
        *(Disturbance("width", f"{width} cm⁻¹", _wider(width / 12 - 1)) for width in (20, 40)),
        *(Disturbance("crop", f"{share:.0%} at either end", _crop(share)) for share in (0.05, 0.2)),
        *(Disturbance("intensity", f"× {factor:g}", _gain(factor)) for factor in (0.1, 10.0)),
    )


def _noise(size: float) -> Change:
    def change(spectra: Tensor, kind: Modality, ids: Tensor) -> Tensor:
        noise = normal(
            seed_for(0, kind.name), 0, ids, Purpose.SAMPLE_NOISE, torch.ones_like(ids), kind.points
        )
        return noised(spectra, noise, size)

    return change


def _drift(size: float) -> Change:
    def change(spectra: Tensor, kind: Modality, ids: Tensor) -> Tensor:
        periods, phase = uniform(seed_for(0, kind.name), 0, ids, Purpose.DISTORTION, 2).unbind(1)
        return drifted(spectra, size, periods, phase)

    return change


def _shift(widths: float) -> Change:
    def change(spectra: Tensor, kind: Modality, ids: Tensor) -> Tensor:
        downwards = uniform(seed_for(0, kind.name), 0, ids, Purpose.DISTORTION, 1)[:, 0] < 0.5
        return moved(spectra, kind, 1.0, torch.where(downwards, -widths, widths) * kind.fwhm)

    return change


def _scale(factor: float) -> Change:
    return lambda spectra, kind, *_: moved(spectra, kind, factor)


def _wider(widths: float) -> Change:
    return lambda spectra, kind, *_: widened(spectra, kind, widths * kind.fwhm)


def _crop(share: float) -> Change:
    return lambda spectra, *_: cut(spectra, share, share)


def _gain(factor: float) -> Change:
    return lambda spectra, *_: spectra * factor


def disturbed(batch: Batch, store: Store, disturbance: Disturbance) -> Batch:
    """Return a batch of the store's rows with its spectra disturbed; what falls below zero is 0.

    The random numbers depend only on the molecule and the modality.
    """
    if disturbance.width != 1:
        widths = {
            name: Broadening(fwhm=disturbance.width * modality(name).fwhm)
            for name in batch.spectra
            if name in store.metadata.lines
        }
        broadened = store.batch(batch.row, modalities=tuple(batch.spectra), broadening=widths)
        batch = replace(batch, spectra=broadened.spectra)
    spectra = {}
    for name, spectrum in batch.spectra.items():
        changed = disturbance.change(spectrum, modality(name), batch.geometry_id)
        spectra[name] = changed.clamp(min=0.0) * batch.present[name].unsqueeze(1)
    return replace(batch, spectra=spectra)


def prepared(batch: Batch, settings: Mapping[str, Preparation]) -> Batch:
    """Return a batch whose spectra went through the pipeline, each modality with its own settings."""
    spectra = {
        name: prepare(values, modality(name), settings[name]) for name, values in batch.spectra.items()
    }
    return replace(batch, spectra=spectra)


def typical_preparation(
    store: Store, rows: npt.NDArray[np.int64], modalities: Sequence[str]
) -> dict[str, Preparation]:
    """Return settings with baseline, smoothing and the mean area of a model's training spectra, by modality.

    A model reads intensities as they are, so that a measured spectrum needs an area as in training.

    Args:
        store: of the training spectra.
        rows: training rows, of which at most `SAMPLED` are read, evenly spaced.
        modalities: names of the modalities.

    Raises:
        NotFoundError: none of the rows has a spectrum of a modality.
    """
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, min(SAMPLED, len(rows))).astype(np.int64))]
    batch = store.batch(chosen, modalities=tuple(modalities))
    preparations = {}
    for name in modalities:
        kind, present = modality(name), batch.present[name]
        if not bool(present.any()):
            raise NotFoundError(f"none of {len(chosen)} training rows has a {name} spectrum")
        smoothing = max(SMOOTHING * kind.fwhm, 5 * kind.step)  # as many points as a cubic leaves freedom
        plain = Preparation(baseline="als", smoothing=smoothing, normalisation="none")
        area = float(prepare(batch.spectra[name][present], kind, plain).double().sum(1).mean()) * kind.step
        preparations[name] = replace(plain, normalisation="area", level=area)
    return preparations


def disturbed_retrieval(
    model: MolSpectra,
    store: Store,
    queries: npt.NDArray[np.int64],
    gallery: Gallery,
    settings: Mapping[str, Preparation],
    modalities: Sequence[str],
    *,
    similarity: str = "cosine",
    batch_size: int = 64,
    predicted: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> list[dict[str, Any]]:
    """Search the queries under every disturbance.

    Args:
        model: a stage-2 model.
        store: holds the queries and the gallery.
        queries: rows.
        gallery: structures to search in.
        settings: the pipeline, by modality; see `typical_preparation`.
        modalities: spectra to use together.
        similarity: of the model's embeddings, "cosine" or "inner".
        batch_size: molecules per pass.
        predicted: spectra of the gallery's structures to search in too, as `predicted_spectra` gives them, by
            the name of what has predicted them; compared with the disturbed spectra as they are.

    Returns:
        One entry per disturbance (without smaller widths where the store has no lines), the undisturbed
        first: "disturbance", "strength", and for each of "model", "prepared", "similarity" and the names in
        `predicted` a dictionary of its recall and MRR.

    Raises:
        InputError: as `retrieve`.
    """
    names = known_modalities(model, modalities)
    by_similarity = _similarity_search(
        store, queries, gallery, names, lambda batch: prepared(batch, settings), batch_size
    )
    options: dict[str, Any] = {"similarity": similarity, "batch_size": batch_size}
    table = []
    for disturbance in disturbances():
        if disturbance.width != 1 and not set(names) <= store.metadata.lines.keys():
            continue  # samples cannot be broadened anew

        def change(batch: Batch, disturbance: Disturbance = disturbance) -> Batch:
            return disturbed(batch, store, disturbance)

        def change_and_prepare(batch: Batch, change: _Transform = change) -> Batch:
            return prepared(change(batch), settings)

        searches = {
            "model": retrieve(model, store, queries, gallery, names, change=change, **options).figures(),
            "prepared": retrieve(
                model, store, queries, gallery, names, change=change_and_prepare, **options
            ).figures(),
            "similarity": by_similarity(change_and_prepare),
        }
        figures = {name: {"recall": result.recall, "mrr": result.mrr} for name, result in searches.items()}
        for method, library in (predicted or {}).items():
            found = retrieve_by_prediction(library, store, queries, gallery, names, change=change)
            among = figures_of(found[" + ".join(names)])
            figures[method] = {name: among[name] for name in ("recall", "mrr")}
        table.append({"disturbance": disturbance.name, "strength": disturbance.strength, **figures})
    return table


def _similarity_search(
    store: Store,
    queries: npt.NDArray[np.int64],
    gallery: Gallery,
    names: tuple[str, ...],
    change: _Transform,
    size: int,
) -> Callable[[_Transform], RankFigures]:
    """Return a search without a model, by the mean cosine over the modalities that both have.

    The spectra of the gallery go through `change`, those of the queries through the transform searched with.
    """
    chunks = _unit_spectra(store, gallery.rows, names, change, size)
    library, in_library = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    identities = store.identities
    number = {identity: n for n, identity in enumerate(gallery.identities)}
    rows = queries[np.stack([store.has(name)[queries] for name in names]).any(0)]
    true = torch.tensor([number[identities[row]] for row in rows])

    def search(transform: _Transform) -> RankFigures:
        chunk_ranks = []
        chunks = _unit_spectra(store, rows, names, transform, size)
        for (spectra, present), own in zip(chunks, true.split(size), strict=True):
            shared = present.double() @ in_library.double().T  # [b, G] number of common modalities
            scores = (spectra @ library.T) / shared.clamp(min=1)
            chunk_ranks.append(ranks(answer_scores(scores, gallery.answer), own))
        rank = torch.cat(chunk_ranks)
        return rank_figures(rank, torch.full_like(rank, len(gallery)))

    return search


def _unit_spectra(
    store: Store, rows: npt.NDArray[np.int64], names: tuple[str, ...], change: _Transform, size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield unit spectra, the S modalities concatenated, [b, all points], and their presence, [b, S] bool."""
    for start in range(0, len(rows), size):
        batch = change(store.batch(rows[start : start + size], modalities=names))
        spectra = [F.normalize(batch.spectra[name], dim=1) for name in names]
        yield torch.cat(spectra, dim=1), torch.stack([batch.present[name] for name in names], dim=1)
