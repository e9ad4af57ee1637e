"""Memory and time of steps with molecules of mixed sizes: micro-batches by molecules, and by edges.

    OMP_NUM_THREADS=1 python benchmarks/edge_budget.py

The store holds small molecules of the bundled one and, one in eight, arrangements of 60 to 120 carbon atoms.
Every measurement has a process of its own, by turns; it prints the processor time of a step (median without
the first), the largest resident set, the edges (N²) of the fullest micro-batch and the number of those.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric

from molspectra.chem.molecule import Molecule
from molspectra.data.store.bundled import bundled
from molspectra.data.store.store import Metadata, Row, Store, write_store
from molspectra.data.stream import BatchStream
from molspectra.models.equivariant_transformer import EquivariantTransformerConfig
from molspectra.models.model import ModelConfig, MolSpectra
from molspectra.training.config import LoopConfig, OptimizerConfig, PretrainConfig
from molspectra.training.data import BatchMaker
from molspectra.training.loop import Trainer
from molspectra.training.stages import PretrainStage

MOLECULES = 256


def write_mixed(path: Path) -> None:
    """Write the store; rows keep their atoms and places alone."""
    small = bundled("bundled")
    grid = 1.5 * np.stack(np.meshgrid(*[np.arange(5.0)] * 3), -1).reshape(-1, 3)
    rng = np.random.default_rng(0)
    rows = []
    for number in range(MOLECULES):
        if number % 8:
            molecule = small.molecule(int(rng.integers(len(small))))
        else:
            atoms = int(rng.integers(60, 121))
            molecule = Molecule(np.full(atoms, 6), grid[:atoms])
        rows.append(Row(molecule, {}, {}, None, identity=f"ID{number}"))
    write_store(path, rows, Metadata(source="bundled, and made up", licence="CC0-1.0"))


def measure(path: Path, batch: int, steps: int, accumulation: int, budget: int) -> dict[str, float]:
    """Processor seconds per step, peak memory and the fullest micro-batch of a training."""
    torch.manual_seed(0)
    encoder = EquivariantTransformerConfig(channels=128, layers=6)
    config = PretrainConfig(model=ModelConfig(encoder), loop=LoopConfig(batch_size=batch))
    store, stage = Store(path), PretrainStage(MolSpectra(config.model), config)
    rows = np.arange(len(store))
    stream = BatchStream(len(rows), batch, 0)
    maker = BatchMaker(store, rows, stream, (), (), 0, accumulation, edge_budget=budget)
    fabric = Fabric(accelerator="cpu", devices=1)
    trainer = Trainer(fabric, stage, maker, rows, config.loop, OptimizerConfig(), Path("unused"), show=False)
    spent, loads, parts = [], [], []
    for step in range(steps):
        start = time.process_time()
        micros = maker(step)
        loss = trainer._update(micros)["loss"]
        spent.append(time.process_time() - start)
        loads += [int((micro.batch.ptr.diff() ** 2).sum()) for micro in micros]
        parts.append(len(micros))
    return {
        "seconds": float(np.median(spent[1:])),
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "edges": max(loads),
        "micro_batches": float(np.mean(parts)),
        "loss": loss,
    }


def main() -> None:
    """Print a line per measurement; by turns, so that other work on the machine counts equally."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    cuts = "1,0 4,0 1,37000 16,0 1,20000"
    parser.add_argument("--cuts", default=cuts, help="pairs accumulation,edge_budget")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        path, accumulation, budget = asked.one
        print(json.dumps(measure(Path(path), asked.batch, asked.steps, int(accumulation), int(budget))))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mixed.arrow"
        write_mixed(path)
        for _ in range(asked.repeats):
            for cut in asked.cuts.split():
                settings = ["--batch", str(asked.batch), "--steps", str(asked.steps)]
                command = [sys.executable, __file__, *settings, "--one", str(path), *cut.split(",")]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                print(f"accumulation,edge_budget {cut:8} {done.stdout.strip()}", flush=True)


if __name__ == "__main__":
    main()
