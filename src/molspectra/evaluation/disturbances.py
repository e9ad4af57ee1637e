"""How retrieval stands what sets measured spectra apart: the queries disturbed, one way at a time.

Three searches are compared. `model`: the model reads the disturbed spectra as they are. `prepared`: it reads
them behind the pipeline for measured spectra. `similarity`: no model at all, the cosine of the disturbed
spectra with the computed ones of the gallery's molecules, all behind the pipeline. The last one is given the
spectra of the true molecules, which the model has never seen, so that undisturbed it finds every one.
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
from molspectra.errors import InputError
from molspectra.evaluation.ranking import RankFigures, answer_scores, rank_figures, ranks
from molspectra.evaluation.retrieval import Gallery, known_modalities, retrieve
from molspectra.models.model import MolSpectra
from molspectra.spectra.distortion import cut, drifted, moved, noised, widened
from molspectra.spectra.measured import Preparation, prepare
from molspectra.spectra.modality import Modality, modality

Change = Callable[[Tensor, Modality, Tensor, int], Tensor]
"""Spectra [B, points] of a modality, molecule ids [B] and a seed, to disturbed spectra [B, points]."""

_Treat = Callable[[Batch], Batch]

SMOOTHING = 0.75
"""Window of the pipeline's filter, in line widths: 9 cm⁻¹; at least five points."""


@dataclass(frozen=True)
class Disturbance:
    """One way to disturb a spectrum, and how strongly.

    Attributes:
        name: the way.
        strength: how strongly, for people.
        change: what happens to samples.
        width: full width at half maximum that lines are broadened with before, in the modality's own.
    """

    name: str
    strength: str
    change: Change
    width: float = 1.0


def disturbances() -> tuple[Disturbance, ...]:
    """All that are reported; lengths are those of IR and Raman, elsewhere as many line widths."""
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
    def change(spectra: Tensor, kind: Modality, ids: Tensor, seed: int) -> Tensor:
        drawn = normal(
            seed_for(seed, kind.name), 0, ids, Purpose.SAMPLE_NOISE, torch.ones_like(ids), kind.points
        )
        return noised(spectra, drawn, size)

    return change


def _drift(size: float) -> Change:
    def change(spectra: Tensor, kind: Modality, ids: Tensor, seed: int) -> Tensor:
        periods, phase = uniform(seed_for(seed, kind.name), 0, ids, Purpose.DISTORTION, 2).unbind(1)
        return drifted(spectra, size, periods, phase)

    return change


def _shift(widths: float) -> Change:
    def change(spectra: Tensor, kind: Modality, ids: Tensor, seed: int) -> Tensor:
        side = uniform(seed_for(seed, kind.name), 0, ids, Purpose.DISTORTION, 1)[:, 0] < 0.5
        return moved(spectra, kind, 1.0, torch.where(side, -widths, widths) * kind.fwhm)

    return change


def _scale(factor: float) -> Change:
    return lambda spectra, kind, *_: moved(spectra, kind, factor)


def _wider(widths: float) -> Change:
    return lambda spectra, kind, *_: widened(spectra, kind, widths * kind.fwhm)


def _crop(share: float) -> Change:
    return lambda spectra, *_: cut(spectra, share, share)


def _gain(factor: float) -> Change:
    return lambda spectra, *_: spectra * factor


def disturbed(batch: Batch, store: Store, how: Disturbance, seed: int = 0) -> Batch:
    """Return a batch of the store's rows with its spectra disturbed; what falls below zero is 0.

    The random numbers depend on the seed, the molecule and the modality alone.
    """
    if how.width != 1:
        widths = {
            name: Broadening(fwhm=how.width * modality(name).fwhm)
            for name in batch.spectra
            if name in store.metadata.lines
        }
        again = store.batch(batch.row, modalities=tuple(batch.spectra), broadening=widths)
        batch = replace(batch, spectra=again.spectra)
    spectra = {}
    for name, spectrum in batch.spectra.items():
        changed = how.change(spectrum, modality(name), batch.geometry_id, seed)
        spectra[name] = changed.clamp(min=0.0) * batch.present[name].unsqueeze(1)
    return replace(batch, spectra=spectra)


def prepared(batch: Batch, settings: Mapping[str, Preparation]) -> Batch:
    """Return a batch whose spectra went through the pipeline, each modality with its own settings."""
    spectra = {name: prepare(each, modality(name), settings[name]) for name, each in batch.spectra.items()}
    return replace(batch, spectra=spectra)


