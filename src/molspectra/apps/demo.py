"""The demo: simulation, both pre-training stages, fine-tuning from three starts, and a page about it.

Every part records that it is finished and is not repeated, so an interrupted demo continues. All starts of
the comparison use the same molecules, steps and seeds; pre-training is done once.
"""

import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from molspectra.chem.readers import from_smiles
from molspectra.errors import ExistsError, InputError, MismatchError, SettingError
from molspectra.evaluation.evaluate import evaluate
from molspectra.reporting.collect import collect_report
from molspectra.reporting.live import simulated_molecule
from molspectra.reporting.report import write_report
from molspectra.simulation.records import read_journal
from molspectra.simulation.runner import simulate_many
from molspectra.training.config import FinetuneConfig, PretrainConfig
from molspectra.training.record import machine, read_json, write_json
from molspectra.training.run import finetune, pretrain
from molspectra.training.settings import from_dict, read_recipe

LIVE = {
    "water": "O",
    "carbon dioxide": "O=C=O",
    "formaldehyde": "C=O",
    "ethanol": "CCO",
    "acetone": "CC(C)=O",
}
"""Molecules that the demo simulates: SMILES by name."""

STARTS = ("scratch", "stage1", "stage2")
"""Weights that fine-tuning starts from."""

SUMMARY, REPORT, PARTS = "summary.json", "report.html", "parts.json"


@dataclass(frozen=True)
class Scale:
    """Numbers of molecules, training steps and seeds of a demo."""

    molecules: int
    stage1_steps: int
    stage2_steps: int
    finetune_steps: int
    seeds: tuple[int, ...]


SCALES = {
    "full": Scale(len(LIVE), stage1_steps=500, stage2_steps=300, finetune_steps=300, seeds=(0, 1)),
    "smoke": Scale(1, stage1_steps=4, stage2_steps=4, finetune_steps=4, seeds=(0, 1)),
}


class Demo:
    """Parts of a demo in its directory, with the wall time of each, s."""

    def __init__(self, out: Path, scale: Scale, show: bool) -> None:
        self.out, self.scale, self.show = out, scale, show
        self.seconds: dict[str, float] = read_json(out / PARTS) if (out / PARTS).is_file() else {}

    def part(self, name: str, work: Callable[[], object]) -> None:
        """Run a part unless it is finished already, and record its wall time."""
        if name in self.seconds:
            return
        began = time.perf_counter()
        work()
        self.seconds[name] = round(time.perf_counter() - began, 2)
        write_json(self.out / PARTS, self.seconds)

    def simulate(self) -> None:
        """Compute the spectra of a few molecules."""
        chosen = list(LIVE.items())[: self.scale.molecules]
        molecules = [from_smiles(smiles, name=name) for name, smiles in chosen]
        result = simulate_many(molecules, self.out / "simulated.jsonl", progress=self.show)
        if result.failures:
            raise InputError(f"{result.failures[0].label}: {result.failures[0].error}")

    def train(self, name: str, recipe: str, start: str, steps: int, seed: int = 0) -> None:
        """Train by a small recipe from the weights of another run, or "scratch", and evaluate the run."""
        cls: type[Any] = FinetuneConfig if recipe == "small-gap" else PretrainConfig
        run: Callable[..., object] = finetune if recipe == "small-gap" else pretrain
        init = None if start == "scratch" else str(self.out / start)
        config = from_dict(cls, read_recipe(recipe) | {"init": init}, recipe)
        config = replace(config, loop=replace(config.loop, steps=steps, seed=seed))
        run(config, self.out / name, resume=True, show=self.show)
        evaluate(self.out / name)

    def arms(self) -> list[tuple[str, int]]:
        """Return all (start, seed), seed by seed, so that the starts of an unfinished demo stay paired."""
        return [(start, seed) for seed in self.scale.seeds for start in STARTS]

    def summary(self) -> dict[str, Any]:
        """Return the content of `summary.json`."""
        maes: dict[str, list[float]] = {start: [] for start in STARTS}
        for start, seed in self.arms():
            maes[start].append(read_json(self.out / f"gap-{start}-seed{seed}" / "evaluation.json")["mae"])
        retrieval = read_json(self.out / "stage2" / "evaluation.json")["retrieval"]
        return {
            "gap_mae_ev": maes,
            "seeds": list(self.scale.seeds),
            "pretraining_repeated_per_seed": False,
            "retrieval_top1": retrieval["recall"]["1"],
            "retrieval_top5": retrieval["recall"]["5"],
            "gallery_size": retrieval["gallery_size"],
            "wall_seconds": round(sum(self.seconds.values()), 1),
            "seconds": self.seconds,
            "machine": machine(),
        }

    def report(self) -> None:
        """Write `report.html` and `summary.json`."""
        began = time.perf_counter()
        runs = [self.out / name for name in ("stage1", "stage2")]
        runs += [self.out / f"gap-{start}-seed{seed}" for start, seed in self.arms()]
        content = collect_report(runs, "molspectra demo")
        simulated = tuple(
            simulated_molecule(record.simulation, record.seconds)
            for record in read_journal(self.out / "simulated.jsonl")
            if record.simulation
        )
        more = (
            f"Stage 2 continues stage 1 for {self.scale.stage2_steps} steps, so it has also denoised for "
            "longer; the demo does not tell apart what the spectra and what the further steps gave."
        )
        total = sum(self.seconds.values())
        content = replace(content, simulated=simulated, wall_seconds=total, notes=(*content.notes, more))
        write_report(self.out / REPORT, content)
        self.seconds["report"] = round(time.perf_counter() - began, 2)
        write_json(self.out / SUMMARY, self.summary())


