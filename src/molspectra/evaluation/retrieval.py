"""Finding held-out molecules by their spectra: whole spectra against clean structures."""

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
from molspectra.errors import InputError
from molspectra.evaluation.predict import on_device
from molspectra.evaluation.ranking import RankFigures, answer_scores, best, rank_figures, ranks
from molspectra.models.model import MolSpectra
from molspectra.training.data import in_order

QUERY_ROWS = 1024  # queries whose scores are held at once


@torch.no_grad()
def embed_structures(
    model: MolSpectra, store: Store, rows: npt.NDArray[np.int64], batch_size: int = 64
) -> Tensor:
    """Representations of clean structures, [n, D] float64 on the CPU."""
    model.eval()
    batches = (on_device(micro.batch, model) for micro in in_order(store, rows, batch_size))
    return torch.cat([model.embed(batch).double().cpu() for batch in batches])


@torch.no_grad()
def embed_spectra(
    model: MolSpectra,
    store: Store,
    rows: npt.NDArray[np.int64],
    modalities: Sequence[str] | None = None,
    batch_size: int = 64,
    change: Callable[[Batch], Batch] | None = None,
) -> Tensor:
    """Representations of whole (unmasked) spectra, [n, D] float64 on the CPU.

    Args:
        model: a model with a spectrum encoder.
        store: holds the spectra.
        rows: n rows.
        modalities: those to use together; None takes all that the model knows. Of a row that lacks some of
            them the others are used; a row that lacks all gets NaN.
        batch_size: molecules per pass.
        change: what happens to the spectra of a batch before they are read.

    Raises:
        InputError: no spectrum encoder, or a modality that it does not know.
    """
    encoder = model.spectrum_encoder
    if encoder is None:
        raise InputError("the model has no spectrum encoder; only a stage-2 model embeds spectra")
    names = known_modalities(model, modalities)
    model.eval()
    parts = []
    for micro in in_order(store, rows, batch_size, modalities=names):
        batch = on_device(micro.batch if change is None else change(micro.batch), model)
        found = encoder(batch.spectra, batch.present).representation.double().cpu()
        nothing = ~torch.stack(list(micro.batch.present.values())).any(0)
        parts.append(found.masked_fill(nothing.unsqueeze(1), torch.nan))
    return torch.cat(parts)


def known_modalities(model: MolSpectra, modalities: Sequence[str] | None) -> tuple[str, ...]:
    """Return the given modalities, all of the model's for None, in the model's order.

    Raises:
        InputError: none, or one that the spectrum encoder does not know.
    """
    known = tuple(model.spectrum_encoder.kinds) if model.spectrum_encoder is not None else ()
    wanted = known if modalities is None else tuple(modalities)
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        what = f"{unknown[0]!r}" if unknown else "no modality"
        raise InputError(f"the model's spectrum encoder reads {', '.join(known) or 'nothing'}, not {what}")
    return tuple(name for name in known if name in wanted)


