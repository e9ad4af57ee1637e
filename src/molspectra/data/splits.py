"""Training, validation and test split: by identity or scaffold of a molecule, or by published row numbers."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from molspectra.chem.scaffold import scaffold_of
from molspectra.errors import InputError, NotFoundError, SettingError, ValueRangeError

SPLITS = ("train", "val", "test")
"""Names of the parts, in the order of the fractions."""

FRACTIONS = (0.8, 0.1, 0.1)
"""Default shares of training, validation and test."""


def split_rows(
    identities: Iterable[str],
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
    folds: int = 0,
    fold: int = 0,
) -> dict[str, npt.NDArray[np.int64]]:
    """Return the ascending rows of each part for the identities of a store, from hashes of (seed, identity).

    Rows of one scaffold stay together if `scaffolds` are given in place of identities. With `folds`, the test
    part is that fold, of which fold 0 has the largest hashes. Those with the next lower ones validate (after
    the last fold, the largest); of the fractions only their share counts.

    The part of a molecule is therefore the same in every dataset that contains it, in any order and after
    additions. A larger training share with the same seed keeps the molecules that were in training.

    Raises:
        SettingError: if the fractions are not three shares that add up to 1.
    """
    limits = _limits(fractions)
    hashes = np.fromiter((_hash(identity, seed) for identity in identities), dtype=np.int64)
    if folds:
        begin, end = ((folds - fold - more) * 2**62 // folds for more in (1, 0))
        hashes = (hashes + (2**62 - end)) % 2**62  # turned, so that the fold comes last
        test = 2**62 - (end - begin)
        limits = np.array([test - round(float(fractions[1]) * 2**62), test], dtype=np.int64)
    part = np.searchsorted(limits, hashes, side="right")
    return {name: np.flatnonzero(part == index) for index, name in enumerate(SPLITS)}


def share_without(identities: Iterable[str], seed: int) -> float:
    """Return the largest test share of an identity split whose test part has none of these identities."""
    return 1 - (max((_hash(identity, seed) for identity in identities), default=-1) + 1) / 2**62


def scaffolds(identities: Sequence[str], smiles: Sequence[str | None]) -> list[str]:
    """Return the key of every row's Bemis-Murcko scaffold, its identity where the molecule has no ring.

    All rows of an identity have one key, the smallest of theirs: tautomers may differ in their scaffolds. A
    row without a SMILES has that of its identity's other rows.

    Args:
        identities: of n rows.
        smiles: of the same rows, None where a row has none.

    Raises:
        NotFoundError: no row of an identity has a SMILES.
        InputError: a SMILES cannot be read; the message names the row.
    """
    key: dict[str, str] = {}
    for row, (identity, text) in enumerate(zip(identities, smiles, strict=True)):
        if text is None:
            continue
        try:
            scaffold = scaffold_of(text) or identity
        except InputError as error:
            raise error.with_context(f"row {row}") from error
        key[identity] = min(scaffold, key.get(identity, scaffold))
    without = [row for row, identity in enumerate(identities) if identity not in key]
    if without:
        raise NotFoundError(
            f"{len(without)} of its {len(identities)} rows have no SMILES and so no scaffold (the first is "
            f"row {without[0]}, {identities[without[0]]}); set data.split: identity, or prepare the store "
            "with SMILES"
        )
    return [key[identity] for identity in identities]


def reference_split(
    n: int, train: int, val: int, test: int | None = None, seed: int = 1
) -> dict[str, npt.NDArray[np.int64]]:
    """Return the published index splits: the first, next and last rows of one numpy permutation.

    It splits by position, so a molecule may be in the test part of one dataset and in the training part of
    another.

    Args:
        n: rows of the dataset.
        train: rows for training.
        val: rows for validation.
        test: rows for test; None for the rest.
        seed: of `numpy.random.default_rng`.

    Raises:
        ValueRangeError: if the parts do not fit into n rows.
    """
    requested = " + ".join(str(part) for part in (train, val, test) if part is not None)
    test = n - train - val if test is None else test
    if min(train, val, test) < 0 or train + val + test > n:
        raise ValueRangeError(f"a split of {requested} rows does not fit a dataset of {n} rows")
    order = np.random.default_rng(seed).permutation(n)
    return dict(zip(SPLITS, np.split(order[: train + val + test], [train, train + val]), strict=True))


def _hash(identity: str, seed: int) -> int:
    """Return 62 uniform bits of (seed, identity)."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{identity}".encode(), digest_size=8).digest(), "big") >> 2


def _limits(fractions: Sequence[float]) -> npt.NDArray[np.int64]:
    """Return the two hashes at which validation and test begin."""
    shares = [float(share) for share in fractions]
    if len(shares) != len(SPLITS) or not (min(shares) >= 0 and abs(sum(shares) - 1) < 1e-9):
        raise SettingError(
            f"split fractions must be three shares (train, val, test) that add up to 1, not {shares}"
        )
    return np.array([round(limit * 2**62) for limit in (shares[0], 1 - shares[2])], dtype=np.int64)
