"""What a mixture is made of: molecules of a library whose spectra add up to that of the sample.

Spectra of a mixture add, so y ≈ Σ cₖ aₖ with cₖ ≥ 0, where y is the spectrum of the sample and aₖ are those
of the library, both smeared as for `molspectra.search.shape`. Intensities of a library are wrong by factors
rather than by amounts, so the squares of (y − Σ cₖ aₖ) / (y + δ) are minimised (non-negative least squares),
and sets of molecules are compared by the similarity of `shape` of Σ cₖ aₖ and y. Sets grow by one molecule at
a time (non-negative orthogonal matching pursuit), and members are exchanged for better ones until none is
left. One more is taken while that lowers the extended Bayesian information criterion (Chen and Chen,
Biometrika 95, 759 (2008)), n ln(1 − s) + k ln n + 2 ln C(M, k), of k of M molecules with similarity s at n
independent bins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.optimize import nnls
from scipy.special import gammaln

from molspectra.chem.identity import identity_from_smiles
from molspectra.errors import InputError, NotFoundError, SettingError, ValueRangeError, closest
from molspectra.search.filters import Filters
from molspectra.search.hits import Hits
from molspectra.search.library import Library
from molspectra.search.pipeline import DEFAULT, Pipeline
from molspectra.search.query import Prepared, Spectrum
from molspectra.search.ranking import leading
from molspectra.search.shape import SMEAR, features, smeared_entries
from molspectra.search.vectors import Floats
from molspectra.spectra.modality import modality

LARGEST = 5
"""Largest number of components."""
CANDIDATES = 20_000
"""Entries that are considered; of a larger library, those that are most similar to the mixture."""

_DELTA = 0.05  # of the largest intensity of the sample, δ above
_TRIED = 48  # entries that are tried as a member, best of the least squares first
_SWEEPS = 4  # of exchanges
_SIGNIFICANT = 5.0  # standard deviations of noise that the largest band needs
_INDEPENDENT = 2.0  # smearing widths for each independent bin
_EXACT = 1e-3  # 1 − s of spectra that do not differ

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Mixture(Hits):
    """The components of a sample, the largest share first.

    The columns of `table` are rank, name, smiles, formula, share, uncertainty, similarity, residual, identity
    and row. A share is that of a component in the area of the fitted spectrum, and not in moles or mass: an
    index keeps no absolute intensities. Uncertainty is its standard deviation. Similarity (of `shape`) and
    residual (share of the area of y that lies above a fit of the same area, 0 to 1) are those of all
    components together.
    """

    @property
    def shown(self) -> list[str]:
        """Columns of the table that are shown in a terminal."""
        return ["rank", "share", "uncertainty", "residual", "formula", "name", "smiles"]


def mixture(
    library: Library,
    spectra: Mapping[str, Spectrum | Prepared],
    *,
    components: int = 3,
    among: Sequence[str] | None = None,
    pipeline: Pipeline = DEFAULT,
    formula: str | None = None,
    mass: float | None = None,
    within: str = "10 ppm",
    elements: Sequence[str] | None = None,
    contains: Sequence[str] | None = None,
) -> Mixture:
    """Find the molecules of a library that a mixture is made of.

    Args:
        library: with spectra of this kind.
        spectra: one, by its modality, as in `Library.search`.
        components: the largest number of them, 1 to `LARGEST`.
        among: names or SMILES of the molecules that it may be made of; None for all of the library.
        pipeline: what is done to the spectrum.
        formula: of every component, see `molspectra.search.filters.Filters`, as the next four.
        mass: exact mass in Da.
        within: tolerance of the mass.
        elements: the only elements of a component.
        contains: elements that every component must have.

    Raises:
        InputError: as in `Library.search`; an unknown name; no band rises above the noise, or no candidates.
    """
    if not 1 <= components <= LARGEST:
        raise ValueRangeError(f"a mixture of 1 to {LARGEST} components can be fitted, not of {components}")
    if len(spectra) != 1:
        raise SettingError(f"a mixture is fitted to one spectrum, not to {len(spectra)}")
    mask = Filters(formula, mass, within, elements, contains).select(library.table)
    mask = np.ones(len(library), bool) if mask is None else mask
    if among is not None:
        mask = mask & _named(library, among)
    query = library.query(spectra, {"shape": 1.0}, pipeline)
    ((name, shape),) = query.shapes.items()
    remarks = list(query.remarks)
    if np.all(shape.smeared[:, 0].max(-1) < _SIGNIFICANT * shape.noise[:, 0]):
        raise ValueRangeError(f"no band of the {name} spectrum rises above its noise")
    scores = np.where(mask, library.scores("shape", query, None), np.nan)
    rows = np.sort(leading(np.where(np.isnan(scores), -np.inf, scores), CANDIDATES))
    if not len(rows):
        raise NotFoundError(f"{library.path}: no candidate has spectra ({name}) and passes the filters")
    if len(rows) < (~np.isnan(scores)).sum():
        remarks.append(f"only the {len(rows)} entries that are most similar to the mixture are considered")
    entries = smeared_entries(library.stored(name, rows), shape.covered, modality(name))
    entries = entries[:, shape.covered]
    entries /= entries.sum(1, keepdims=True)
    codes = library.answers.of[rows]
    fits = [
        _Fit(entries, codes, spectrum[0, shape.covered], wanted[0, shape.covered])
        for spectrum, wanted in zip(shape.smeared, shape.features, strict=True)
    ]
    independent = float(shape.covered.sum()) / (_INDEPENDENT * SMEAR[modality(name).unit])
    molecules = len(np.unique(codes))
    best, lowest, more = None, np.inf, False
    for count in range(1, min(components + 1, molecules) + 1):
        for fit in fits:
            fit.grow()
        sets = [fit.members for fit in fits]
        for fit in fits:
            fit.adopt(sets)
        fit = max(fits, key=lambda each: each.similarity)
        if not fit.members:
            raise NotFoundError(f"{library.path}: no candidate has a band where the {name} spectrum has one")
        criterion = _criterion(fit.similarity, count, molecules, independent)
        if criterion >= lowest:
            break
        if count > components:
            more = True
            break
        lowest, best = criterion, (fit, tuple(fit.members))
    assert best is not None
    fit, members = best
    coefficients, _ = fit.solved(members)
    share, error = fit.shares(members, coefficients, independent)
    if more:
        remarks.append(
            f"one more component than {components} is needed for the spectrum, or one is missing here"
        )
    elif len(members) < molecules:
        remarks.append("no further component is supported")
    if among is None and len(members) > 1:
        remarks.append(
            f"of a measured mixture, components found among all {molecules} molecules are seldom right; name "
            "those that may be there (--among)"
        )
    remarks.append("shares are of the absorbed area, not of moles: an index keeps no absolute intensities")
    order = np.argsort(-share, kind="stable")
    chosen = rows[np.array(members)[order]]
    table = library.table.take(pa.array(chosen))
    residual = fit.residual(members, coefficients)
    columns = {
        "rank": pa.array(np.arange(1, len(chosen) + 1)),
        **{column: table[column] for column in ("name", "smiles", "formula")},
        "share": pa.array(share[order]),
        "uncertainty": pa.array(error[order]),
        "similarity": pa.array([fit.similar(members, coefficients)] * len(chosen)),
        "residual": pa.array([residual] * len(chosen)),
        "identity": table["identity"],
        "row": pa.array(chosen),
    }
    return Mixture(pa.table(columns), {"shape": 1.0}, molecules, len(library.answers), tuple(remarks))


class _Fit:
    """Sets of entries whose sum is the spectrum, at one factor on the axis.

    Attributes:
        members: of the best set so far, as indices of entries.
        similarity: of their sum and the spectrum.
    """

    def __init__(
        self,
        entries: Floats,
        codes: npt.NDArray[np.int64],
        spectrum: Floats,
        wanted: Floats,
    ) -> None:
        """Take entries [n, B] of area 1 of molecules [n], and a spectrum [B] with its features [B]."""
        self.entries, self.codes, self.wanted = entries, codes, wanted
        self.plain = (spectrum / max(float(spectrum.max()), 1e-30)).astype(np.float64)
        weight = 1 / (np.maximum(self.plain, 0) + _DELTA)
        self.design, self.target = entries * weight, self.plain * weight
        self.members: list[int] = []
        self.similarity = 0.0

    def solved(self, members: Sequence[int]) -> tuple[Doubles, float]:
        """Coefficients [k], 0 or more, of entries of area 1, and the norm of the weighted residual."""
        coefficients, norm = nnls(self.design[list(members)].T, self.target)
        return coefficients, float(norm)

    def similar(self, members: Sequence[int], coefficients: Doubles) -> float:
        """Similarity of a sum of entries with the spectrum."""
        total = (coefficients @ self.entries[list(members)])[None].astype(np.float32)
        return float(self._alike(total)[0])

    def _alike(self, spectra: Floats) -> Floats:
        """Similarities [m] of spectra [m, B]."""
        return features(spectra, np.ones(spectra.shape[1], bool)) @ self.wanted

    def grow(self) -> None:
        """Add the best entry, then exchange every member for a better one until none is."""
        self.similarity, self.members = self._with(self.members)
        for _ in range(_SWEEPS):
            before = self.similarity
            for place in range(len(self.members)):
                rest = self.members[:place] + self.members[place + 1 :]
                similarity, members = self._with(rest)
                if similarity > self.similarity + 1e-6:
                    self.similarity, self.members = similarity, members
            if self.similarity == before:
                break

    def adopt(self, sets: Sequence[list[int]]) -> None:
        """Take the best of the sets that were found at all factors."""
        for members in filter(None, sets):  # none was found at some factors; `nnls` crashes without columns
            coefficients, _ = self.solved(members)
            if coefficients.all() and (similarity := self.similar(members, coefficients)) > self.similarity:
                self.similarity, self.members = similarity, members

    def _with(self, rest: list[int]) -> tuple[float, list[int]]:
        """The best similarity of a set with one more entry, and this set; −1 where there is none."""
        best = (-1.0, rest)
        for entry in self._promising(rest):
            members = [*rest, entry]
            coefficients, _ = self.solved(members)
            if not coefficients.all():
                continue  # a smaller set
            best = max(best, (self.similar(members, coefficients), members))
        return best

    def _promising(self, rest: list[int]) -> Iterator[int]:
        """Entries of other molecules that lower the sum of squares most; of a first one, the most similar."""
        if not rest:
            yield from leading(self._alike(self.entries).astype(np.float64), _TRIED).tolist()
            return
        base, _ = np.linalg.qr(self.design[rest].T)
        free = self.design - (self.design @ base) @ base.T
        left = self.target - base @ (base.T @ self.target)
        length = np.linalg.norm(free, axis=1)
        gain = free @ left / np.maximum(length, 0.05 * np.linalg.norm(self.design, axis=1) + 1e-30)
        gain[np.isin(self.codes, self.codes[rest])] = -np.inf
        yield from leading(gain, _TRIED).tolist()

    def shares(
        self, members: Sequence[int], coefficients: Doubles, independent: float
    ) -> tuple[Doubles, Doubles]:
        """Shares [k] of the area, and their standard deviations [k].

        The covariance of the coefficients is (BᵀB)⁻¹ |r|² / (n − k), with the weighted entries B and the
        residual r, where only n of the bins are independent; that of the shares follows by propagation.
        """
        design = self.design[list(members)]
        left = self.target - coefficients @ design
        bins, count = design.shape[1], len(members)
        variance = left @ left / bins * independent / max(independent - count, 1)
        covariance = np.linalg.pinv(design @ design.T) * variance * bins / independent
        total = coefficients.sum()
        share = coefficients / total
        slope = (np.eye(count) - share[:, None]) / total
        return share, np.sqrt(np.maximum(np.diagonal(slope @ covariance @ slope.T), 0))

    def residual(self, members: Sequence[int], coefficients: Doubles) -> float:
        """Share of the spectrum's area above a fit of the same area.

        The least squares fit the positions of bands rather than the whole area, see `_DELTA`.
        """
        fit, spectrum = coefficients @ self.entries[list(members)], np.maximum(self.plain, 0)
        return float(np.maximum(spectrum / spectrum.sum() - fit / fit.sum(), 0).sum())


def _criterion(similarity: float, count: int, molecules: int, independent: float) -> float:
    """Extended Bayesian information criterion of `count` of some molecules, see above."""
    choices = gammaln(molecules + 1) - gammaln(count + 1) - gammaln(molecules - count + 1)
    misfit = independent * np.log(max(1 - similarity, 0) + _EXACT)
    return float(misfit + count * np.log(independent) + 2 * choices)


def _named(library: Library, among: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Mask [n] of the entries of molecules with these names or SMILES.

    Raises:
        NotFoundError: the library has none of such a name or structure.
    """
    identities = library.table["identity"].to_numpy(zero_copy_only=False)
    names = np.array([(name or "").casefold() for name in library.table["name"].to_pylist()], object)
    mask = np.zeros(len(library), bool)
    for word in among:
        found = identities[names == word.casefold()] if word else []
        if not len(found):
            try:
                found = [identity_from_smiles(word)]
            except InputError:
                found = []
        selected = np.isin(identities, found)
        if not selected.any():
            similar = closest(word.casefold(), {name for name in names if name})
            told = f"did you mean {similar!r}?" if similar else "give its SMILES, or add it to the index"
            raise NotFoundError(f"{library.path}: no molecule {word!r} here, by name or SMILES; {told}")
        mask |= selected
    return mask
