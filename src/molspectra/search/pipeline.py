"""What is done to the spectra of a query and of a library before they are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from molspectra.errors import SettingError, ValueRangeError, hint
from molspectra.search.shape import SCALES
from molspectra.spectra.measured import BASELINE_WIDTH, Preparation
from molspectra.spectra.modality import MODALITIES, Modality

Choice = Literal["auto", "measured", "none"]
"""Steps for every spectrum by what its file says, those of a measured spectrum, or none."""

CHOICES: tuple[Choice, ...] = ("auto", "measured", "none")


@dataclass(frozen=True)
class Pipeline:
    """Steps for the spectra of a search.

    Attributes:
        choice: which spectra are treated as measured.
        scale: factor on the frequencies of the library, or None, where `shape` tries those of
            `molspectra.search.shape.SCALES` for every candidate and other ways take 1.
        baseline: width of the baseline that is subtracted, in the axis unit of the spectrum; 0 for none; None
            for the default of a measured spectrum (`BASELINE_WIDTH` line widths).
        smooth: window of a Savitzky-Golay filter, in the axis unit; 0 for none.
        window: part of the axis that is compared, by modality.
    """

    choice: Choice = "auto"
    scale: float | None = None
    baseline: float | None = None
    smooth: float = 0.0
    window: Mapping[str, tuple[float, float]] | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.choice not in CHOICES:
            raise SettingError(f"unknown pipeline {self.choice!r}; {hint(self.choice, CHOICES)}")
        if self.scale is not None and not 0.8 <= self.scale <= 1.25:
            raise ValueRangeError(f"a scale of frequencies lies in 0.8 to 1.25, not {self.scale:g}")
        for name, window in (self.window or {}).items():
            if name not in MODALITIES:
                raise SettingError(f"a range of {name!r}: {hint(name, MODALITIES)}")
            kind = MODALITIES[name]
            if not (window[0] < window[1] and window[0] < kind.stop and window[1] > kind.start):
                raise ValueRangeError(
                    f"the range {window[0]:g} to {window[1]:g} {kind.unit} is no part of the {name} axis "
                    f"({kind.start:g} to {kind.stop:g})"
                )

    @property
    def scales(self) -> tuple[float, ...]:
        """Factors that `shape` tries after the steps of a spectrum, which apply a scale that is given."""
        return SCALES if self.scale is None else (1.0,)

    def preparation(self, kind: Modality, is_measured: bool) -> Preparation:
        """Settings of the steps for one spectrum of a query."""
        window = (self.window or {}).get(kind.name)
        plain = Preparation(normalisation="none", window=window, scale=1 / (self.scale or 1.0))
        if self.choice == "none" or not (is_measured or self.choice == "measured"):
            return plain
        width = BASELINE_WIDTH * kind.fwhm if self.baseline is None else self.baseline
        return replace(
            plain,
            baseline="als" if width else "none",
            baseline_width=width or None,
            smoothing=self.smooth,
        )

    def remarks(self, kind: Modality, preparation: Preparation) -> tuple[str, ...]:
        """What is done to a spectrum, for people."""
        told = []
        if preparation.baseline != "none":
            width = f"{preparation.baseline_width:g} {kind.unit}"
            told.append(f"a baseline (asymmetric least squares, {width}) subtracted")
        if preparation.smoothing:
            told.append(f"smoothed over {preparation.smoothing:g} {kind.unit}")
        if self.scale is not None and self.scale != 1:
            told.append(f"frequencies of the library times {self.scale:g}")
        if preparation.window is not None:
            low, high = preparation.window
            told.append(f"compared from {low:g} to {high:g} {kind.unit}")
        return tuple(f"{kind.name}: {remark}" for remark in told)


DEFAULT = Pipeline()
"""Steps by what the files say."""
