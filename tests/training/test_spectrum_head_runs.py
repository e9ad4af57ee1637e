"""Runs that learn to predict spectra: losses, clean targets, exact resume, and starts from one another."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from molspectra.data.store.store import Store
from molspectra.data.stream import BatchStream
from molspectra.errors import SettingError
from molspectra.models.model import MolSpectra
from molspectra.training.checkpoint import load_model
from molspectra.training.config import PretrainConfig, SpectraConfig
from molspectra.training.data import BatchMaker
from molspectra.training.run import pretrain
from molspectra.training.settings import from_dict, to_dict
from molspectra.training.stages import PretrainStage

Make = Callable[..., Any]
NAMES = ("uv_vis", "ir", "raman")
LOSSES = [f"spectrum_{name}" for name in NAMES]


def maker(store: Store, spectra: SpectraConfig, keep_clean: bool = True) -> BatchMaker:
    rows = np.arange(len(store))
    stream = BatchStream(len(rows), 16, 0)
    return BatchMaker(store, rows, stream, NAMES, (), 0, spectra=spectra, keep_clean=keep_clean)


def stage_of(config: PretrainConfig) -> PretrainStage:
    torch.manual_seed(0)
    return PretrainStage(MolSpectra(config.model), config)


def test_the_weight_gives_the_model_its_head(stage2: Make) -> None:
    config = stage2(weights__spectrum=0.5)
    assert config.model.spectrum_head
    assert from_dict(PretrainConfig, to_dict(config), "again") == config
    assert not stage2().model.spectrum_head
    with pytest.raises(SettingError, match=r"stage 1: .*weights\.spectrum"):
        from_dict(PretrainConfig, {"weights": {"spectrum": 1.0}}, "stage 1")


def test_losses_counts_and_gradients(stage2: Make, store: Store) -> None:
    stage = stage_of(stage2(weights__spectrum=0.5)).train()
    assert [stage.weights()[name] for name in LOSSES] == [0.5] * 3
    (micro,) = maker(store, SpectraConfig())(0)
    assert micro.batch.clean is None  # nothing was changed, so nothing is kept twice
    losses = stage(micro.batch, micro.key)
    assert {name: loss.count for name, loss in losses.items()} == stage.counts(micro.batch)
    torch.stack([losses[name].sum for name in LOSSES]).sum().backward()
    head = stage.model.spectrum_head
    assert head is not None
    for weight in (*head.parameters(), stage.model.encoder.embedding.weight):
        assert weight.grad is not None


def test_other_losses_are_those_of_a_run_without(stage2: Make, store: Store) -> None:
    (micro,) = maker(store, SpectraConfig(dropout=0.5))(0)
    plain, more = (
        stage_of(stage2(weights__spectrum=weight)).train()(micro.batch, micro.key) for weight in (0.0, 1.0)
    )
    assert all(torch.equal(loss.sum, more[name].sum) for name, loss in plain.items())
    assert sorted(more.keys() - plain.keys()) == sorted(LOSSES)


@pytest.mark.parametrize(
    "spectra",
    [SpectraConfig(dropout=0.6), SpectraConfig(dropout=0.3, width=(0.33, 3.0), noise=0.1, shift=1.0)],
)
def test_targets_are_neither_withheld_nor_distorted(
    stage2: Make, store: Store, spectra: SpectraConfig
) -> None:
    (whole,), (changed,) = maker(store, SpectraConfig())(1), maker(store, spectra)(1)
    assert any(not torch.equal(whole.batch.spectra[name], changed.batch.spectra[name]) for name in NAMES)
    for name in NAMES:
        clean = changed.batch.before_augmentation
        assert torch.equal(clean.spectra[name], whole.batch.spectra[name])
        assert torch.equal(clean.present[name], whole.batch.present[name])
    stage = stage_of(stage2(weights__spectrum=1.0)).eval()
    one, other = stage(whole.batch, whole.key), stage(changed.batch, changed.key)
    for name in LOSSES:
        assert torch.equal(one[name].sum, other[name].sum)
    (bare,) = maker(store, spectra, keep_clean=False)(1)
    assert bare.batch.clean is None


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_cut_off_ends_like_one_that_was_not(
    stage2: Make, tmp_path: Path, cut_before_step_3: Make, workers: int
) -> None:
    config = stage2(weights__spectrum=1.0, spectra__dropout=0.5, optimizer__ema=0.9, data__workers=workers)
    whole = pretrain(config, tmp_path / "whole", show=False)
    log = (tmp_path / "whole" / "metrics.csv").read_text()
    assert all(f"{part}/{name}" in log for part in ("train", "val") for name in LOSSES)
    with cut_before_step_3():
        pretrain(config, tmp_path / "cut", show=False)
    assert pretrain(config, tmp_path / "cut", resume=True, show=False).metrics == whole.metrics
    one, other = (load_model(tmp_path / name)[0].state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_head_is_taken_over_where_both_have_it(stage2: Make, tmp_path: Path) -> None:
    def run(name: str, **changes: Any) -> list[str]:
        pretrain(stage2(loop__steps=1, **changes), tmp_path / name, show=False)
        about = json.loads((tmp_path / name / "record.json").read_text())["about"]
        return list(about.get("initialised", {}).get("parts", []))

    run("with", weights__spectrum=1.0)
    parts = ["encoder", "noise_head", "spectrum_encoder"]
    assert run("again", weights__spectrum=1.0, init=str(tmp_path / "with")) == [*parts, "spectrum_head"]
    assert run("without", init=str(tmp_path / "with")) == parts
    assert run("back", weights__spectrum=1.0, init=str(tmp_path / "without")) == parts


def test_without_other_losses_the_spectrum_encoder_is_not_run(
    stage2: Make, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = stage2(weights__spectrum=1.0, weights__reconstruction=0.0, weights__alignment=0.0)
    stage = stage_of(config).train()
    monkeypatch.setattr(stage.model, "spectrum_encoder", None)
    (micro,) = maker(store, SpectraConfig())(0)
    losses = stage(micro.batch, micro.key)
    assert losses.keys() == stage.weights().keys() == stage.counts(micro.batch).keys()
    assert sorted(losses) == sorted(["denoising", *LOSSES])


def test_without_reconstruction_spectra_are_not_masked(stage2: Make, store: Store) -> None:
    both, alone = (
        stage_of(stage2(weights__reconstruction=weight, alignment__structure="clean")).eval()
        for weight in (1.0, 0.0)
    )
    (micro,) = maker(store, SpectraConfig())(0)
    losses, other = both(micro.batch, micro.key), alone(micro.batch, micro.key)
    assert sorted(other) == ["alignment", "denoising"] == sorted(alone.weights())
    assert other.keys() == alone.counts(micro.batch).keys()
    assert all(torch.equal(losses[name].sum, loss.sum) for name, loss in other.items())
    masked = stage_of(stage2(weights__reconstruction=0.0, alignment__masked=True)).eval()
    assert not torch.equal(masked(micro.batch, micro.key)["alignment"].sum, other["alignment"].sum)


def test_losses_of_weight_0_are_not_computed(stage2: Make, store: Store) -> None:
    """Each loss that is left is what it is beside the others."""
    (micro,) = maker(store, SpectraConfig())(0)
    weights = {"denoising": 1.0, "reconstruction": 1.0, "alignment": 1.0, "spectrum": 1.0}
    settings = {f"weights__{name}": weight for name, weight in weights.items()}
    whole = stage_of(stage2(alignment__structure="clean", **settings)).eval()
    losses = whole(micro.batch, micro.key)
    for name in weights:
        kept = {f"weights__{name}": 1.0}
        alone = stage_of(stage2(**kept, **{key: 0.0 for key in settings if key not in kept})).eval()
        alone.load_state_dict(whole.state_dict(), strict=False)
        own = alone(micro.batch, micro.key)
        assert own.keys() == alone.weights().keys() == alone.counts(micro.batch).keys()
        assert {each.removesuffix(f"_{m}") for each in own for m in NAMES if each.startswith(name)} >= {name}
        assert all(torch.equal(loss.sum, losses[each].sum) for each, loss in own.items())


def test_a_run_needs_something_to_learn(stage2: Make) -> None:
    nothing = {f"weights__{name}": 0.0 for name in ("denoising", "reconstruction", "alignment")}
    with pytest.raises(SettingError, match=r"denoising.*alignment"):
        stage2(**nothing)
    with pytest.raises(SettingError, match="denoising"):
        stage2(model__spectrum_encoder=None, weights__denoising=0.0)
