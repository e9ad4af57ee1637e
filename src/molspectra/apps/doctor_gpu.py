"""Checks of a GPU: numbers of a CPU, physics, times; written for any device, so that a CPU can try them.

The report holds no paths and no names of users or machines, so that it can be sent in as it is.
"""

import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from molspectra.compiled import use
from molspectra.data.batch import Batch
from molspectra.errors import SettingError
from molspectra.models.model import MolSpectra, energy_and_forces
from molspectra.reproduce.scales import merged
from molspectra.training.config import FinetuneConfig, PretrainConfig, RunConfig
from molspectra.training.data import Selection
from molspectra.training.loop import Trainer
from molspectra.training.progress import progress
from molspectra.training.record import commit, machine, versions
from molspectra.training.run import new_trainer
from molspectra.training.settings import from_dict, read_recipe
from molspectra.training.stages import FinetuneStage, PretrainStage, Stage
from molspectra.training.standardise import standardise

RECIPES: dict[str, tuple[str, type[PretrainConfig] | type[FinetuneConfig]]] = {
    "stage 1": ("paper-stage1", PretrainConfig),
    "stage 2": ("paper-stage2", PretrainConfig),
    "fine-tuning": ("base-gap", FinetuneConfig),
}
"""Steps that are checked, with the recipes that have their models; on the bundled molecules."""

LIMITS = {"loss": 1e-3, "gradient": 2e-2, "rotation": 1e-8, "forces": 1e-5, "waits": 0}
"""Largest values that pass: relative differences, and how often a step waits for the GPU."""

WARM_UP = 3
"""Steps before the timed ones."""

Changes = Mapping[str, Any]
"""Nested settings that are merged into those of a recipe."""


def gpu() -> torch.device:
    """Return the first CUDA GPU.

    Raises:
        SettingError: torch sees none.
    """
    if not torch.cuda.is_available():
        raise SettingError(
            "doctor --gpu: torch sees no CUDA GPU here; run it where there is one, with torch for CUDA"
        )
    return torch.device("cuda", torch.cuda.current_device())


def report(
    device: torch.device, changes: Changes | None = None, steps: int = 10, *, show: bool = False
) -> dict[str, Any]:
    """Run all checks and times on a device; what fails or raises is part of the report.

    Args:
        device: to check.
        changes: settings merged into those of all recipes, such as a smaller model.
        steps: timed steps.
        show: progress on standard error.

    Returns:
        "ok", "failed" (names of the checks that did not pass), versions, device, and the results by part.
    """
    changes = changes or {}
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "parity": lambda: {name: parity(name, device, changes) for name in RECIPES},
        "physics": lambda: physics(device, changes),
        "waits": lambda: {name: waits(name, device, changes) for name in RECIPES},
        "benchmark": lambda: benchmark(device, changes, steps),
    }
    results = {}
    with use("plain"), progress("checks of the GPU", len(parts), show=show) as advance:
        for done, (name, part) in enumerate(parts.items(), 1):
            results[name] = _attempt(part)
            advance(done, name)
    failed = sorted(_failed(results, ""))
    return {
        "ok": not failed,
        "failed": failed,
        "limits": LIMITS,
        "versions": versions() | {"cuda": torch.version.cuda},
        "commit": commit(),
        "machine": machine(),
        "device": _description(device),
        "settings": {"recipes": {name: recipe for name, (recipe, _) in RECIPES.items()}, "changes": changes},
        **results,
    }


def parity(name: str, device: torch.device, changes: Changes) -> dict[str, float]:
    """Compare a step in float32 on a device with the same in float64 on the CPU, from equal weights.

    Returns:
        "loss", the largest relative difference of a loss, and "gradient", the length of the difference of all
        gradients over that of the gradients.
    """
    with use("plain"):
        exact, step = (
            _trainer(name, where, merged(changes, {"loop": {"precision": precision}}))
            for where, precision in ((torch.device("cpu"), "64-true"), (device, "32-true"))
        )
        losses, gradients = zip(*map(_first_step, (exact, step)), strict=True)
    return {
        "loss": float(((losses[1] - losses[0]) / losses[0]).abs().max()),
        "gradient": float((gradients[1] - gradients[0]).norm() / gradients[0].norm()),
    }


def physics(device: torch.device, changes: Changes) -> dict[str, float]:
    """Check in float64 on a device that energies do not change with the orientation, and what forces are.

    Returns:
        "rotation", the change of energies by a rotation over their size, and "forces", the largest difference
        of forces from the negative gradient by differences of the energy, over the largest force.
    """
    with use("plain"):
        trainer = _trainer("fine-tuning", device, merged(changes, {"loop": {"precision": "64-true"}}))
        model, batch = trainer.stage.model.eval(), _batch(trainer, device, torch.float64)
        generator = torch.Generator().manual_seed(0)
        rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=generator)).Q.to(device)
        found = energy_and_forces(model, batch)
        turned = energy_and_forces(model, batch.with_positions(batch.positions @ rotation.T))
        along = torch.randn(batch.positions.shape, dtype=torch.float64, generator=generator).to(device)
        step = 1e-6
        with torch.no_grad():
            plus, minus = (model(batch.with_positions(batch.positions + s * step * along)) for s in (1, -1))
        slope = -(plus - minus) / (2 * step)
        work = torch.zeros_like(slope).index_add_(0, batch.molecule, (found.forces * along).sum(1))
    return {
        "rotation": float((turned.energy - found.energy).abs().max() / found.energy.abs().max()),
        "forces": float((slope - work).abs().max() / work.abs().max()),
    }


