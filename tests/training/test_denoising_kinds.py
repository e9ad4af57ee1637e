"""Runs with Frad and SliDe: losses, heads, side file, checkpoints, and old settings."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from molspectra.data.store.internal import with_internal
from molspectra.data.store.store import Store
from molspectra.errors import InputError
from molspectra.models.model import ModelConfig, MolSpectra
from molspectra.objectives.loss import NoiseKey
from molspectra.training.checkpoint import load_model
from molspectra.training.config import FinetuneConfig, PretrainConfig
from molspectra.training.loop import Trainer
from molspectra.training.run import pretrain
from molspectra.training.settings import from_dict, to_dict
from molspectra.training.stages import PretrainStage

Make = Callable[..., Any]


@pytest.fixture
def own_store(store_path: Path, tmp_path: Path) -> Path:
    """A copy of the store in a folder of its own, so that the side file is not shared."""
    path = tmp_path / "own.arrow"
    path.write_bytes(store_path.read_bytes())
    return path


def test_settings_without_a_kind_mean_coord() -> None:
    old = {"denoising": {"sigma": 0.02, "centred": False, "normalise": "running"}, "model": {}}
    config = from_dict(PretrainConfig, old, "old")
    assert (config.denoising.kind, config.denoising.sigma, config.denoising.centred) == ("coord", 0.02, False)
    assert not config.model.force_head


def test_slide_gives_the_model_its_head() -> None:
    config = from_dict(PretrainConfig, {"denoising": {"kind": "slide"}}, "new")
    assert config.model.force_head
    assert from_dict(PretrainConfig, to_dict(config), "again") == config
    assert not from_dict(PretrainConfig, {"denoising": {"kind": "frad"}}, "new").model.force_head


def test_the_other_weights_begin_as_without_the_head() -> None:
    states = []
    for force_head in (False, True):
        torch.manual_seed(0)
        states.append(MolSpectra(ModelConfig(force_head=force_head)).state_dict())
    plain, more = states
    assert all(torch.equal(value, more[name]) for name, value in plain.items())
    assert {name.partition(".")[0] for name in more.keys() - plain.keys()} == {"force_head"}


def test_fine_tuning_takes_coord() -> None:
    with pytest.raises(InputError, match="kind coord"):
        from_dict(FinetuneConfig, {"denoising": {"kind": "frad"}}, "new")


@pytest.mark.parametrize(
    ("kind", "names"), [("coord", ["denoising"]), ("frad", ["denoising"]), ("slide", ["denoising", "slide"])]
)
def test_losses_of_a_stage(stage1: Make, store: Store, kind: str, names: list[str], own_store: Path) -> None:
    config = stage1(denoising__kind=kind, weights__slide=0.5)
    stage = PretrainStage(MolSpectra(config.model), config).train()
    assert stage.internal == (kind != "coord")
    assert stage.weights() == {name: 0.5 if name == "slide" else 1.0 for name in names}
    batch = with_internal(Store(own_store), show=False).batch([0, 1, 2, 3])
    losses = stage(batch, NoiseKey(0, torch.zeros(4, dtype=torch.int64)))
    assert list(losses) == names
    assert {name: loss.count for name, loss in losses.items()} == stage.counts(batch)
    torch.stack([loss.sum for loss in losses.values()]).sum().backward()
    assert stage.model.noise_head.atoms.blocks[0].invariant.weight.grad is not None
    assert (stage.model.force_head is not None) == (kind == "slide")


@pytest.mark.parametrize("kind", ["frad", "slide"])
def test_a_run_makes_the_side_file_and_resumes_exactly(
    stage1: Make, own_store: Path, tmp_path: Path, kind: str
) -> None:
    config = stage1(denoising__kind=kind, data__store=str(own_store), loop__steps=4)
    whole = pretrain(config, tmp_path / "whole", show=False)
    assert own_store.with_name("own.internal.arrow").is_file()
    log = (tmp_path / "whole" / "metrics.csv").read_text()
    assert ("train/slide" in log) == (kind == "slide")

    class Stopped(Exception):
        pass

    real = Trainer._update

    def until_the_third(self: Trainer, micros: Any) -> Any:
        if self.step == 3:
            raise Stopped
        return real(self, micros)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_update", until_the_third)
        with pytest.raises(Stopped):
            pretrain(config, tmp_path / "parts", show=False)
    parts = pretrain(config, tmp_path / "parts", resume=True, show=False)
    assert parts.metrics == whole.metrics
    one, other = (load_model(tmp_path / name)[0].state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_heads_are_taken_over_where_both_have_them(stage1: Make, own_store: Path, tmp_path: Path) -> None:
    def run(name: str, **changes: Any) -> list[str]:
        config = stage1(data__store=str(own_store), loop__steps=1, **changes)
        pretrain(config, tmp_path / name, show=False)
        about = json.loads((tmp_path / name / "record.json").read_text())["about"]
        return list(about.get("initialised", {}).get("parts", []))

    run("coord")
    assert run("slide", denoising__kind="slide", init=str(tmp_path / "coord")) == ["encoder", "noise_head"]
    taken = run("again", denoising__kind="slide", init=str(tmp_path / "slide"))
    assert taken == ["encoder", "noise_head", "force_head"]
    assert run("back", init=str(tmp_path / "slide")) == ["encoder", "noise_head"]
