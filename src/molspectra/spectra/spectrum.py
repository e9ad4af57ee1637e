"""Line spectra, and spectra sampled on the axis of their modality."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from molspectra.errors import FormatError, ValueRangeError
from molspectra.spectra.modality import modality


@dataclass(frozen=True, eq=False)
class LineSpectrum:
    """n transitions of one molecule, before any broadening.

    Attributes:
        modality: name of the modality, which fixes the units.
        position: ascending positions [n], float64, in the modality's axis unit; lines outside the axis are
            kept, and an imaginary vibrational frequency is a negative position.
        intensity: intensities [n], float64, not negative: oscillator strength for uv_vis, km/mol for ir,
            Å⁴/amu for raman.
        level: level of theory, or "" where unknown.

    Raises:
        InputError: unknown modality, wrong shapes, non-finite, unsorted or negative values.
    """

    modality: str
    position: npt.NDArray[np.float64]
    intensity: npt.NDArray[np.float64]
    level: str = ""

    def __post_init__(self) -> None:
        kind = modality(self.modality).name
        position = _frozen(self.position, f"{kind} line positions")
        intensity = _frozen(self.intensity, f"{kind} line intensities")
        if position.shape != intensity.shape:
            raise ValueRangeError(f"{kind} lines: {len(position)} positions but {len(intensity)} intensities")
        if (np.diff(position) < 0).any():
            raise ValueRangeError(f"{kind} line positions must ascend; sort them with their intensities")
        if (intensity < 0).any():
            raise ValueRangeError(f"{kind} line {int(np.argmin(intensity)) + 1} has a negative intensity")
        object.__setattr__(self, "position", position)
        object.__setattr__(self, "intensity", intensity)

    def __len__(self) -> int:
        return len(self.position)

    def _repr_png_(self) -> bytes:
        """The lines and the broadened spectrum, for notebooks."""
        from molspectra.spectra.plots import picture

        return picture("", {self.modality: (self.broadened(), self)}, self.level)

    def broadened(
        self, shape: str | None = None, fwhm: float | None = None, scale: float = 1.0
    ) -> SampledSpectrum:
        """Broaden the lines: sum of area-normalised profiles on the modality's axis.

        Args:
            shape: "lorentzian" or "gaussian"; None takes the modality's default.
            fwhm: full width at half maximum in the axis unit; None takes the modality's default.
            scale: factor on the positions (a frequency scale factor), not on the intensities or the width.

        Raises:
            InputError: unknown shape, or a width or scale that is not positive and finite.
        """
        import torch

        from molspectra.spectra.broadening import broaden

        values = broaden(
            torch.tensor(self.position),
            torch.tensor(self.intensity),
            torch.tensor([0, len(self)]),
            modality(self.modality),
            shape=shape,
            fwhm=fwhm,
            scale=scale,
        )
        return SampledSpectrum(self.modality, values[0].numpy().astype(np.float64), source=self.level)


@dataclass(frozen=True, eq=False)
class SampledSpectrum:
    """A spectrum sampled on the axis of its modality.

    Attributes:
        modality: name of the modality, which fixes axis and units.
        values: samples [points], float64, finite and not negative, in the modality's `intensity_unit`.
        source: origin of the samples: a level of theory, an instrument, a file.

    Raises:
        InputError: unknown modality, wrong number of points, non-finite or negative values.
    """

    modality: str
    values: npt.NDArray[np.float64]
    source: str = ""

    def __post_init__(self) -> None:
        kind = modality(self.modality)
        values = _frozen(self.values, f"{kind.name} samples")
        if len(values) != kind.points:
            raise ValueRangeError(
                f"a sampled {kind.name} spectrum has {kind.points} points, not {len(values)}"
            )
        if (values < 0).any():
            raise ValueRangeError(f"a {kind.name} sample is negative; subtract the baseline or clip it at 0")
        object.__setattr__(self, "values", values)

    @property
    def axis(self) -> npt.NDArray[np.float64]:
        """Positions of the samples [points] in the modality's axis unit."""
        return modality(self.modality).axis()

    def _repr_png_(self) -> bytes:
        """The curve, for notebooks."""
        from molspectra.spectra.plots import picture

        return picture("", {self.modality: (self, None)}, self.source)


def _frozen(values: npt.ArrayLike, what: str) -> npt.NDArray[np.float64]:
    """Copy finite values into a read-only float64 array [n]; `what` names them in messages."""
    try:
        result = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise FormatError(f"{what} must be a list of numbers") from error
    if result.ndim != 1:
        raise ValueRangeError(f"{what} must be one list of numbers, not an array of shape {result.shape}")
    if not np.isfinite(result).all():
        raise ValueRangeError(f"{what} contain a value that is not a finite number")
    result.setflags(write=False)
    return result
