"""Learning rates of the parts of a model: by hand, in a run, and over an interruption."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from molspectra.errors import SettingError
from molspectra.models.model import ModelConfig, MolSpectra
from molspectra.models.shared import EGNNConfig, EquivariantTransformerConfig
from molspectra.training.checkpoint import load_model
from molspectra.training.config import OptimizerConfig
from molspectra.training.rates import Rate, rate_groups
from molspectra.training.run import finetune, pretrain

Make = Callable[..., Any]
TRANSFORMER = EquivariantTransformerConfig(channels=16, layers=3, heads=2, radial=8)


def rates_by_name(config: OptimizerConfig, encoder: Any = TRANSFORMER) -> dict[str, Rate]:
    model = MolSpectra(ModelConfig(encoder, property="scalar"))
    names = {id(weight): name for name, weight in model.named_parameters()}
    groups = rate_groups(model.named_parameters(), encoder.layers, config)
    return {names[id(weight)]: rate for rate, weights in groups.items() for weight in weights}


def test_factors_by_hand() -> None:
    rates = rates_by_name(OptimizerConfig(encoder_factor=0.5, layer_decay=0.1, head_steps=7))
    factors = {name: rate.factor for name, rate in rates.items()}
    assert factors["encoder.embedding.weight"] == pytest.approx(0.5e-3)
    assert factors["encoder.neighbours.filter.weight"] == pytest.approx(0.5e-3)
    assert factors["encoder.layers.0.query.weight"] == pytest.approx(0.5e-2)
    assert factors["encoder.layers.2.query.weight"] == factors["encoder.scalar_norm.weight"] == 0.5
    assert factors["encoder.scalar_norms.1.weight"] == pytest.approx(0.05)
    heads = {rate for name, rate in rates.items() if not name.startswith("encoder.")}
    assert heads == {Rate(1.0, 0)}
    assert {rate.start for name, rate in rates.items() if name.startswith("encoder.")} == {7}


@pytest.mark.parametrize("encoder", [TRANSFORMER, EGNNConfig(channels=16, layers=3)])
def test_every_weight_has_one_rate_and_usually_the_same(encoder: Any) -> None:
    rates = rates_by_name(OptimizerConfig(), encoder)
    assert set(rates.values()) == {Rate(1.0, 0)}
    model = MolSpectra(ModelConfig(encoder, property="scalar"))
    assert rates.keys() == dict(model.named_parameters()).keys()


@pytest.mark.parametrize(
    "values", [{"encoder_factor": -0.1}, {"layer_decay": 0.0}, {"layer_decay": 1.1}, {"head_steps": -1}]
)
def test_rates_that_cannot_be(values: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=next(iter(values))):
        OptimizerConfig(**values)


def weights_of(directory: Path) -> dict[str, Tensor]:
    return dict(load_model(directory)[0].named_parameters())


@pytest.mark.parametrize("changes", [{"encoder_factor": 0.0}, {"head_steps": 2}, {"head_steps": 1}])
def test_a_frozen_encoder_stays_as_it_was(
    stage1: Make, gap: Make, tmp_path: Path, changes: dict[str, Any]
) -> None:
    start = pretrain(stage1(loop__steps=2), tmp_path / "start", show=False).directory
    optimizer = {f"optimizer__{name}": value for name, value in changes.items()}
    config = gap(loop__steps=2, init=str(start), optimizer__weight_decay=0.1, **optimizer)
    before, after = weights_of(start), weights_of(finetune(config, tmp_path / "gap", show=False).directory)
    encoder = [name for name in before if name.startswith("encoder.")]
    unchanged = [torch.equal(before[name], after[name]) for name in encoder]
    assert all(unchanged) if changes != {"head_steps": 1} else not any(unchanged)
    assert not torch.equal(
        before["noise_head.atoms.blocks.0.invariant.weight"],
        after["noise_head.atoms.blocks.0.invariant.weight"],
    )


def test_a_run_cut_off_with_several_rates_ends_like_one_that_was_not(
    gap: Make, tmp_path: Path, cut_before_step_3: Make
) -> None:
    config = gap(optimizer__encoder_factor=0.3, optimizer__layer_decay=0.5, optimizer__head_steps=2)
    whole = finetune(config, tmp_path / "whole", show=False)
    with cut_before_step_3():
        finetune(config, tmp_path / "cut", show=False)
    assert finetune(config, tmp_path / "cut", resume=True, show=False).metrics == whole.metrics
    one, other = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    assert all(torch.equal(one[name], other[name]) for name in one)
