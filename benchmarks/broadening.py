"""Time to broaden one batch on one core: 128 molecules, about 240 lines each, onto all three axes.

Run `python benchmarks/broadening.py`; prints the median in milliseconds, and the direct sum for comparison.
"""

import itertools
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from molspectra.spectra.broadening import broaden
from molspectra.spectra.modality import IR, RAMAN, UV_VIS, Modality

MOLECULES = 128
LINES = {IR: (51, 50.0, 4000.0), RAMAN: (51, 50.0, 4000.0), UV_VIS: (138, 4.0, 16.0)}

Lines = tuple[Tensor, Tensor, Tensor, Modality]


def line_lists() -> list[Lines]:
    """Random lists of about the sizes and ranges of a 19-atom molecule."""
    generator = torch.Generator().manual_seed(0)
    result = []
    for modality, (mean, low, high) in LINES.items():
        counts = torch.randint(mean - 12, mean + 13, (MOLECULES,), generator=generator)
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        draw = torch.rand(2, int(offsets[-1]), generator=generator, dtype=torch.float64)
        result.append((low + (high - low) * draw[0], draw[1] ** 4, offsets, modality))
    return result


def direct(position: Tensor, intensity: Tensor, offsets: Tensor, modality: Modality) -> Tensor:
    """Sum over every line at every point, molecule by molecule, in float32."""
    axis, width = torch.from_numpy(modality.axis()).float(), modality.fwhm
    bounds = offsets.tolist()
    position, height = position.float(), intensity.float() * width / (2 * torch.pi)
    spectra = []
    for low, high in itertools.pairwise(bounds):
        profile = (axis - position[low:high, None]).square_().add_(width**2 / 4).reciprocal_()
        spectra.append(height[low:high] @ profile)
    return torch.stack(spectra)


def median_ms(
    work: Callable[[Tensor, Tensor, Tensor, Modality], Tensor], lists: list[Lines], repeats: int = 40
) -> float:
    """Median wall time of broadening all three modalities."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        for lines in lists:
            work(*lines)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


if __name__ == "__main__":
    torch.set_num_threads(1)
    batch = line_lists()
    print(f"direct sum, float32: {median_ms(direct, batch):.1f} ms")
    print(f"broaden:             {median_ms(broaden, batch):.1f} ms")
