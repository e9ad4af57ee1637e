"""Train the network that compares infrared spectra, `search/network.safetensors`.

    python scripts/train_network.py --out build/network --stores spectra.arrow     # an hour of one busy core
    python scripts/train_network.py --out build/network --weigh                    # its share in the score

Trained on computed lines of the given stores (GFN2-xTB, of `compute_levels.py` for example) and of the
bundled library, of which a tenth of the molecules is left out. Those are searched in the whole library, with
spectra changed by `molspectra.search.calibrate.measured_like`, which the training does not use: `--weigh`
prints how often they are found by shares of the network in the score `match`, and writes the weights.
Interrupted, the training continues from its last hundred steps.
"""

import argparse
import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from shipping import rounded
from torch import Tensor
from torch.nn import functional

from molspectra.data.store.bundled import bundled
from molspectra.data.store.store import Store
from molspectra.search import network
from molspectra.search.calibrate import measured_like
from molspectra.search.shape import shapes, similarities
from molspectra.search.vectors import coarse, unit
from molspectra.spectra.modality import modality
from molspectra.spectra.units import FWHM_PER_SIGMA

STEPS, BATCH, RATE = 2500, 320, 1.5e-3
HARMONIC = 0.98
"""Factor on the lines of stores at GFN2-xTB; those of the library are near to observed ones."""
SHIFT, GAIN = 22.0, 0.8
"""Standard deviations of the shifts of bands, cm⁻¹, and of the logarithm of factors on intensities."""
CORRELATION = 60.0
"""Distance over which common shifts change, cm⁻¹."""
MANTISSA = 2
"""Bits of the mantissa of stored weights."""
SHARES = (0.0, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 1.0)

KIND = modality(network.MODALITY)
CENTRES = coarse(KIND.axis(), KIND)
START, STEP, POINTS = float(CENTRES[0]), float(CENTRES[1] - CENTRES[0]), len(CENTRES)


def is_left_out(identity: str) -> bool:
    """Whether a molecule of the library is not trained on."""
    return int(hashlib.md5(identity.encode()).hexdigest()[:4], 16) % 10 == 0