def subsets(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """Return all 2^S - 1 subsets of S modalities but the empty one, the smallest first."""
    sizes = range(1, len(modalities) + 1)
    return [each for size in sizes for each in combinations(modalities, size)]


@dataclass(frozen=True, eq=False)
class Gallery:
    """Structures to search in; rows of one identity are one answer.

    Attributes:
        rows: [G] int64 rows of the store.
        embeddings: [G, D] float64.
        answer: [G] int64, the answer that each row shows.
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
            InputError: no rows.
        """
        if not len(rows):
            raise InputError("the gallery is empty")
        everyone = store.identities
        number: dict[str, int] = {}
        answer = torch.tensor([number.setdefault(everyone[row], len(number)) for row in rows])
        first = np.asarray(rows)[np.unique(answer.numpy(), return_index=True)[1]]
        formulas = tuple(store.molecule(int(row)).formula for row in first)
        embeddings = embed_structures(model, store, rows, batch_size)
        return cls(np.asarray(rows), embeddings, answer, tuple(number), formulas, first)

    def __len__(self) -> int:
        """Return the number of different molecules A."""
        return len(self.identities)


@dataclass(frozen=True, eq=False)
class Retrieval:
    """Where the true molecule of every query came.

    Attributes:
        modalities: spectra used together.
        rows: [Q] int64 rows of the queries, those with at least one of the spectra.
        identities: [Q].
        without_spectrum: rows left out because they have none of the spectra.
        rank: [Q] int64 among all answers.
        isomer_rank: [Q] int64 among the answers with the query's formula.
        isomers: [Q] int64 number of those, the true one included.
        best_rows: [Q, k] int64, a row of each of the best answers.
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
        """Figures of the search among all molecules of the gallery."""
        return rank_figures(self.rank, torch.full_like(self.rank, self.gallery_size))

    def isomer_figures(self) -> RankFigures | None:
        """Figures of the search among molecules of the same formula; None where no query has an isomer there.

        Queries without an isomer in the gallery are left out: they would be found without looking.
        """
        some = self.isomers > 1
        return rank_figures(self.isomer_rank[some], self.isomers[some]) if bool(some.any()) else None


def retrieve(
    model: MolSpectra,
    store: Store,
    queries: npt.NDArray[np.int64],
    gallery: Gallery,
    modalities: Sequence[str] | None = None,
    *,
    similarity: str = "cosine",
    batch_size: int = 64,
    keep: int = 5,
    change: Callable[[Batch], Batch] | None = None,
) -> Retrieval:
    """Search the molecules of the query rows by their spectra.

    Every query row is one query, also where several rows are the same molecule.

    Args:
        model: a stage-2 model.
        store: holds the queries and the gallery.
        queries: rows, whose molecules must be in the gallery.
        gallery: what to search in.
        modalities: spectra to use together; None for all that the model knows.
        similarity: "cosine" or "inner", as in the model's training.
        batch_size: molecules per pass.
        keep: how many of the best answers to tell.
        change: what happens to the queries' spectra before they are read, such as a disturbance.

    Raises:
        InputError: no query has a spectrum, a query's molecule is not in the gallery, an unknown similarity
            or modality, or embeddings that are not finite.
    """
    if similarity not in ("cosine", "inner"):
        raise InputError(f"similarity must be 'cosine' or 'inner', not {similarity!r}")
    names = known_modalities(model, modalities)
    here = np.stack([store.has(name)[queries] for name in names]).any(0)
    rows = np.asarray(queries)[here]
    if not len(rows):
        raise InputError(f"no molecule of the part has a spectrum ({', '.join(names)})")
    everyone, number = store.identities, {identity: n for n, identity in enumerate(gallery.identities)}
    identities = tuple(everyone[row] for row in rows)
    missing = [identity for identity in identities if identity not in number]
    if missing:
        raise InputError(f"the molecule of a query, {missing[0]}, is not in the gallery")
    true = torch.tensor([number[identity] for identity in identities])
    spectra = embed_spectra(model, store, rows, names, batch_size, change)
    structures = gallery.embeddings
    if similarity == "cosine":
        spectra, structures = F.normalize(spectra, dim=1), F.normalize(structures, dim=1)
    kind = {formula: n for n, formula in enumerate(dict.fromkeys(gallery.formulas))}
    formula = torch.tensor([kind[each] for each in gallery.formulas])

    pieces: list[tuple[Tensor, ...]] = []
    for start in range(0, len(rows), QUERY_ROWS):
        mine = true[start : start + QUERY_ROWS]
        scores = answer_scores(spectra[start : start + QUERY_ROWS] @ structures.T, gallery.answer)
        same = formula[mine].unsqueeze(1) == formula
        own = scores.gather(1, mine.unsqueeze(1)).squeeze(1)
        pieces.append((ranks(scores, mine), ranks(scores, mine, same), same.sum(1), own, *best(scores, keep)))
    rank, isomer_rank, isomers, own, answers, values = (torch.cat(part) for part in zip(*pieces, strict=True))
    return Retrieval(
        modalities=names,
        rows=rows,
        identities=identities,
        without_spectrum=int((~here).sum()),
        rank=rank,
        isomer_rank=isomer_rank,
        isomers=isomers,
        best_rows=gallery.first[answers.numpy()],
        best_scores=values.numpy(),
        own_score=own.numpy(),
        gallery_size=len(gallery),
    )
