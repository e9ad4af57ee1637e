"""Paired statistics: the same seeds and the same test molecules under two treatments.

Two sources of chance are kept apart. Tests over seeds ask whether a difference would be seen again with new
initial weights, batches and pre-training; they need several seeds. The bootstrap over test molecules asks
whether these very models would differ on other molecules of the same kind; it says nothing about new seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy import stats

from molspectra.errors import MismatchError
from molspectra.evaluation.metrics import mean_and_sd

CONFIDENCE = 0.95
RESAMPLES = 4000
"""Number of times M molecules are drawn with replacement."""
CHUNK = 1_000_000
"""Number of draws held in memory at once."""
EXACT_UP_TO = 16
"""Largest number of differences whose signs are enumerated (65,536 cases)."""


@dataclass(frozen=True)
class SeedTest:
    """Differences (first - second) over n seeds, and three two-sided tests that their centre is zero.

    Attributes:
        seeds: seeds that both have, ascending.
        differences: one per seed.
        mean: their mean.
        sd: their sample standard deviation; NaN for one seed.
        low: lower end of the 95 % interval of the mean by Student's t; NaN for one seed.
        high: its upper end.
        t_p: p of the paired t-test, which assumes normally distributed differences; NaN for one seed.
        sign_p: p of the exact sign test (zeros left out).
        permutation_p: p of the exact test that flips the signs of the differences; NaN for too many seeds.
        smallest_p: the smallest p that the exact tests can give with n seeds, 2^(1-n).
    """

    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    mean: float
    sd: float
    low: float
    high: float
    t_p: float
    sign_p: float
    permutation_p: float
    smallest_p: float

    @property
    def lower(self) -> int:
        """In how many seeds the first is lower."""
        return sum(difference < 0 for difference in self.differences)

    @property
    def higher(self) -> int:
        """In how many seeds the first is higher."""
        return sum(difference > 0 for difference in self.differences)


def seed_test(first: Mapping[int, float], second: Mapping[int, float]) -> SeedTest | None:
    """Test the differences of the values of two sets of runs, by seed; None where no seed is common."""
    seeds = tuple(sorted(first.keys() & second.keys()))
    if not seeds:
        return None
    differences = tuple(first[seed] - second[seed] for seed in seeds)
    values = np.array(differences, np.float64)
    n, (mean, sd) = len(values), mean_and_sd(differences)
    low = high = t_p = math.nan
    if n > 1:
        half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * sd / math.sqrt(n)
        low, high = mean - half, mean + half
        t_p = float(2 * stats.t.sf(abs(mean) / (sd / math.sqrt(n)), n - 1)) if sd > 0 else float(mean == 0)
    lower, higher = int((values < 0).sum()), int((values > 0).sum())
    sign_p = 2 * float(stats.binom.cdf(min(lower, higher), lower + higher, 0.5)) if lower + higher else 1.0
    return SeedTest(
        seeds=seeds,
        differences=differences,
        mean=mean,
        sd=sd,
        low=low,
        high=high,
        t_p=t_p,
        sign_p=min(1.0, sign_p),
        permutation_p=_permutation_p(values),
        smallest_p=2.0 ** (1 - n),
    )


def _permutation_p(values: npt.NDArray[np.float64]) -> float:
    """Return the share of all 2^n choices of signs whose absolute mean is not smaller than the observed."""
    if len(values) > EXACT_UP_TO:
        return math.nan
    signs = np.array(list(product((-1.0, 1.0), repeat=len(values))))
    sums = np.abs(signs @ values)
    return float((sums >= abs(values.sum()) * (1 - 1e-12)).mean())


@dataclass(frozen=True)
class MoleculeInterval:
    """Difference of two mean absolute errors on the same test molecules, with its interval over molecules.

    Attributes:
        molecules: number of test molecules (or frames).
        runs: pairs of runs whose errors were averaged per molecule.
        difference: mean of the first arm's absolute errors minus those of the second.
        low: lower end of the 95 % interval of that mean over resampled molecules.
        high: its upper end.
        better: fraction of the molecules whose error is smaller in the first arm.
    """

    molecules: int
    runs: int
    difference: float
    low: float
    high: float
    better: float


def molecule_interval(first: Sequence[npt.ArrayLike], second: Sequence[npt.ArrayLike]) -> MoleculeInterval:
    """Bootstrap the difference of two mean absolute errors over molecules, with a percentile interval.

    Args:
        first: absolute errors [M] of each run of the first arm, of the same molecules in the same order.
        second: the same for the second arm, runs in the order of the same seeds.

    Raises:
        MismatchError: no runs, different numbers of runs, or different numbers of molecules.
    """
    if not len(first) or len(first) != len(second):
        raise MismatchError(f"{len(first)} runs cannot be paired with {len(second)}")
    pairs = [
        np.asarray(one, np.float64) - np.asarray(other, np.float64)
        for one, other in zip(first, second, strict=True)
        if np.shape(one) == np.shape(other)
    ]
    if len(pairs) < len(first) or len({difference.shape for difference in pairs}) > 1 or not pairs[0].size:
        raise MismatchError(
            "errors of different molecules cannot be paired; evaluate the runs on the same data"
        )
    values = np.mean(pairs, axis=0)
    generator = np.random.default_rng(0)
    rows = max(1, min(RESAMPLES, CHUNK // len(values)))
    means = np.concatenate(
        [
            values[generator.integers(0, len(values), (min(rows, RESAMPLES - start), len(values)))].mean(1)
            for start in range(0, RESAMPLES, rows)
        ]
    )
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    better = float((values < 0).mean())
    return MoleculeInterval(len(values), len(pairs), float(values.mean()), float(low), float(high), better)
