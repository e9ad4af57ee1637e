"""Broaden many ragged line lists at once, in torch.

The direct sum over all lines at all points is exact but the slowest part of making a batch. Here the axis is
divided into blocks: a line is summed directly on the points of its own block and the two adjacent ones, and
everywhere else, where its profile is smooth, on a few Chebyshev nodes per block, from which one matrix
product interpolates the points. No tail is truncated, and the work per line is about a sixth. In float32, for
widths of at least one step of the axis, the result equals the direct sum in float64 to 1e-5 of the peak
(measured: 4e-6 or better). Lorentzians have a compiled kernel (`kernels.py`) with the same algorithm.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

from molspectra.compiled import fast, threads
from molspectra.errors import SettingError, ValueRangeError
from molspectra.spectra.modality import SHAPES, Modality

_BLOCK = 64  # points of a block
_NODES = {"lorentzian": 8, "gaussian": 12}  # Chebyshev nodes of a block, for 1e-5 of the peak
_CHUNK = {"cpu": 512}  # lines per pass, so that the buffers stay in the cache
_CHUNK_DEVICE = 65536


@torch.no_grad()
def broaden(
    position: Tensor,
    intensity: Tensor,
    offsets: Tensor,
    modality: Modality,
    *,
    shape: str | None = None,
    fwhm: float | None = None,
    scale: float = 1.0,
) -> Tensor:
    """Broaden the lines of B molecules into spectra, as sums of area-normalised profiles.

    With Δ the distance of a point from a line and w the full width at half maximum, a line of intensity 1
    gives w/2π / (Δ² + w²/4) (Lorentzian) or √(4 ln 2/π)/w · exp(−4 ln 2 Δ²/w²) (Gaussian). Lines outside the
    axis contribute their tails. Lines may be in any order. A NaN makes the spectrum of its molecule NaN. On
    CUDA the last bit is reproducible only under `torch.use_deterministic_algorithms`.

    Args:
        position: positions [M] of all lines, molecule after molecule, in the modality's axis unit.
        intensity: intensities [M], not negative, in the modality's `line_unit`.
        offsets: int64 [B + 1], from 0 to M; the lines of molecule b are offsets[b]:offsets[b + 1].
        modality: gives the axis and the default width.
        shape: "lorentzian" or "gaussian"; None takes the modality's default.
        fwhm: full width at half maximum in the axis unit; None takes the modality's default.
        scale: factor on the positions (not on widths or intensities).

    Returns:
        float32 [B, points] on the device of `position`, in the modality's `intensity_unit`. Not
        differentiable.

    Raises:
        InputError: unknown shape, or a width or scale that is not positive and finite.
        ValueError: offsets or intensities that do not fit the positions.
    """
    width = modality.fwhm if fwhm is None else fwhm
    shape = shape or modality.shape
    _check_options(shape, width, scale)
    if offsets.device.type == "cpu":  # asking a GPU would make it wait
        _check_offsets(offsets, len(position), len(intensity))
    # in steps from the start of the axis; float64, since float32 only resolves positions within a block
    steps = (position.double() * scale - modality.start) / modality.step
    if shape == "lorentzian" and fast(position):
        return _compiled(steps, intensity, offsets, modality, width)
    device, n_lines, n_molecules = position.device, len(position), len(offsets) - 1
    n_blocks = -(-modality.points // _BLOCK)
    rows = n_blocks + 2  # a spare block on either side takes what falls outside the axis
    grid = torch.arange(-_BLOCK, 2 * _BLOCK, device=device, dtype=torch.float32)
    nodes, interpolation = (t.to(device) for t in _block_rule(_NODES[shape]))
    blocks = torch.arange(-1, n_blocks + 1, device=device)[:, None]
    middle = n_blocks * _BLOCK / 2  # origin of the far coordinates, where float32 is finest
    far_grid = (blocks * _BLOCK - middle + nodes).flatten().float()

    # for every line: its block, its position in the block, and the rows of the three blocks summed directly
    block = torch.floor(steps / _BLOCK)
    # a line in the second block outside the axis is assigned to the first, so that the end of the axis is
    # summed directly
    block = block + (block == -2).double() - (block == n_blocks + 1).double()
    local = (steps - block * _BLOCK).float()[:, None]
    nearby = block.long().clamp_(-3, n_blocks + 2)[:, None] + torch.arange(-1, 2, device=device)
    nearby = nearby.clamp_(-1, n_blocks) + 1
    far_position = (steps - middle).float()[:, None]
    weight = (intensity.double() / modality.step).float()[:, None]
    molecule = torch.repeat_interleave(
        torch.arange(n_molecules, device=device), offsets.to(device).diff(), output_size=n_lines
    )

    # direct sum on three blocks into `near`, all other blocks on Chebyshev nodes into `far`
    chunk = _CHUNK.get(device.type, _CHUNK_DEVICE)
    near_rows = (nearby + molecule[:, None] * rows).flatten()
    holes = (nearby + (torch.arange(n_lines, device=device) % chunk)[:, None] * rows).flatten()
    near = torch.zeros(n_molecules * rows, _BLOCK, device=device)
    far = torch.zeros(n_molecules, rows * len(nodes), device=device)
    profile = _Profile(shape, width / modality.step)
    near_buffer = torch.empty(min(chunk, n_lines), 3 * _BLOCK, device=device)
    far_buffer = torch.empty(min(chunk, n_lines), rows * len(nodes), device=device)
    for start in range(0, n_lines, chunk):
        lines = slice(start, min(start + chunk, n_lines))
        triples = slice(3 * lines.start, 3 * lines.stop)
        values = profile(grid, local[lines], weight[lines], near_buffer[: lines.stop - start])
        near.index_add_(0, near_rows[triples], values.view(-1, _BLOCK))
        values = profile(far_grid, far_position[lines], weight[lines], far_buffer[: lines.stop - start])
        values.view(-1, len(nodes)).index_fill_(0, holes[triples], 0.0)
        far.index_add_(0, molecule[lines], values)
    near.addmm_(far.view(-1, len(nodes)), interpolation)
    if shape == "gaussian":
        near.clamp_(min=0)  # interpolated between nodes, the foot of a Gaussian may fall below zero
    return near.view(n_molecules, rows * _BLOCK)[:, _BLOCK : _BLOCK + modality.points].contiguous()


def _compiled(steps: Tensor, intensity: Tensor, offsets: Tensor, modality: Modality, width: float) -> Tensor:
    """Return Lorentzian spectra [B, points]; `steps` [M]: positions in steps from the start of the axis."""
    from molspectra.spectra.kernels import LANES, lorentzian

    blocks = -(-modality.points // _BLOCK)
    nodes, interpolation = _block_rule(_NODES["lorentzian"])
    far_grid = torch.zeros(-(-blocks * len(nodes) // LANES) * LANES)
    starts = torch.arange(blocks)[:, None] * _BLOCK - blocks * _BLOCK / 2
    far_grid[: blocks * len(nodes)] = (starts + nodes).flatten()
    width /= modality.step
    height = (intensity.double() / modality.step * (width / (2 * math.pi))).float()
    spectra = torch.empty(len(offsets) - 1, modality.points)
    threads.run(
        lorentzian,
        len(spectra),
        steps.numpy(),
        height.numpy(),
        offsets.long().numpy(),
        width**2 / 4,
        np.arange(3 * _BLOCK, dtype=np.float32) - np.float32(1.5 * _BLOCK),
        far_grid.numpy(),
        interpolation.numpy().ravel(),
        spectra.numpy().ravel(),
        modality.points,
    )
    return spectra


class _Profile:
    """The line shape of one width, evaluated into a buffer."""

    def __init__(self, shape: str, width: float) -> None:
        """Precompute the constants of a shape; `width` is in steps of the axis."""
        self.lorentzian = shape == "lorentzian"
        if self.lorentzian:
            self.height, self.constant = width / (2 * math.pi), width**2 / 4
        else:
            exponent = 4 * math.log(2) / width**2
            self.height, self.constant = math.sqrt(exponent / math.pi), -exponent

    def __call__(self, grid: Tensor, centre: Tensor, weight: Tensor, out: Tensor) -> Tensor:
        """Write the profiles of m lines on `grid` [G] into `out` [m, G]; `centre` and `weight` are [m, 1]."""
        torch.sub(grid, centre, out=out)
        out.square_()
        if self.lorentzian:
            return torch.div(weight * self.height, out.add_(self.constant), out=out)
        return out.mul_(self.constant).exp_().mul_(weight * self.height)


@functools.cache
def _block_rule(n: int) -> tuple[Tensor, Tensor]:
    """Chebyshev nodes [n] on the points 0 … _BLOCK − 1, and the matrix [n, _BLOCK] from nodes to points."""
    nodes = np.cos((2 * np.arange(n) + 1) * np.pi / (2 * n))
    points = np.linspace(-1.0, 1.0, _BLOCK)
    lagrange = [
        np.prod([(points - other) / (node - other) for other in nodes if other != node], axis=0)
        for node in nodes
    ]
    return torch.tensor((nodes + 1) * (_BLOCK - 1) / 2), torch.tensor(np.array(lagrange), dtype=torch.float32)


def _check_offsets(offsets: Tensor, lines: int, intensities: int) -> None:
    """Check the shapes; neither the kernel nor `repeat_interleave` with a known size checks its bounds."""
    if offsets[0] != 0 or offsets[-1] != lines or bool((offsets.diff() < 0).any()):
        raise ValueError(f"the offsets of the molecules do not ascend from 0 to {lines} lines")
    if intensities != lines:
        raise ValueError(f"{intensities} intensities of {lines} lines")


def _check_options(shape: str, width: float, scale: float) -> None:
    if shape not in SHAPES:
        raise SettingError(f"unknown line shape {shape!r}; known: {', '.join(SHAPES)}")
    for name, value in (("fwhm", width), ("frequency scale", scale)):
        if not (math.isfinite(value) and value > 0):
            raise ValueRangeError(f"the {name} must be a positive number, not {value}")
