"""Two processes, and accumulation, train as one process with the whole batch does."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file

from molspectra.data.store.store import Store
from molspectra.data.stream import BatchStream
from molspectra.models.transformer_layer import PresentBatchNorm
from molspectra.training.config import FinetuneConfig, PretrainConfig
from molspectra.training.data import Micro, Selection
from molspectra.training.loop import Trainer
from molspectra.training.run import finetune, pretrain
from molspectra.training.settings import from_dict, to_dict

Make = Callable[..., Any]
Outcome = tuple[list[dict[str, float]], dict[str, torch.Tensor]]

STEPS, BATCH, SEED = 3, 3, 2
LOOP = {
    "loop__batch_size": BATCH,
    "loop__steps": STEPS,
    "loop__seed": SEED,
    "loop__precision": "64-true",
    "loop__validate_every": 0,
    "loop__save_every": 0,
    "optimizer__weight_decay": 0.1,
}
REFERENCE = {
    "denoising__normalise": "running",
    "denoising__centred": False,
    "alignment__form": "reference",
    "alignment__temperature": "fixed",
    "alignment__masked": True,
}

UNFELT = ("key.bias", "value.bias", "output.bias", "feed_forward.2.bias")
"""Biases that a softmax or a batch norm takes off again: their gradient is rounding, which Adam magnifies."""


def trained(config: Any, run: Path) -> Outcome:
    """Losses of every step in full precision, and the last weights, of a run with unfelt biases held.

    In runs named frozen batch norms are those of evaluation: under accumulation they see one micro-batch.
    """
    values = []
    update, set_up = Trainer._update, Trainer.__post_init__

    def hold(self: Trainer) -> None:
        for name, weight in self.stage.named_parameters():
            weight.requires_grad_(not name.endswith(UNFELT))
        if "frozen" in run.name:
            for module in self.stage.modules():
                if isinstance(module, PresentBatchNorm):
                    module.eval().train = lambda _=True, norm=module: norm  # type: ignore[method-assign]
        set_up(self)

    def note(self: Trainer, micros: list[Micro]) -> dict[str, float]:
        values.append(update(self, micros))
        return values[-1]

    with mock.patch.object(Trainer, "_update", note), mock.patch.object(Trainer, "__post_init__", hold):
        (finetune if hasattr(config, "target") else pretrain)(config, run, show=False)
    return values, last_weights(run, config)


def last_weights(run: Path, config: Any) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step-{config.loop.steps:09d}" / "model.safetensors")


def main(here: Path) -> None:
    """One of two processes: all runs of a file."""
    for name, values in json.loads((here / "configs.json").read_text()).items():
        config = from_dict(FinetuneConfig if "target" in values else PretrainConfig, values, name)
        losses, _ = trained(config, here / name)
        (here / name / "losses.json").write_text(json.dumps(losses))


@pytest.fixture(scope="session")
def configs(stage1: Make, stage2: Make, gap: Make) -> dict[str, Any]:
    """Runs of every stage, in float64."""
    spectra = stage2().model.spectrum_encoder
    return {
        "stage 1": stage1(**LOOP),
        "stage 1, reference": stage1(**LOOP, denoising__normalise="running"),
        "stage 2": stage2(**LOOP),
        "stage 2, clean": stage2(**LOOP, alignment__structure="clean", alignment__similarity="inner"),
        "stage 2, reference": stage2(**LOOP, **REFERENCE),
        "stage 2, predicted": stage2(**LOOP, weights__spectrum=0.5, spectra__dropout=0.5),
        "stage 2, float32": stage2(**LOOP | {"loop__precision": "32-true"}),
        # micro-batches of 1 + 1 and 2 + 1 molecules
        "stage 2, frozen": stage2(**LOOP | {"loop__batch_size": 5, "loop__accumulation": 2}),
        # two processes with two micro-batches each, by edges
        "stage 2, frozen, by edges": stage2(**LOOP | {"loop__batch_size": 6, "loop__edge_budget": 70}),
        "forces": gap(**LOOP, forces=True, denoising__normalise="running", energy_smoothing=0.5),
        "spectra as input": gap(**LOOP, model__spectrum_encoder=spectra, model__spectrum_input=True),
    }


def assert_same(name: str, found: Outcome, wanted: Outcome, rtol: float) -> None:
    """Equal losses, norms and weights, running statistics included."""
    assert len(found[0]) == len(wanted[0]) >= STEPS
    for step, values in enumerate(wanted[0]):
        assert found[0][step] == pytest.approx(values, rel=rtol), (name, step)
    assert found[1].keys() == wanted[1].keys()
    for weight, tensor in wanted[1].items():
        said = f"{name}: {weight}"
        torch.testing.assert_close(found[1][weight], tensor, rtol=100 * rtol, atol=100 * rtol, msg=said)


def test_two_processes_train_as_one(configs: dict[str, Any], store: Store, tmp_path: Path) -> None:
    rows = Selection.of(configs["stage 2"].data).train
    bare = ~store.has("ir") & ~store.has("uv_vis")
    stream = BatchStream(len(rows), BATCH, SEED)
    shares = [[rows[stream.indices(step, 2, rank)[0].numpy()] for rank in (0, 1)] for step in range(STEPS)]
    # a rank without any spectrum still takes part
    assert any(bare[first].all() != bare[second].all() for first, second in shares)

    two = {name: to_dict(config) for name, config in configs.items()}
    for values in two.values():
        values["loop"]["devices"] = 2
    (tmp_path / "configs.json").write_text(json.dumps(two))
    command = [sys.executable, __file__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    for name, config in configs.items():
        whole = replace(config, loop=replace(config.loop, accumulation=1, edge_budget=0))
        rtol = 1e-4 if "float32" in name else 1e-10
        losses = json.loads((tmp_path / name / "losses.json").read_text())
        found = losses, last_weights(tmp_path / name, config)
        assert_same(name, found, trained(whole, tmp_path / "one" / name), rtol)


@pytest.mark.parametrize(
    "name",
    ["stage 1, reference", "stage 2", "stage 2, clean", "stage 2, reference", "stage 2, predicted", "forces"],
)
@pytest.mark.parametrize("cut", [{"accumulation": 3}, {"edge_budget": 100}])
def test_accumulation_trains_as_one_batch(
    configs: dict[str, Any], name: str, cut: dict[str, int], tmp_path: Path
) -> None:
    config = configs[name]
    # on into another epoch
    whole = replace(config, loop=replace(config.loop, steps=6, batch_size=7))
    parts = replace(whole, loop=replace(whole.loop, **cut))
    run = tmp_path / f"{name}, frozen"
    assert_same(run.name, trained(parts, run), trained(whole, tmp_path / "one, frozen"), 1e-10)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
