"""Retrieval of held-out molecules by their spectra: whole spectra against clean structures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from molspectra.data.batch import Batch
from molspectra.data.store.store import Store
from molspectra.errors import MismatchError, NotFoundError, SettingError, ValueRangeError
from molspectra.evaluation.embedding import embed_batch, embed_intensities
from molspectra.evaluation.predict import on_device
from molspectra.evaluation.ranking import (
    RankFigures,
    answer_scores,
    best,
    isomer_figures,
    rank_figures,
    ranks,
)
from molspectra.models.model import MolSpectra
from molspectra.training.data import in_order

QUERY_ROWS = 1024  # queries whose scores are held in memory at once
KEEP = 5  # best answers of a query that are returned


def embed_spectra(
    model: MolSpectra,
    store: Store,
    rows: npt.NDArray[np.int64],
    modalities: Sequence[str] | None = None,
    batch_size: int = 64,
    change: Callable[[Batch], Batch] | None = None,
) -> Tensor:
    """Compute representations of whole (unmasked) spectra, [n, D] float64 on the CPU.

    Args:
        model: a model with a spectrum encoder.
        store: holds the spectra.
        rows: n rows.
        modalities: spectra to use together; None takes all that the model knows. A row that lacks some of
            them is embedded by the others; a row that lacks all gets NaN.
        batch_size: molecules per pass.
        change: applied to a batch before its spectra are read.

    Raises:
        InputError: no spectrum encoder, or a modality that it does not know.
    """
    if model.spectrum_encoder is None:
        raise MismatchError("the model has no spectrum encoder; only a stage-2 model embeds spectra")
    names = known_modalities(model, modalities)
    model.eval()
    embeddings = []
    for micro in in_order(store, rows, batch_size, modalities=names):
        batch = micro.batch if change is None else change(micro.batch)
        absent = ~torch.stack(list(batch.present.values())).any(0)
        embedding = embed_intensities(model, batch.spectra, batch.present)
        embeddings.append(embedding.masked_fill(absent.unsqueeze(1), torch.nan))
    return torch.cat(embeddings)


def known_modalities(model: MolSpectra, modalities: Sequence[str] | None) -> tuple[str, ...]:
    """Return the given modalities, all of the model's for None, in the model's order.

    Raises:
        NotFoundError: none, or one that the spectrum encoder does not know.
    """
    known = tuple(model.spectrum_encoder.kinds) if model.spectrum_encoder is not None else ()
    chosen = known if modalities is None else tuple(modalities)
    unknown = [name for name in chosen if name not in known]
    if unknown or not chosen:
        what = f"{unknown[0]!r}" if unknown else "no modality"
        raise NotFoundError(f"the model's spectrum encoder reads {', '.join(known) or 'nothing'}, not {what}")
    return tuple(name for name in known if name in chosen)


def subsets(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """Return all 2^S - 1 subsets of S modalities except the empty one, smallest first."""
    sizes = range(1, len(modalities) + 1)
    return [subset for size in sizes for subset in combinations(modalities, size)]


@dataclass(frozen=True, eq=False)
class Gallery:
    """Structures to search in; rows of one identity are one answer.

    Attributes:
        rows: [G] int64 rows of the store.
        embeddings: [G, D] float64.
        answer: [G] int64, index of the answer that each row belongs to.
        identities: [A] of the answers.
        formulas: [A] of the answers.
        first: [A] int64, the first row of each answer.
    """

    rows: npt.NDArray[np.int64]
    embeddings: Tensor
    answer: Tensor
    identities: tuple[str, ...]
    formulas: tuple[str, ...]
    first: npt.NDArray[np.int64]

    @classmethod
    def of(
        cls, model: MolSpectra, store: Store, rows: npt.NDArray[np.int64], batch_size: int = 64
    ) -> Gallery:
        """Embed the clean structures of the given rows.

        Raises:
            ValueRangeError: no rows.
        """
        if not len(rows):
            raise ValueRangeError("the gallery is empty")
        identities = store.identities
        number: dict[str, int] = {}
        answer = torch.tensor([number.setdefault(identities[row], len(number)) for row in rows])
        first = np.asarray(rows)[np.unique(answer.numpy(), return_index=True)[1]]
        formulas = tuple(store.molecule(int(row)).formula for row in first)
        model.eval()
        batches = (on_device(micro.batch, model) for micro in in_order(store, rows, batch_size))
        embeddings = torch.cat([embed_batch(model, batch) for batch in batches])
        return cls(np.asarray(rows), embeddings, answer, tuple(number), formulas, first)

    def __len__(self) -> int:
        """Return the number of different molecules A."""
        return len(self.identities)


@dataclass(frozen=True, eq=False)
class Retrieval:
    """Ranks of the true molecules of Q queries.

    Attributes:
        modalities: spectra used together.
        rows: [Q] int64 rows of the queries, those with at least one of the spectra.
        identities: [Q].
        without_spectrum: rows left out because they have none of the spectra.
        rank: [Q] int64 among all answers.
        isomer_rank: [Q] int64 among the answers with the query's formula.
        isomers: [Q] int64 number of these, the true one included.
        best_rows: [Q, k] int64, the first row of each of the best answers.
        best_scores: [Q, k] their similarities.
        own_score: [Q] similarity of the true answer.
        gallery_size: number of different molecules searched.
    """

    modalities: tuple[str, ...]
    rows: npt.NDArray[np.int64]
    identities: tuple[str, ...]
    without_spectrum: int
    rank: Tensor
    isomer_rank: Tensor
    isomers: Tensor
    best_rows: npt.NDArray[np.int64]
    best_scores: npt.NDArray[np.float64]
    own_score: npt.NDArray[np.float64]
    gallery_size: int

    def figures(self) -> RankFigures:
        """Summarise the ranks among all molecules of the gallery."""
        return rank_figures(self.rank, torch.full_like(self.rank, self.gallery_size))

    def isomer_figures(self) -> RankFigures | None:
        """Summarise the ranks among molecules of the same formula, see `ranking.isomer_figures`."""
        return isomer_figures(self.isomer_rank, self.isomers)


def retrieve(
    model: MolSpectra,
    store: Store,
    queries: npt.NDArray[np.int64],
    gallery: Gallery,
    modalities: Sequence[str] | None = None,
    *,
    similarity: str = "cosine",
    batch_size: int = 64,
    change: Callable[[Batch], Batch] | None = None,
) -> Retrieval:
    """Search the molecules of the query rows by their spectra.

    Every query row is one query, also where several rows are the same molecule.

    Args:
        model: a stage-2 model.
        store: holds the queries and the gallery.
        queries: rows, whose molecules must be in the gallery.
        gallery: structures to search in.
        modalities: spectra to use together; None for all that the model knows.
        similarity: "cosine" or "inner", as in the model's training.
        batch_size: molecules per pass.
        change: applied to the queries' batches before their spectra are read, such as a disturbance.

    Raises:
        InputError: no query has a spectrum, a query's molecule is not in the gallery, an unknown similarity
            or modality, or embeddings that are not finite.
    """
    if similarity not in ("cosine", "inner"):
        raise SettingError(f"similarity must be 'cosine' or 'inner', not {similarity!r}")
    names = known_modalities(model, modalities)
    # queries with a spectrum, and the index of their molecule among the answers
    has_spectrum = np.stack([store.has(name)[queries] for name in names]).any(0)
    rows = np.asarray(queries)[has_spectrum]
    if not len(rows):
        raise NotFoundError(f"no molecule of the part has a spectrum ({', '.join(names)})")
    all_identities = store.identities
    number = {identity: n for n, identity in enumerate(gallery.identities)}
    identities = tuple(all_identities[row] for row in rows)
    missing = [identity for identity in identities if identity not in number]
    if missing:
        raise NotFoundError(f"the molecule of a query, {missing[0]}, is not in the gallery")
    true = torch.tensor([number[identity] for identity in identities])
    # representations and formulas
    spectra = embed_spectra(model, store, rows, names, batch_size, change)
    structures = gallery.embeddings
    if similarity == "cosine":
        spectra, structures = F.normalize(spectra, dim=1), F.normalize(structures, dim=1)
    index = {formula: n for n, formula in enumerate(dict.fromkeys(gallery.formulas))}
    formula = torch.tensor([index[name] for name in gallery.formulas])  # [A]

    # ranks, in chunks of queries to bound the memory of the scores
    chunks: list[tuple[Tensor, ...]] = []
    for chunk, answer in zip(spectra.split(QUERY_ROWS), true.split(QUERY_ROWS), strict=True):
        scores = answer_scores(chunk @ structures.T, gallery.answer)  # [chunk, A]
        isomer = formula[answer].unsqueeze(1) == formula
        own = scores.gather(1, answer.unsqueeze(1)).squeeze(1)
        isomer_ranks = ranks(scores, answer, isomer)
        chunks.append((ranks(scores, answer), isomer_ranks, isomer.sum(1), own, *best(scores, KEEP)))
    rank, isomer_rank, isomers, own, answers, values = (torch.cat(part) for part in zip(*chunks, strict=True))
    return Retrieval(
        modalities=names,
        rows=rows,
        identities=identities,
        without_spectrum=int((~has_spectrum).sum()),
        rank=rank,
        isomer_rank=isomer_rank,
        isomers=isomers,
        best_rows=gallery.first[answers.numpy()],
        best_scores=values.numpy(),
        own_score=own.numpy(),
        gallery_size=len(gallery),
    )
