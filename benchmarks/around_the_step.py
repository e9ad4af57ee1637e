"""What a step costs besides its passes over the molecules, at the published sizes, interleaved in one run.

    OMP_NUM_THREADS=1 python benchmarks/around_the_step.py --batch 8

Prints medians of processor time, so that other work on the machine does not count: the optimizer, the
gradient's norm, clipping and the average of the weights; then a stage-2 step of two micro-batches with and
without the first pass for the alignment of all.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import nn

from molspectra.data.stream import BatchStream
from molspectra.models.config import ModelConfig, SpecFormerConfig
from molspectra.models.model import MolSpectra
from molspectra.training.average import WeightAverage
from molspectra.training.config import LoopConfig, OptimizerConfig, PretrainConfig, PretrainWeights
from molspectra.training.data import BatchMaker, Selection
from molspectra.training.loop import Trainer
from molspectra.training.stages import PretrainStage


def medians(works: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each over all threads; all take turns, the first round does not count."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats + 1):
        for name, work in works.items():
            start = time.process_time()
            work()
            times[name].append(1e3 * (time.process_time() - start))
    return {name: statistics.median(found[1:]) for name, found in times.items()}


def over_weights() -> dict[str, Callable[[], object]]:
    """Everything that goes once over all weights or gradients."""
    works: dict[str, Callable[[], object]] = {}
    for name, options in (("AdamW, fused", {"fused": True}), ("AdamW, torch's default", {})):
        model = model_of()
        for weight in model.parameters():
            weight.grad = 1e-3 * torch.randn_like(weight)
        works[name] = torch.optim.AdamW(model.parameters(), **options).step
    weights = list(model.parameters())
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    average, norm = WeightAverage(model, 0.999), torch.tensor(1.0)
    works["norm of the gradient"] = lambda: nn.utils.get_total_norm(gradients)
    works["clipping"] = lambda: nn.utils.clip_grads_with_norm_(weights, 1e9, norm)
    works["average of the weights"] = lambda: average.update(model, 10**6)
    return works


def model_of() -> MolSpectra:
    """The published model with both encoders."""
    return MolSpectra(ModelConfig(spectrum_encoder=SpecFormerConfig()))


def accumulated(batch: int) -> dict[str, Callable[[], object]]:
    """Steps of two micro-batches each."""
    works: dict[str, Callable[[], object]] = {}
    for name, weight in (("contrast over the step", 1.0), ("no contrast", 0.0)):
        config = PretrainConfig(
            loop=LoopConfig(batch_size=batch, accumulation=2), weights=PretrainWeights(alignment=weight)
        )
        stage, selection = PretrainStage(model_of(), config), Selection.of(config.data)
        stream = BatchStream(len(selection.train), batch, 0)
        maker = BatchMaker(selection.store, selection.train, stream, stage.modalities, (), 0, 2)
        fabric = Fabric(accelerator="cpu", devices=1)
        trainer = Trainer(
            fabric, stage, maker, selection.val, config.loop, OptimizerConfig(), Path("unused"), show=False
        )
        micros = maker(0)
        works[name] = lambda trainer=trainer, micros=micros: trainer._update(micros)  # type: ignore[misc]
    return works


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    print(f"{sum(weight.numel() for weight in model_of().parameters()) / 1e6:.1f} million weights")
    for works, repeats in ((over_weights(), 5 * asked.repeats), (accumulated(asked.batch), asked.repeats)):
        for name, milliseconds in medians(works, repeats).items():
            print(f"{name:26} {milliseconds:9.1f} ms")


if __name__ == "__main__":
    main()
