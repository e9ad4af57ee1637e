"""How many of the molecules that a run is tested on were seen in its pre-training."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from molspectra.chem.identity import GEOMETRY_PATTERN
from molspectra.data.splits import share_without, split_rows
from molspectra.data.store.store import Store
from molspectra.training.config import DataConfig
from molspectra.training.data import Rows, Selection
from molspectra.training.seen import LABEL, SPECTRUM, STRUCTURE, Seen, hashes_of, structure_hashes
from molspectra.training.settings import to_dict

EXAMPLES = 3
"""At most this many molecules are named."""


@dataclass(frozen=True)
class Exposure:
    """Counts of tested molecules that were seen before.

    Attributes:
        compared: "molecules" by identity; "frames" by geometry, where all rows are one molecule.
        tested: different molecules (or frames).
        structures: of these, in training before, with or without spectra.
        spectra: of these, in training with spectra before.
        labels: of these, in training on a label before, by a fine-tuning run that another starts from.
        beyond: of these, with spectra or on a label.
        validated: of these, in validation only.
        incomparable: of the others, those identified by a geometry hash, which other datasets may not share.
        nameless: at least so many molecules of pre-training have such an identity, so that they may be among
            the tested ones unseen.
        molecule: for frames, whether the molecule itself was seen: "with spectra", "as structures" or "no".
        examples: a few that were seen, those with spectra first.
        unknown: runs of which it is not known what they saw.
    """

    compared: str
    tested: int
    structures: int
    spectra: int
    labels: int = 0
    beyond: int = 0
    validated: int = 0
    incomparable: int = 0
    nameless: int = 0
    molecule: str | None = None
    examples: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The counts in one sentence."""
        return self.said_of("pre-training")

    def said_of(self, training: str) -> str:
        """Return the counts in one sentence that calls what came before "pre-training" or "training"."""
        said = f"{self.structures} of {self.tested} test {self.compared} were seen in {training}"
        if self.spectra:
            said += f", {self.spectra} of them with spectra"
        if self.labels:
            said += f", {self.labels} of them with labels"
        if self.validated:
            said += f", {self.validated} more in its validation"
        if self.molecule is not None:
            seen = {"no": "was not seen", "as structures": "was seen as structures"}
            said += f"; the molecule itself {seen.get(self.molecule, 'was seen with spectra')}"
        if self.incomparable:
            said += f"; {self.incomparable} have identities that cannot be compared between datasets"
        if self.nameless:
            molecules = f"{self.nameless:,} molecules of {training}"
            sentence = f"{molecules} have identities that cannot be compared"
            said += f"; so have {molecules}" if self.incomparable else f"; {sentence}"
        if self.unknown:
            said += f"; what was seen is not known of {', '.join(self.unknown)}"
        return said

    def is_accepted(self, allow_leak: str) -> bool:
        """Whether the value of `data.allow_leak` accepts what was seen."""
        allowed = {"none": 0, "structures": self.structures - self.beyond, "all": self.structures}
        return self.structures <= allowed[allow_leak]

    @property
    def acceptable_with(self) -> str:
        """The least value of `data.allow_leak` that accepts any leak of this kind."""
        return "all" if self.beyond else "structures"

    def plain(self) -> dict[str, Any]:
        """JSON values, with the sentence."""
        return to_dict(self) | {"sentence": self.sentence}


def is_clean(exposure: Mapping[str, Any]) -> bool:
    """Whether all that was tested is known to be new, by `Exposure.plain`."""
    doubtful = ("structures", "validated", "incomparable", "nameless", "unknown")
    return not any(exposure[name] for name in doubtful) and exposure["molecule"] in (None, "no")


def exposure(store: Store, rows: Rows, seen: Seen) -> Exposure:
    """Compare rows of a store with the molecules seen before.

    Molecules are compared by identity. Where all rows of the store are one molecule, as in a trajectory,
    frames are compared by geometry, and whether the molecule itself was seen is told apart.
    """
    identities = store.identities
    if len(identities) > 1 and len(set(identities)) == 1:
        return _frames(store, rows, seen, identities[0])
    first: dict[str, int] = {}
    for row in rows.tolist():
        first.setdefault(identities[row], row)
    names = list(first)
    flags = seen.flags_of(hashes_of(names))
    trained = flags & STRUCTURE > 0
    order = np.argsort(-(flags & (STRUCTURE | SPECTRUM)).astype(int), kind="stable")
    seen_names = [names[index] for index in order[:EXAMPLES] if trained[index]]
    names_unseen = [name for name, flag in zip(names, flags, strict=True) if not flag]
    return Exposure(
        "molecules",
        tested=len(names),
        structures=int(trained.sum()),
        spectra=int(np.count_nonzero(flags & SPECTRUM)),
        labels=int(np.count_nonzero(flags & LABEL)),
        beyond=int(np.count_nonzero(flags & (SPECTRUM | LABEL))),
        validated=int(np.count_nonzero((flags > 0) & ~trained)),
        incomparable=sum(1 for name in names_unseen if GEOMETRY_PATTERN.fullmatch(name)),
        nameless=seen.by_geometry,
        examples=tuple(f"{name} (row {first[name]})" for name in seen_names),
        unknown=seen.unknown,
    )


def _frames(store: Store, rows: Rows, seen: Seen, identity: str) -> Exposure:
    """Compare frames of one molecule by geometry."""
    structures, first = np.unique(store.geometry_ids[rows], return_index=True)
    known = np.isin(structure_hashes(structures), seen.structures)
    flag = int(seen.flags_of(hashes_of([identity]))[0])
    with_spectra, without, labelled = (bool(flag & bit) for bit in (SPECTRUM, STRUCTURE, LABEL))
    return Exposure(
        "frames",
        tested=len(structures),
        structures=int(known.sum()),
        spectra=int(known.sum()) if with_spectra else 0,
        labels=int(known.sum()) if labelled else 0,
        beyond=int(known.sum()) if with_spectra or labelled else 0,
        molecule="with spectra" if with_spectra else "as structures" if without else "no",
        examples=tuple(f"row {row}" for row in sorted(rows[first[known]].tolist())[:EXAMPLES]),
        unknown=seen.unknown,
    )


def clean_split(store: Store, config: DataConfig, seen: Seen) -> DataConfig | None:
    """Return the settings of an identity split whose test molecules were not seen before, None without one.

    Its test share is the largest in hundredths up to that of `config`, by its seed or the default one; the
    rest goes to training.
    """
    identities = store.identities
    seen_rows = np.flatnonzero(seen.flags_of(hashes_of(identities)))
    asked, best = config.fractions[2], None
    for seed in dict.fromkeys((config.split_seed, DataConfig().split_seed)):
        free = share_without((identities[row] for row in seen_rows), seed)
        test = min(asked, math.floor(100 * free) / 100)
        shares = (round(1 - config.fractions[1] - test, 9), config.fractions[1], test)
        has_rows = test > 0 and len(split_rows(identities, seed, shares)["test"])
        if has_rows and (best is None or test > best.fractions[2]):
            best = replace(
                config,
                split="identity",
                split_seed=seed,
                fractions=shares,
                split_column="",
                folds=0,
                fold=None,
                sizes=(),
            )
    return best


def twins(selection: Selection) -> int:
    """How many different test molecules (frames: geometries) are in the training part of the same split."""
    store = selection.store
    identities = np.array(store.identities, dtype=object)
    if len(set(identities)) == 1:
        both = np.intersect1d(store.geometry_ids[selection.test], store.geometry_ids[selection.train])
        return len(both)
    return len(set(identities[selection.test]) & set(identities[selection.train]))
