"""Retrieval of held-out molecules by their spectra: whole spectra against clean structures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, NamedTuple

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
MASS_TOLERANCE = 10e-6
"""Molecules whose exact masses differ by no more than this share have the same mass, as far as a mass
spectrometer can tell."""


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


class Ranked(NamedTuple):
    """Ranks of the true answers of Q queries.

    Attributes:
        rank: [Q] int64, from 1.
        candidates: [Q] int64 number of answers ranked, the true one included.
    """

    rank: Tensor
    candidates: Tensor


AmongPeers = Mapping[str, Ranked]
"""Ranks among "all" answers, those of the query's "mass" (`MASS_TOLERANCE`), and those of its "formula"."""


def figures_of(among: AmongPeers) -> dict[str, Any]:
    """Return the figures among all molecules, and under "isomers" among those of the query's formula."""
    isomers = isomer_figures(*among["formula"])
    return {**asdict(rank_figures(*among["all"])), "isomers": None if isomers is None else asdict(isomers)}


def joined(parts: Sequence[AmongPeers]) -> AmongPeers:
    """Put the ranks of consecutive queries together."""
    return {
        name: Ranked(*(torch.cat(column) for column in zip(*(part[name] for part in parts), strict=True)))
        for name in parts[0]
    }


@dataclass(frozen=True, eq=False)
class Gallery:
    """Structures to search in; rows of one identity are one answer.

    Attributes:
        rows: [G] int64 rows of the store.
        embeddings: [G, D] float64.
        answer: [G] int64, index of the answer that each row belongs to.
        identities: [A] of the answers.
        formulas: [A] of the answers.
        masses: [A] float64 exact masses of the answers, in Da.
        first: [A] int64, the first row of each answer.
    """

    rows: npt.NDArray[np.int64]
    embeddings: Tensor
    answer: Tensor
    identities: tuple[str, ...]
    formulas: tuple[str, ...]
    masses: Tensor
    first: npt.NDArray[np.int64]

    @classmethod
    def of(
        cls, model: MolSpectra, store: Store, rows: npt.NDArray[np.int64], batch_size: int = 64
    ) -> Gallery:
        """Embed the clean structures of the given rows.

        Raises:
            ValueRangeError: no rows.
        """
        from molspectra.simulation.vibrations import exact_mass

        if not len(rows):
            raise ValueRangeError("the gallery is empty")
        identities = store.identities
        number: dict[str, int] = {}
        answer = torch.tensor([number.setdefault(identities[row], len(number)) for row in rows])
        first = np.asarray(rows)[np.unique(answer.numpy(), return_index=True)[1]]
        molecules = [store.molecule(int(row)) for row in first]
        formulas = tuple(molecule.formula for molecule in molecules)
        masses = torch.tensor([exact_mass(each.numbers, each.charge) for each in molecules])
        model.eval()
        batches = (on_device(micro.batch, model) for micro in in_order(store, rows, batch_size))
        embeddings = torch.cat([embed_batch(model, batch) for batch in batches])
        return cls(np.asarray(rows), embeddings, answer, tuple(number), formulas, masses.double(), first)

    def __len__(self) -> int:
        """Return the number of different molecules A."""
        return len(self.identities)

    @cached_property
    def _formula(self) -> Tensor:
        """Number [A] int64 of the formula of each answer."""
        index = {formula: n for n, formula in enumerate(dict.fromkeys(self.formulas))}
        return torch.tensor([index[name] for name in self.formulas])

    def ranked(self, scores: Tensor, true: Tensor) -> AmongPeers:
        """Rank the true answers [Q] by the scores [Q, A] of all answers."""
        formula, own = self._formula, self.masses[true].unsqueeze(1)
        peers = {
            "mass": (self.masses - own).abs() <= MASS_TOLERANCE * own,
            "formula": formula[true].unsqueeze(1) == formula,
        }
        every = Ranked(ranks(scores, true), torch.full_like(true, len(self)))
        return {"all": every} | {
            name: Ranked(ranks(scores, true, among), among.sum(1)) for name, among in peers.items()
        }


@dataclass(frozen=True, eq=False)
class Retrieval:
    """Ranks of the true molecules of Q queries.

    Attributes:
        modalities: spectra used together.
        rows: [Q] int64 rows of the queries, those with at least one of the spectra.
        identities: [Q].
        without_spectrum: rows left out because they have none of the spectra.
        among: ranks of the queries.
        best_rows: [Q, k] int64, the first row of each of the best answers.
        best_scores: [Q, k] their similarities.
        own_score: [Q] similarity of the true answer.
        gallery_size: number of different molecules searched.
    """

    modalities: tuple[str, ...]
    rows: npt.NDArray[np.int64]
    identities: tuple[str, ...]
    without_spectrum: int
    among: AmongPeers
    best_rows: npt.NDArray[np.int64]
    best_scores: npt.NDArray[np.float64]
    own_score: npt.NDArray[np.float64]
    gallery_size: int

    @property
    def rank(self) -> Tensor:
        """Ranks [Q] int64 among all answers."""
        return self.among["all"].rank

    @property
    def isomer_rank(self) -> Tensor:
        """Ranks [Q] int64 among the answers with the query's formula."""
        return self.among["formula"].rank

    @property
    def isomers(self) -> Tensor:
        """Numbers [Q] int64 of these, the true one included."""
        return self.among["formula"].candidates

    def figures(self) -> RankFigures:
        """Summarise the ranks among all molecules of the gallery."""
        return rank_figures(*self.among["all"])


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
    # representations
    spectra = embed_spectra(model, store, rows, names, batch_size, change)
    structures = gallery.embeddings
    if similarity == "cosine":
        spectra, structures = F.normalize(spectra, dim=1), F.normalize(structures, dim=1)

    # ranks, in chunks of queries to bound the memory of the scores
    among: list[AmongPeers] = []
    chunks: list[tuple[Tensor, ...]] = []
    for chunk, answer in zip(spectra.split(QUERY_ROWS), true.split(QUERY_ROWS), strict=True):
        scores = answer_scores(chunk @ structures.T, gallery.answer)  # [chunk, A]
        among.append(gallery.ranked(scores, answer))
        own = scores.gather(1, answer.unsqueeze(1)).squeeze(1)
        chunks.append((own, *best(scores, KEEP)))
    own, answers, values = (torch.cat(part) for part in zip(*chunks, strict=True))
    return Retrieval(
        modalities=names,
        rows=rows,
        identities=identities,
        without_spectrum=int((~has_spectrum).sum()),
        among=joined(among),
        best_rows=gallery.first[answers.numpy()],
        best_scores=values.numpy(),
        own_score=own.numpy(),
        gallery_size=len(gallery),
    )