def typical_preparation(
    store: Store, rows: npt.NDArray[np.int64], modalities: Sequence[str], limit: int = 256
) -> dict[str, Preparation]:
    """Baseline, smoothing and the mean area of a model's training spectra, by modality.

    A model reads intensities as they are, so that a measured spectrum needs an area that it knows.

    Args:
        store: of the training spectra.
        rows: training rows.
        modalities: which.
        limit: at most this many rows are looked at, evenly taken from all.

    Raises:
        InputError: no row has such a spectrum.
    """
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, min(limit, len(rows))).astype(np.int64))]
    batch = store.batch(chosen, modalities=tuple(modalities))
    found = {}
    for name in modalities:
        kind, here = modality(name), batch.present[name]
        if not bool(here.any()):
            raise InputError(f"none of {len(chosen)} training rows has a {name} spectrum")
        smoothing = max(SMOOTHING * kind.fwhm, 5 * kind.step)  # as many points as a cubic leaves freedom
        plain = Preparation(baseline="als", smoothing=smoothing, normalisation="none")
        area = float(prepare(batch.spectra[name][here], kind, plain).double().sum(1).mean()) * kind.step
        found[name] = replace(plain, normalisation="area", level=area)
    return found


def disturbed_retrieval(
    model: MolSpectra,
    store: Store,
    queries: npt.NDArray[np.int64],
    gallery: Gallery,
    settings: Mapping[str, Preparation],
    modalities: Sequence[str] | None = None,
    *,
    similarity: str = "cosine",
    batch_size: int = 64,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Search the queries under every disturbance.

    Args:
        model: a stage-2 model.
        store: holds the queries and the gallery.
        queries: rows.
        gallery: what to search in.
        settings: the pipeline, by modality; see `typical_preparation`.
        modalities: spectra to use together; None for all that the model knows.
        similarity: of the model's embeddings, "cosine" or "inner".
        batch_size: molecules per pass.
        seed: of the disturbances.

    Returns:
        One entry per disturbance (without smaller widths where the store has no lines), the undisturbed
        first: "disturbance", "strength", and for each of "model", "prepared" and "similarity" the figures by
        their names.

    Raises:
        InputError: as `retrieve`.
    """
    names = known_modalities(model, modalities)
    library = _Library.of(store, gallery, names, lambda batch: prepared(batch, settings), batch_size)
    found = []
    for how in disturbances():
        if how.width != 1 and not set(names) <= store.metadata.lines.keys():
            continue  # samples cannot be broadened anew

        def change(batch: Batch, how: Disturbance = how) -> Batch:
            return disturbed(batch, store, how, seed)

        def change_and_prepare(batch: Batch, change: _Treat = change) -> Batch:
            return prepared(change(batch), settings)

        options: dict[str, Any] = {"similarity": similarity, "batch_size": batch_size}
        raw, better = (
            retrieve(model, store, queries, gallery, names, change=each, **options).figures()
            for each in (change, change_and_prepare)
        )
        plain = library.search(queries, change_and_prepare, batch_size)
        figures = {"model": raw, "prepared": better, "similarity": plain}
        shown = {name: {"recall": each.recall, "mrr": each.mrr} for name, each in figures.items()}
        found.append({"disturbance": how.name, "strength": how.strength, **shown})
    return found


@dataclass(frozen=True, eq=False)
class _Library:
    """Prepared spectra of a gallery's molecules, to be compared with spectra directly."""

    store: Store
    gallery: Gallery
    names: tuple[str, ...]
    spectra: Tensor
    here: Tensor

    @classmethod
    def of(
        cls, store: Store, gallery: Gallery, names: tuple[str, ...], change: _Treat, size: int
    ) -> _Library:
        """Prepare the spectra of all rows of a gallery, `size` at a time."""
        pieces = _unit_spectra(store, gallery.rows, names, change, size)
        return cls(store, gallery, names, *(torch.cat(part) for part in zip(*pieces, strict=True)))

    def search(self, queries: npt.NDArray[np.int64], change: _Treat, size: int) -> RankFigures:
        """Figures of the mean cosine over the modalities that query and entry both have."""
        everyone = self.store.identities
        number = {identity: n for n, identity in enumerate(self.gallery.identities)}
        has = np.stack([self.store.has(name)[queries] for name in self.names]).any(0)
        true = torch.tensor([number[everyone[row]] for row in queries[has]])
        found = []
        parts = _unit_spectra(self.store, queries[has], self.names, change, size)
        for (spectra, here), own in zip(parts, true.split(size), strict=True):
            both = here.double() @ self.here.double().T
            scores = (spectra @ self.spectra.T) / both.clamp(min=1)
            found.append(ranks(answer_scores(scores, self.gallery.answer), own))
        rank = torch.cat(found)
        return rank_figures(rank, torch.full_like(rank, len(self.gallery)))


def _unit_spectra(
    store: Store, rows: npt.NDArray[np.int64], names: tuple[str, ...], change: _Treat, size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Spectra of unit length, one modality behind the other [b, all points], and presence [b, S]."""
    for start in range(0, len(rows), size):
        batch = change(store.batch(rows[start : start + size], modalities=names))
        spectra = [F.normalize(batch.spectra[name], dim=1) for name in names]
        yield torch.cat(spectra, dim=1), torch.stack([batch.present[name] for name in names], dim=1)