def run_demo(
    out: str | Path = "runs/demo", scale: str = "full", *, overwrite: bool = False, show: bool = True
) -> dict[str, Any]:
    """Run or continue the demo; of a finished one only the summary is read.

    Args:
        out: directory of the demo.
        scale: "full" or "smoke".
        overwrite: remove an earlier demo first.
        show: show progress on standard error.

    Returns:
        The content of `summary.json`.

    Raises:
        InputError: the directory contains something else, or a demo of another scale.
    """
    if scale not in SCALES:
        raise SettingError(f"unknown scale {scale!r}; known: {', '.join(SCALES)}")
    out = Path(out)
    marker = out / "demo.json"
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not marker.is_file():
            raise ExistsError(f"{out}: exists already and holds no demo; choose another directory")
        if overwrite:
            shutil.rmtree(out)
        elif read_json(marker) != {"scale": scale}:
            raise MismatchError(
                f"{out}: holds a demo of another scale; give --overwrite or another directory"
            )
        elif (out / SUMMARY).is_file():
            summary: dict[str, Any] = read_json(out / SUMMARY)
            return summary | {"out": str(out)}
    out.mkdir(parents=True, exist_ok=True)
    write_json(marker, {"scale": scale})
    demo = Demo(out, SCALES[scale], show)
    demo.part("simulation", demo.simulate)
    steps = SCALES[scale]
    demo.part("stage1", lambda: demo.train("stage1", "small-stage1", "scratch", steps.stage1_steps))
    demo.part("stage2", lambda: demo.train("stage2", "small-stage2", "stage1", steps.stage2_steps))
    for start, seed in demo.arms():
        name = f"gap-{start}-seed{seed}"
        demo.part(name, partial(demo.train, name, "small-gap", start, steps.finetune_steps, seed))
    demo.report()
    return demo.summary() | {"out": str(out)}


def table(summary: dict[str, Any]) -> str:
    """Return the results of the demo as text."""
    lines = ["HOMO-LUMO gap, test MAE in eV (same data, steps and seeds; pre-training done once)"]
    for start, values in summary["gap_mae_ev"].items():
        seeds = "  ".join(f"{value:.3f}" for value in values)
        lines.append(f"  {start:<8} mean {statistics.mean(values):.3f}   by seed {seeds}")
    size = summary["gallery_size"]
    lines.append(
        f"structures found by their spectra among {size}: top 1 {summary['retrieval_top1']:.1%}, "
        f"top 5 {summary['retrieval_top5']:.1%} (chance {1 / size:.1%}, {min(5 / size, 1):.1%})"
    )
    lines.append(f"{summary['wall_seconds']:.0f} s; see {Path(summary['out']) / REPORT}")
    return "\n".join(lines)
