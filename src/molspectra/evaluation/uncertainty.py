"""How far predictions may be off: the spread of an ensemble, calibrated on molecules with known values.

The members of an ensemble agree more than they are right, so their spread s (sample standard deviation) is
calibrated on a part that was not trained on, with the errors e of their means there: a factor f with
f² = mean (e/s)² makes f·s a standard deviation, and the k-th smallest of |e|/s, k = ⌈(n + 1)·p⌉, times s is
half the width of an interval that holds the value with probability p whatever the distribution is (split
conformal prediction; Lei et al. 2018, doi:10.1080/01621459.2017.1307116, section 2.2, with the spread as
the scale of the residuals, section 5.2), as long as new molecules are like those of that part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from molspectra.errors import MismatchError, SettingError, ValueRangeError

Floats = npt.NDArray[np.float64]

COVERAGES = (0.5, 0.68, 0.8, 0.9, 0.95)
"""Stated coverages of a report on calibration."""

SMALLEST = 1e-3
"""Spreads below this share of the median spread are counted as that: members may agree by accident."""


MUCH = 50.0
"""Factors on a spread above this mean that the members are nearly the same."""

ENOUGH = 9
"""Molecules that an interval of coverage 0.9 needs."""


@dataclass(frozen=True)
class Calibration:
    """What makes uncertainties of the spreads of an ensemble.

    Attributes:
        scale: factor on a spread that makes it a standard deviation.
        floor: smallest spread that is counted, in the unit of the property.
        ratios: [n] ascending |error|/spread of the molecules of the calibration.
    """

    scale: float
    floor: float
    ratios: tuple[float, ...]

    @classmethod
    def of(cls, errors: npt.ArrayLike, spreads: npt.ArrayLike) -> Calibration:
        """Calibrate by the errors [n] of means and the spreads [n] of members.

        Raises:
            InputError: different lengths, fewer than two molecules, or members that do not differ.
        """
        error, spread = np.abs(np.asarray(errors, np.float64)), np.asarray(spreads, np.float64)
        if error.shape != spread.shape:
            raise MismatchError(f"{error.shape} errors, but {spread.shape} spreads")
        if len(error) < 2:
            raise ValueRangeError(f"{len(error)} molecules are too few to calibrate uncertainties on")
        floor = SMALLEST * float(np.median(spread))
        if not floor > 0:
            raise ValueRangeError(
                "the members of the ensemble do not differ; there is no spread to calibrate"
            )
        ratios = error / np.maximum(spread, floor)
        return cls(math.sqrt(float(np.square(ratios).mean())), floor, tuple(np.sort(ratios).tolist()))

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Calibration:
        """Make it of what `vars` gave."""
        return cls(float(plain["scale"]), float(plain["floor"]), tuple(map(float, plain["ratios"])))

    def remarks(self) -> list[str]:
        """Return what a user should know before trusting it, a line each."""
        found = []
        if self.scale > MUCH:
            found.append(
                f"errors are {self.scale:.2g} × the spread of the members, which hardly differ; train longer"
            )
        if len(self.ratios) < ENOUGH:
            found.append(
                f"calibrated on {len(self.ratios)} molecules; intervals of coverage p need p/(1 - p) "
                f"({ENOUGH} for 0.9), and are infinite with fewer"
            )
        return found

    def uncertainty(self, spreads: npt.ArrayLike) -> Floats:
        """Standard deviations of predictions with these spreads."""
        return self.scale * np.maximum(np.asarray(spreads, np.float64), self.floor)

    def half_width(self, spreads: npt.ArrayLike, coverage: float) -> Floats:
        """Half the widths of intervals that hold the value with this probability.

        They are infinite where the calibration had too few molecules, fewer than coverage/(1 - coverage).

        Raises:
            SettingError: a coverage outside (0, 1).
        """
        check_coverage(coverage)
        rank = math.ceil((len(self.ratios) + 1) * coverage - 1e-9)  # 25 · 0.68 is a little above 17
        ratio = self.ratios[rank - 1] if rank <= len(self.ratios) else math.inf
        widths: Floats = ratio * np.maximum(np.asarray(spreads, np.float64), self.floor)
        return widths


def uncertainties_of(
    spreads: Floats, targets: Sequence[str], calibrations: Mapping[str, Calibration]
) -> Floats:
    """Standard deviations [n, T] of spreads [n, T]; without a calibration (of a class) the spread itself."""
    found = spreads.copy()
    for index, name in enumerate(targets):
        if name in calibrations:
            found[:, index] = calibrations[name].uncertainty(spreads[:, index])
    return found


def check_coverage(coverage: float) -> None:
    """Refuse what is no probability of an interval.

    Raises:
        SettingError: with the value.
    """
    if not 0 < coverage < 1:
        raise SettingError(f"coverage: must lie between 0 and 1, such as 0.9, not {coverage:g}")


def calibration_report(
    calibration: Calibration, errors: npt.ArrayLike, spreads: npt.ArrayLike
) -> dict[str, Any]:
    """Compare what a calibration states with the errors [n] of other molecules and their spreads [n].

    Returns:
        "coverage" by stated coverage: the share of molecules inside the intervals and their mean half width;
        "scale" and "molecules" of the calibration; "area" of `error_confidence_area`.
    """
    error = np.abs(np.asarray(errors, np.float64))
    coverage = {}
    for stated in COVERAGES:
        widths = calibration.half_width(spreads, stated)
        coverage[f"{stated:g}"] = {
            "observed": float((error <= widths).mean()),
            "half_width": float(widths.mean()),
        }
    return {
        "molecules": len(calibration.ratios),
        "scale": calibration.scale,
        "coverage": coverage,
        "error_confidence_area": error_confidence_area(error, spreads),
    }


def error_confidence_area(errors: npt.ArrayLike, spreads: npt.ArrayLike) -> float:
    """How well spreads order the molecules by error: 0 as the errors themselves do, 1 as chance does.

    The mean absolute error of the molecules that remain when the most uncertain ones are left out, one after
    the other, is a curve; the area between it and the curve of the true order is divided by the same area of
    an order by chance, whose curve is flat (Scalia et al. 2020, doi:10.1021/acs.jcim.9b00975).
    """
    error, spread = np.abs(np.asarray(errors, np.float64)), np.asarray(spreads, np.float64)

    def remaining(order: npt.NDArray[np.int64]) -> Floats:
        """Mean error of the first k molecules, k = 1 … n."""
        means: Floats = np.cumsum(error[order]) / np.arange(1, len(error) + 1)
        return means

    oracle = remaining(np.argsort(error, kind="stable"))
    by_chance = float((error.mean() - oracle).sum())
    if by_chance <= 0:  # all errors are equal: any order is as good
        return 0.0
    return float((remaining(np.argsort(spread, kind="stable")) - oracle).sum()) / by_chance
