"""Check that a table of spectra belongs to a list of structures row by row, by characteristic bands.

Free O–H, N–H and triple bonds have bands where no other group has one. The rows for which two ways of joining
give structures that differ in such a group decide between the two: the bands agree with one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from molspectra.errors import MismatchError
from molspectra.spectra.modality import IR

WON = 0.7
"""Share of the comparisons that the right join must win; a wrong join wins about half of them, or fewer."""

_SAMPLE = 4_000  # rows whose structures are compared
_READ = 60  # rows per group and join whose spectra are read
_FEWEST = 6  # rows with and without a group that a comparison needs

Features = Mapping[str, bool]
Spectra = Mapping[str, npt.NDArray[np.floating]]
Groups = Callable[[int], Features | None]


@dataclass(frozen=True)
class _Band:
    """Band of a functional group.

    Attributes:
        title: name of the group in messages.
        modality: the spectrum to use, if the dataset has both IR and Raman.
        low: lower end, cm⁻¹.
        high: upper end, cm⁻¹.
    """

    title: str
    modality: str
    low: float
    high: float


BANDS = {
    "hydroxyl": _Band("O–H", "ir", 3560.0, 3760.0),
    "amine": _Band("N–H", "ir", 3330.0, 3540.0),
    "triple": _Band("C≡C or C≡N", "raman", 2050.0, 2420.0),
    "hydrogen": _Band("any bond to H", "raman", 2750.0, 3760.0),
}
"""Groups and their bands after the published scaling of the frequencies (0.965)."""

_QUIET = slice(int(2450 - IR.start), int(2700 - IR.start))  # no group of H, C, N, O, F has a band there


NOT_CHECKED = {"check of the join": "not made: it needs IR or Raman spectra"}
"""Note of a dataset without vibrational spectra."""


def neighbours(rows: int) -> dict[str, Callable[[int], int | None]]:
    """Return the ways of joining that are off by one row."""
    return {
        "one row later": lambda row: row + 1 if row + 1 < rows else None,
        "one row earlier": lambda row: row - 1 if row > 0 else None,
    }


def groups_of(numbers: npt.NDArray[np.integer], positions: npt.NDArray[np.floating]) -> dict[str, bool]:
    """Return which groups of `BANDS` a structure has, from its distances (Å)."""
    difference = positions[:, None] - positions[None]
    distance = np.sqrt((difference**2).sum(-1))

    def within(first: int, second: int, limit: float) -> bool:
        pairs = distance[np.ix_(numbers == first, numbers == second)]
        return bool(((pairs > 0.4) & (pairs < limit)).any())

    return {
        "hydroxyl": within(8, 1, 1.15),
        "amine": within(7, 1, 1.2),
        "triple": within(6, 6, 1.25) or within(6, 7, 1.2),
        "hydrogen": bool((numbers == 1).any()),
    }


def check_join(
    rows: int,
    joins: Mapping[str, Callable[[int], int | None]],
    groups: Groups,
    spectra: Callable[[int], Spectra],
) -> dict[str, str]:
    """Check that row i of the tables belongs to entry i of the list.

    Args:
        rows: number of rows.
        joins: other ways to join, each from a row to an entry or None.
        groups: from an entry to its groups, None where the entry is damaged.
        spectra: from a row to its IR and Raman spectra, as far as they can be read.

    Returns:
        Results as text, by way of joining.

    Raises:
        MismatchError: if the spectra do not side clearly with entry i against one of the other ways.
    """
    sample = np.unique(np.linspace(0, rows - 1, min(rows, _SAMPLE)).astype(np.int64))
    own = {int(row): features for row in sample if (features := groups(int(row))) is not None}
    notes = {}
    for name, entry_of in joins.items():
        others = {row: entry_of(row) for row in own}
        other = {row: groups(entry) for row, entry in others.items() if entry is not None and entry != row}
        shares = [
            share
            for group, band in BANDS.items()
            if (share := _share(group, band, own, other, spectra)) is not None
        ]
        compared = sum(count for _, count in shares)
        if not shares:
            notes[name] = "could not be told apart: too few rows where the two ways differ in a group"
            continue
        won = sum(share * count for share, count in shares) / compared
        text = (
            f"the spectra side with row i = entry i against {name!r} in {won:.0%} of {compared} comparisons"
        )
        if won < WON:
            titles = ", ".join(band.title for band in BANDS.values())
            raise MismatchError(
                f"spectra and structures do not belong together: {text} ({titles} bands), at least "
                f"{WON:.0%} are needed; the files are damaged, mixed up or of another release"
            )
        notes[name] = text
    return notes


def _share(
    group: str,
    band: _Band,
    own: Mapping[int, Features],
    other: Mapping[int, Features | None],
    spectra: Callable[[int], Spectra],
) -> tuple[float, int] | None:
    """Compare rows that have the group in their own entry only with rows that have it in the other only.

    Returns:
        The share of pairs in which the former has the stronger band (area under the ROC curve), and the
        number of rows; None if there are too few.
    """
    differing = [row for row, entry in other.items() if entry and entry[group] != own[row][group]]
    by_own = [row for row in differing if own[row][group]]
    by_other = [row for row in differing if not own[row][group]]
    if min(len(by_own), len(by_other)) < _FEWEST:
        return None
    strong = _strengths(_thinned(by_own), band, spectra)
    weak = _strengths(_thinned(by_other), band, spectra)
    if min(len(strong), len(weak)) < _FEWEST:
        return None
    wins = (strong[:, None] > weak).mean() + 0.5 * (strong[:, None] == weak).mean()
    return float(wins), len(strong) + len(weak)


def _thinned(rows: Sequence[int]) -> Sequence[int]:
    """Return at most `_READ` of the rows, evenly spread."""
    return [rows[int(index)] for index in np.linspace(0, len(rows) - 1, min(len(rows), _READ))]


def _strengths(
    rows: Sequence[int], band: _Band, spectra: Callable[[int], Spectra]
) -> npt.NDArray[np.float64]:
    """Return the height of the band relative to a range without bands, of each row that has a spectrum."""
    heights = []
    for row in rows:
        by_modality = spectra(row)
        samples = by_modality.get(band.modality, next(iter(by_modality.values()), None))
        if samples is not None and np.isfinite(samples).all() and samples.max() > 0:
            window = samples[int(band.low - IR.start) : int(band.high - IR.start) + 1]
            heights.append(float(window.max()) / max(float(samples[_QUIET].max()), 1e-12))
    return np.array(heights)
