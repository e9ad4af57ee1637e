"""Whether masked patches of spectra are learnt: SpecFormer alone, with nothing but its reconstruction.

    python benchmarks/reconstruction.py --store spectra.arrow [--molecules 64 --steps 800] [ARM ...]

Prints the error of masked patches during training and then on 256 other molecules, as a share of the error of
the best constant: the mean spectrum of the training molecules. 1 means that nothing was learnt.
"""

import argparse
import math
import time
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from molspectra.data.batch import Batch
from molspectra.data.store.store import Store
from molspectra.models.config import SpecFormerConfig
from molspectra.models.specformer import SpecFormer, transform
from molspectra.objectives.config import ReconstructionConfig
from molspectra.objectives.loss import NoiseKey
from molspectra.objectives.reconstruction import MaskedReconstruction

HELD_OUT = 256
CURVE = 6  # points of the printed curve


@dataclass(frozen=True)
class Arm:
    """Settings of one training."""

    model: SpecFormerConfig
    objective: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    learning_rate: float = 1e-3


def arms(name: str) -> dict[str, Arm]:
    """Return the trainings for one modality, by name."""
    small = SpecFormerConfig(modalities=(name,), width=64, heads=4, layers=3, feed_forward=128)
    uniform = replace(small, positions="uniform")
    return {
        "published": Arm(replace(uniform, width=128, heads=16, feed_forward=256), learning_rate=4e-4),
        "uniform": Arm(uniform),
        "uniform, 3e-3": Arm(uniform, learning_rate=3e-3),
        "sinusoidal": Arm(small),
        "sinusoidal, 3e-3": Arm(small, learning_rate=3e-3),
        "apart": Arm(replace(small, patch=(50,), stride=(50,))),
        "mask 0.3": Arm(small, ReconstructionConfig(mask_ratio=0.3)),
        "block 0.3": Arm(small, ReconstructionConfig(mask_ratio=0.3, mask="block")),
    }


def main() -> None:
    """Train every arm that is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("arms", nargs="*", help="some of the arms; all if none are given")
    parser.add_argument("--store", required=True)
    parser.add_argument("--modality", default="ir")
    parser.add_argument("--molecules", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    name, store = options.modality, Store(options.store)
    rows = np.flatnonzero(store.has(name))[: options.molecules + HELD_OUT]
    batch = store.batch(rows, modalities=(name,))
    learnt, other = part(batch, slice(0, options.molecules)), part(batch, slice(options.molecules, None))
    values = transform(learnt.spectra[name])
    constant = float((values - values.mean(0)).square().mean())
    known = arms(name)
    for label in options.arms or known:
        train(label, known[label], name, learnt, other, options.steps, constant)


def part(batch: Batch, rows: slice) -> Batch:
    """Return a batch of which only spectra and identities matter."""
    spectra = {name: values[rows] for name, values in batch.spectra.items()}
    present = {name: values[rows] for name, values in batch.present.items()}
    return replace(batch, spectra=spectra, present=present, geometry_id=batch.geometry_id[rows])


def train(label: str, arm: Arm, name: str, learnt: Batch, other: Batch, steps: int, constant: float) -> None:
    """Train with batches of 32 and print the curve."""
    torch.manual_seed(0)
    model = SpecFormer(arm.model, 8)
    objective = MaskedReconstruction(arm.objective, model.kinds)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    generator = torch.Generator().manual_seed(1)
    began, losses = time.process_time(), []

    def loss(batch: Batch, epoch: int) -> torch.Tensor:
        key = NoiseKey(0, torch.full_like(batch.geometry_id, epoch))
        masks = objective.masks(batch, key)
        index = objective.masked_index(masks)
        tokens = model.reference_forward(objective.visible(batch.spectra, masks), masks).tokens
        result = objective(model.reconstruct(tokens, index=index), batch, index)[name]
        return result.sum / result.count

    for step in range(steps):
        rate = arm.learning_rate * min(1.0, (step + 1) / 50) * (1 + math.cos(math.pi * step / steps)) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate
        chosen = torch.randint(len(learnt.geometry_id), (32,), generator=generator)
        some = replace(
            learnt,
            spectra={name: learnt.spectra[name][chosen]},
            present={name: learnt.present[name][chosen]},
            geometry_id=learnt.geometry_id[chosen],
        )
        error = loss(some, step)
        optimizer.zero_grad()
        error.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        losses.append(float(error.detach()) / constant)
    model.eval()
    with torch.no_grad():
        held_out = float(loss(other, 0)) / constant
    means = [float(np.mean(points)) for points in np.array_split(losses, CURVE)]
    curve = ", ".join(f"{mean:.2f}" for mean in means)
    seconds = time.process_time() - began
    print(f"{label:18} training {curve}; others {held_out:.2f}; {seconds:.0f} CPU-seconds", flush=True)


if __name__ == "__main__":
    main()