def waits(name: str, device: torch.device, changes: Changes) -> dict[str, Any]:
    """Count how often the host waits for a GPU within a step, as CUDA itself reports it; none on a CPU."""
    if device.type != "cuda":
        return {}
    trainer = _trainer(name, device, changes)
    _steps(trainer, 2)
    micros = trainer.maker(2)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer._start_step(micros)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    found = [warning for warning in caught if "synchroniz" in str(warning.message)]
    places = sorted({f"{Path(warning.filename).name}:{warning.lineno}" for warning in found})
    return {"waits": len(found), "places": places}


def benchmark(device: torch.device, changes: Changes, steps: int) -> dict[str, Any]:
    """Time steps and inference with float32, bfloat16, and float32 by `torch.compile`.

    Returns:
        Per step and way "seconds_per_step" (median), "molecules_per_second" and "peak_memory_gb" (of a GPU);
        an "error" where a way does not work.
    """
    ways: dict[str, Changes] = {"float32": {"precision": "32-true"}, "bf16": {"precision": "bf16-mixed"}}
    if device.type == "cuda":
        ways["float32 compiled"] = {"precision": "32-true", "compile": True}
    return {
        name: {
            way: _attempt(partial(_timed, name, device, merged(changes, {"loop": loop}), steps))
            for way, loop in ways.items()
        }
        for name in (*RECIPES, "inference")
    }


def _timed(name: str, device: torch.device, changes: Changes, steps: int) -> dict[str, Any]:
    """Median time of a step, after `WARM_UP` steps."""
    is_inference = name == "inference"
    trainer = _trainer("fine-tuning" if is_inference else name, device, changes)
    batch = _batch(trainer, device, torch.float32)

    def once() -> None:
        if not is_inference:
            return _steps(trainer, 1)
        with torch.no_grad(), trainer.fabric.autocast():
            trainer.stage.model.eval()(batch)

    for _ in range(WARM_UP):
        once()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    for _ in range(steps):
        _wait(device)
        began = time.perf_counter()
        once()
        _wait(device)
        seconds.append(time.perf_counter() - began)
    result = {
        "seconds_per_step": median(seconds),
        "molecules_per_second": trainer.loop.batch_size / median(seconds),
        "batch_size": trainer.loop.batch_size,
    }
    if device.type == "cuda":
        result["peak_memory_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    return result


def _trainer(name: str, device: torch.device, changes: Changes) -> Trainer:
    """Return a trainer at its first step: the settings of a recipe, the bundled molecules, no checkpoint."""
    recipe, kind = RECIPES[name]
    loop = {
        "steps": 10**6,
        "log_every": 10**6,
        "validate_every": 0,
        "save_every": 0,
        "accelerator": device.type,
    }
    own: dict[str, Any] = {"init": None, "loop": loop, "optimizer": {"schedule": {"kind": "constant"}}}
    if kind is FinetuneConfig:
        own["model"] = {"property": "scalar"}
    values = merged({**read_recipe(recipe), "data": {}}, own)
    config: RunConfig = from_dict(kind, merged(values, changes), recipe)
    place = [device.index or 0] if device.type == "cuda" else 1
    fabric = Fabric(accelerator=device.type, devices=place, precision=config.loop.precision)
    fabric.launch()
    selection = Selection.of(config.data, getattr(config, "labels", ()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MolSpectra(config.model)
    stage: Stage
    if isinstance(config, FinetuneConfig):
        standardise(model, selection, config.targets)
        stage = FinetuneStage(model, config)
    else:
        stage = PretrainStage(model, config)
    return new_trainer(config, fabric, stage, selection, Path("unused"), {}, False)


def _first_step(trainer: Trainer) -> tuple[Tensor, Tensor]:
    """Losses [losses] and gradients [weights] of the first step, float64 on the CPU."""
    micros = trainer.maker(0)
    losses = trainer._backward(micros, trainer._counts(micros))
    gradients = [weight.grad for weight in trainer.stage.parameters() if weight.grad is not None]
    return losses.cpu().double(), torch.cat([gradient.flatten() for gradient in gradients]).cpu().double()


def _steps(trainer: Trainer, count: int) -> None:
    for _ in range(count):
        trainer._update(trainer.maker(trainer.step))
        trainer.step += 1


def _batch(trainer: Trainer, device: torch.device, dtype: torch.dtype) -> Batch:
    (micro,) = trainer.maker(0)
    return micro.batch.to(device, dtype)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _description(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"name": device.type}
    known = torch.cuda.get_device_properties(device)
    return {
        "name": known.name,
        "capability": f"{known.major}.{known.minor}",
        "memory_gb": known.total_memory / 1e9,
        "bf16": torch.cuda.is_bf16_supported(),
    }


def _attempt(part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the results of a part, or its error: the report is of use where something does not work."""
    try:
        return part()
    except Exception as error:  # any error is a result of the check
        words = " ".join(str(error).split())[:300]
        return {
            "error": type(error).__name__ + (f": {words}" if "/" not in words and "\\" not in words else "")
        }


def _failed(results: Mapping[str, Any], where: str) -> list[str]:
    """Names of the errors, and of the values beyond `LIMITS` (a NaN is), in nested results."""
    found = []
    for name, value in results.items():
        place = f"{where}, {name}" if where else name
        if isinstance(value, Mapping):
            found += _failed(value, place)
        elif name == "error" or (name in LIMITS and not value <= LIMITS[name]):
            found.append(place)
    return found
