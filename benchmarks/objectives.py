"""Denoising on one core: internal coordinates per molecule, and the cost of moving a batch of 128.

    python benchmarks/objectives.py                       # the bundled store
    python benchmarks/objectives.py --store qm9.arrow     # any other store (its side file is made if missing)

Prints medians of processor time, so that other work on the machine does not count; then what SliDe moves and
how much of masked patches can be seen.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from molspectra.chem.identity import perceived_bonds
from molspectra.chem.internal import internal_coordinates
from molspectra.data.random import Purpose, seed_for, uniform
from molspectra.data.store.bundled import bundled
from molspectra.data.store.internal import with_internal
from molspectra.data.store.store import Store
from molspectra.objectives.config import DenoisingConfig, ReconstructionConfig
from molspectra.objectives.denoising import denoising_objective
from molspectra.objectives.loss import NoiseKey
from molspectra.objectives.reconstruction import (
    MaskedReconstruction,
    block_masks,
    random_masks,
    runs_of_patches,
)
from molspectra.objectives.strain import energies, points
from molspectra.spectra.modality import MODALITIES

BATCH = 128


def median_ms(work: Callable[[int], object], repeats: int) -> float:
    """Median processor time of one call, after a warm-up."""
    times = []
    for k in range(-3, repeats):
        start = time.process_time()
        work(k)
        times.append(time.process_time() - start)
    return 1e3 * statistics.median(times[3:])


def preparation(store: Store, molecules: int) -> None:
    """Print the cost of internal coordinates, and what they are."""
    chosen = np.random.default_rng(0).choice(len(store), min(molecules, len(store)), replace=False)
    found = [store.molecule(int(row)) for row in chosen]
    internal_coordinates(found[0])
    start = time.process_time()
    bonds = [perceived_bonds(molecule) for molecule in found]
    middle = time.process_time()
    every = [
        internal_coordinates(molecule, mol)
        for molecule, mol in zip(found, bonds, strict=True)
        if mol is not None
    ]
    stop = time.process_time()
    n = len(found)
    print(
        f"{n} molecules of {np.mean([len(each) for each in found]):.1f} atoms: bonds perceived in "
        f"{1e3 * (middle - start) / n:.2f} ms each, coordinates in {1e3 * (stop - middle) / n:.2f} ms"
    )
    print(
        f"  no bonds found: {sum(mol is None for mol in bonds)}; no rotatable bond: "
        f"{np.mean([not each.rotatable.any() for each in every]):.1%}; per molecule "
        f"{np.mean([len(each.bonds) for each in every]):.1f} bonds, "
        f"{np.mean([len(each.angles) for each in every]):.1f} angles, "
        f"{np.mean([len(each.torsions) for each in every]):.1f} torsions, "
        f"{np.mean([each.rotatable.sum() for each in every]):.2f} rotatable"
    )
    for name, unit in (("bond", "Å"), ("angle", "rad"), ("torsion", "rad")):
        low, middle_, high = np.percentile(
            np.concatenate([getattr(each, f"{name}_sigma") for each in every]), [5, 50, 95]
        )
        print(f"  σ of {name}s: median {middle_:.3f} {unit}, 5 to 95 %: {low:.3f} to {high:.3f}")


def perturbation(store: Store) -> None:
    """Print the cost of moving a batch, and by how much SliDe moves it."""
    plain, store = store, with_internal(store, show=False)
    rows = [np.random.default_rng(k % 8).integers(0, len(store), BATCH) for k in range(-3, 20)]
    without = median_ms(lambda k: plain.batch(rows[k]), 20)
    print(
        f"a batch of {BATCH}: {without:.2f} ms without internal coordinates, "
        f"{median_ms(lambda k: store.batch(rows[k]), 20):.2f} ms with them"
    )
    batches = [store.batch(rows[k]) for k in range(8)]
    key = NoiseKey(0, torch.zeros(BATCH, dtype=torch.int64))
    for kind in ("coord", "frad", "slide"):
        objective = denoising_objective(DenoisingConfig(kind=kind))
        cost = median_ms(lambda k, moved=objective.perturb: moved(batches[k % 8], key), 24)
        print(f"  {kind}: {cost:.2f} ms to move it")
    for sigma in (1e-9, 0.04):
        objective = denoising_objective(DenoisingConfig(kind="slide", sigma=sigma))
        sums, forces = np.zeros(3), []
        for batch in batches:
            noised = objective.perturb(batch, key)
            both = (
                points(each.double(), batch.internal) for each in (batch.positions, noised.batch.positions)
            )
            sums += [2 * each.mean().item() / len(batches) for each in energies(*both, batch.internal)]
            forces.append(noised.force)
        rms = torch.cat(forces).square().mean().sqrt().item()
        what = "and Gaussian noise of 0.04 Å" if sigma > 1e-3 else "alone"
        print(
            f"  SliDe {what}: mean ((d - d₀)/σ)² of bonds {sums[0]:.2f}, angles {sums[1]:.2f}, torsions "
            f"{sums[2]:.2f}; force {rms:.1f} 1/Å (root mean square)"
        )


def masks(draws: int = 10_000) -> None:
    """Print how much of what is to be reconstructed stands in the input."""
    ids, epoch = torch.arange(draws), torch.zeros(draws, dtype=torch.int64)
    for ratio in (0.1, 0.3):
        for kind in ("random", "block"):
            config = ReconstructionConfig(mask_ratio=ratio, mask=kind)
            objective = MaskedReconstruction(config, MODALITIES)
            shown = []
            for name, each in MODALITIES.items():
                count = each.patches if kind == "random" else len(runs_of_patches(each.patches, ratio, 7))
                scores = uniform(seed_for(0, name), epoch, ids, Purpose.MASK, count)
                mask = (
                    random_masks(scores, ratio)
                    if kind == "random"
                    else block_masks(scores, each.patches, ratio, config.block)
                )
                found = objective.leakage(name, mask)
                shown.append(f"{name} {found.points:.1%} of values, {found.patches:.1%} of patches")
            print(f"visible, {kind} masks of {ratio:.0%}: {'; '.join(shown)}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", default=None)
    parser.add_argument("--molecules", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    store = bundled() if options.store is None else Store(options.store)
    preparation(store, options.molecules)
    perturbation(store)
    masks()


if __name__ == "__main__":
    main()