def lines_of(store: Store, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """Positions and intensities [n, lines] of some rows, with zeros after the last line."""
    spectra = [store.row(int(row)).spectra[network.MODALITY] for row in rows]
    longest = max(len(spectrum.position) for spectrum in spectra)
    position, intensity = np.zeros((2, len(spectra), longest), np.float32)
    for number, spectrum in enumerate(spectra):
        position[number, : len(spectrum.position)] = spectrum.position
        intensity[number, : len(spectrum.position)] = np.maximum(spectrum.intensity, 0)
    return torch.from_numpy(position), torch.from_numpy(intensity)


def training_lines(paths: list[Path]) -> tuple[Tensor, Tensor, Tensor]:
    """Positions and intensities [n, lines], and a number of each molecule [n]; the library counts twice."""
    library = bundled("bundled-library")
    own = set(library.identities)
    parts = []
    for path in paths:
        store = Store(path)
        has = store.has(network.MODALITY)
        rows = np.array([row for row, each in enumerate(store.identities) if has[row] and each not in own])
        position, intensity = lines_of(store, rows)
        parts.append((HARMONIC * position, intensity, [store.identities[row] for row in rows]))
    rows = np.array([row for row, identity in enumerate(library.identities) if not is_left_out(identity)])
    parts += 2 * [(*lines_of(library, rows), [library.identities[row] for row in rows])]
    longest = max(part[0].shape[1] for part in parts)
    position, intensity = (
        torch.cat([functional.pad(part[which], (0, longest - part[which].shape[1])) for part in parts])
        for which in (0, 1)
    )
    number_of: dict[str, int] = {}
    every = [number_of.setdefault(identity, len(number_of)) for part in parts for identity in part[2]]
    return position, intensity, torch.tensor(every)


def rendered(
    position: Tensor, intensity: Tensor, width: Tensor, branches: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Spectra [B, P] of lines [B, lines] as Gaussians.

    Args:
        position: cm⁻¹.
        intensity: 0 or more.
        width: full width at half maximum [B], cm⁻¹.
        branches: share of a band in its P and R branches [B, 1], and their distance from its centre, cm⁻¹.
    """
    place = (position - START) / STEP
    lower = torch.floor(place).long()
    comb = torch.zeros(len(position), 2 * POINTS)
    for offset, share in ((0, 1 - (place - lower)), (1, place - lower)):
        at = lower + offset
        weight = torch.where((at >= 0) & (at < POINTS), intensity * share, torch.zeros(()))
        comb.scatter_add_(1, at.clamp(0, POINTS - 1), weight)
    frequency = torch.fft.rfftfreq(2 * POINTS)
    sigma = (width / FWHM_PER_SIGMA / STEP)[:, None]
    kernel = torch.exp(-2 * (np.pi * frequency * sigma) ** 2)
    if branches is not None:
        share, distance = branches
        kernel = kernel * (1 - share + share * torch.cos(2 * np.pi * frequency * distance / STEP))
    return torch.fft.irfft(torch.fft.rfft(comb) * kernel, n=2 * POINTS)[:, :POINTS].clamp(min=0)


def disturbed(position: Tensor, intensity: Tensor, generator: torch.Generator) -> Tensor:
    """Spectra [B, P] of lines [B, lines] as an instrument might have measured them."""
    size, lines = position.shape

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    def some(share: float) -> Tensor:
        return (uniform(size, 1) < share).float()

    is_high = (position > 2200).float()
    scale = 1 + 0.012 * normal(size, 1) + is_high * 0.008 * normal(size, 1)
    knots = normal(size, int(KIND.stop / CORRELATION) + 6)
    place = (position / CORRELATION).clamp(0, knots.shape[1] - 1.01)
    left = place.floor().long()
    common = knots.gather(1, left) * (1 - place + left) + knots.gather(1, left + 1) * (place - left)
    moved = position * scale + SHIFT * (0.65 * normal(size, lines) + 0.9 * common)
    strength = intensity * torch.exp(GAIN * normal(size, lines) + 0.5 * is_high * normal(size, 1))
    branches = some(0.35) * (0.5 + 0.5 * uniform(size, 1)), 5 + 22 * uniform(size, 1)
    spectra = rendered(moved, strength, 10 + 30 * uniform(size) ** 2, branches)
    spectra = spectra / spectra.amax(1, keepdim=True).clamp(min=1e-20)
    spectra = torch.where(some(0.2) > 0, 1 - torch.exp(-3 * spectra), spectra)  # a saturated detector
    along = torch.linspace(0, 1, POINTS)
    wave = torch.cos(2 * np.pi * (2 * uniform(size, 1) * along + uniform(size, 1)))
    spectra = spectra + 0.01 * normal(size, 1) * wave + 0.006 * uniform(size, 1) * normal(size, POINTS)
    first, last = 0.1 * some(0.3) * uniform(size, 1), 1 - 0.25 * some(0.15) * uniform(size, 1)
    return torch.where((along < first) | (along > last), torch.zeros(()), spectra)


def train(out: Path, paths: list[Path], seed: int) -> None:
    """Train, and write the state every hundred steps."""
    position, intensity, molecule = training_lines(paths)
    print(f"{len(position)} spectra, {int(molecule.max()) + 1} molecules", flush=True)
    torch.manual_seed(seed)
    model = network.Network().train()
    optimiser = torch.optim.AdamW(model.parameters(), RATE, weight_decay=1e-2)
    first, total, state = 0, 0.0, out / "state.pt"
    if state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        first = saved["step"]
    for step in range(first, STEPS):
        generator = torch.Generator().manual_seed(10**6 * seed + step)
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 100) * 0.5 * (1 + np.cos(np.pi * step / STEPS)) + 1e-6
        chosen = torch.randperm(len(position), generator=generator)[:BATCH]
        lines = position[chosen], intensity[chosen]
        queries = model(disturbed(*lines, generator))
        entries = model(rendered(*lines, torch.full((BATCH,), KIND.fwhm)))
        logits = queries @ entries.T * model.log_inverse_temperature.exp()
        same = molecule[chosen][:, None] == molecule[chosen]
        logits = logits.masked_fill(same & ~torch.eye(BATCH, dtype=torch.bool), -1e4)
        target = torch.arange(BATCH)
        loss = 0.5 * (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += loss.item()
        if (step + 1) % 100 == 0:
            found = float((logits.argmax(1) == target).float().mean())
            print(f"{step + 1}: loss {total / 100:.3f}, first of {BATCH}: {found:.2f}", flush=True)
            total = 0.0
            torch.save(
                {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1}, state
            )


def weigh(out: Path) -> None:
    """Write the weights, and print how often molecules that were left out are found."""
    saved = torch.load(out / "state.pt", weights_only=True)["model"]
    weights = {name: rounded(values, MANTISSA).to(torch.bfloat16) for name, values in saved.items()}
    save_file(weights, network.FILE)
    library = bundled("bundled-library")
    rows = [row for row in range(len(library)) if library.has(network.MODALITY)[row]]
    computed = np.stack([library.spectrum(row, network.MODALITY).broadened().values for row in rows])
    samples = unit(coarse(computed.astype(np.float32), KIND))
    queries = [number for number, row in enumerate(rows) if is_left_out(library.identities[row])]
    measured = measured_like(computed[queries].astype(np.float32), network.MODALITY)
    everywhere = np.ones(KIND.points, bool)
    by_shape = similarities(samples, shapes(measured, everywhere, everywhere, KIND), KIND)
    stretched = network.stretched(np.maximum(measured, 0), network.SCALES)
    by_network = network.similarities(network.vectors(samples), stretched)
    print(f"{len(queries)} molecules that were not trained on, in a library of {len(rows)}: first, among ten")
    for share in SHARES:
        scores = np.nan_to_num((1 - share) * by_shape + share * by_network, nan=-1)
        right = scores[queries, np.arange(len(queries))]
        rank = (scores > right).sum(0) + 1
        print(f"  share of the network {share:4.2f}: {np.mean(rank == 1):.3f} {np.mean(rank <= 10):.3f}")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the state")
    parser.add_argument("--stores", type=Path, nargs="*", default=[], help="stores with infrared lines")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weigh", action="store_true", help="write the weights and choose the share")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    weigh(options.out) if options.weigh else train(options.out, options.stores, options.seed)


if __name__ == "__main__":
    main()
