"""What a user controls of a fine-tuning: frozen weights, early stopping, more steps."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from molspectra.apps.cli import main
from molspectra.errors import InputError, MismatchError, SettingError
from molspectra.training.checkpoint import load_model, newest
from molspectra.training.config import FinetuneConfig
from molspectra.training.record import read_metrics
from molspectra.training.run import finetune
from molspectra.training.settings import from_dict

Make = Callable[..., Any]


def weights(run: Path) -> dict[str, Tensor]:
    model, _ = load_model(run, "last")
    return dict(model.state_dict())


def record(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "record.json").read_text()))


@pytest.mark.parametrize("frozen", ["encoder", 1])
def test_what_is_frozen_keeps_its_bytes(gap: Make, tmp_path: Path, frozen: Any) -> None:
    """Also with weight decay and an average; all else learns."""
    changes = {"model__encoder__layers": 2, "optimizer__ema": 0.9, "optimizer__weight_decay": 0.1}
    first = finetune(gap(**changes, loop__steps=1, optimizer__freeze=frozen), tmp_path / "a", show=False)
    last = finetune(gap(**changes, loop__steps=4, optimizer__freeze=frozen), tmp_path / "b", show=False)
    before, after = weights(first.directory), weights(last.directory)
    same = {name for name, value in before.items() if torch.equal(value, after[name])}
    encoder = {name for name in before if name.startswith("encoder.")}
    if frozen == "encoder":
        assert encoder <= same
    else:
        assert {name for name in encoder if ".layers.0." in name or "embedding" in name} <= same
        assert not any(".layers.1.query.weight" in name for name in same)
    assert not any(name.endswith("weight") and name.startswith("property_head") for name in same)
    counts = record(last.directory)["weights"]
    assert counts["frozen"] > 0
    assert counts["trained"] + counts["frozen"] == sum(
        p.numel() for p in load_model(last.directory)[0].parameters()
    )


def test_more_layers_than_there_are(gap: Make, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"optimizer\.freeze: the encoder has 1 layers, not 2"):
        finetune(gap(optimizer__freeze=2), tmp_path / "run", show=False)
    assert not (tmp_path / "run").exists()
    with pytest.raises(SettingError, match="encoder_factor"):
        gap(optimizer__freeze="encoder", optimizer__encoder_factor=0.5)


@pytest.mark.parametrize(("value", "found"), [("encoder", "encoder"), (2, 2), (2.0, 2)])
def test_a_number_or_a_word(value: Any, found: Any) -> None:
    config = from_dict(FinetuneConfig, {"optimizer": {"freeze": value}}, "x")
    assert config.optimizer.freeze == found
    for bad in ("head", -1, [1], None, True):
        with pytest.raises(SettingError, match=r"optimizer[.: ]"):
            from_dict(FinetuneConfig, {"optimizer": {"freeze": bad}}, "x")


def test_patience_ends_a_run_and_says_so(
    gap: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A rate of nearly 0 makes no validation better than the first by rounding, or soon none."""
    changes = {"optimizer__learning_rate": 1e-30, "loop__validate_every": 1, "loop__patience": 3}
    run = finetune(gap(**changes, loop__steps=50), tmp_path / "run").directory
    found = record(run)
    assert found["finished"]
    assert found["steps"] == found["best_step"] + 3 < 50
    said = capsys.readouterr().err
    assert "3 validations in a row" in said
    assert f"step {found['best_step']} had the lowest" in said
    rows = read_metrics(run / "metrics.csv")
    finetune(gap(**changes, loop__steps=50), run, resume=True)
    assert read_metrics(run / "metrics.csv") == rows
    assert "3 validations in a row" in capsys.readouterr().err
    with pytest.raises(MismatchError, match="patience"):
        finetune(gap(**changes, loop__steps=60), run, resume=True)


def test_patience_survives_an_interruption(gap: Make, tmp_path: Path, cut_before_step_3: Make) -> None:
    changes = {"optimizer__learning_rate": 1e-30, "loop__validate_every": 1, "loop__patience": 5}
    whole = finetune(gap(**changes, loop__steps=20), tmp_path / "whole", show=False).directory
    with cut_before_step_3():
        finetune(gap(**changes, loop__steps=20), tmp_path / "run", show=False)
    run = finetune(gap(**changes, loop__steps=20), tmp_path / "run", resume=True, show=False).directory
    for name in ("steps", "best_step", "validation"):
        assert record(run)[name] == record(whole)[name]


@pytest.mark.parametrize("kind", ["constant", "plateau"])
def test_an_extended_run_is_the_longer_run(gap: Make, tmp_path: Path, kind: str) -> None:
    changes = {
        "optimizer__schedule__kind": kind,
        "loop__validate_every": 2,
        "optimizer__schedule__patience": 0,
    }
    whole = finetune(gap(**changes, loop__steps=8), tmp_path / "whole", show=False).directory
    run = finetune(gap(**changes, loop__steps=4), tmp_path / "run", show=False).directory
    finetune(gap(**changes, loop__steps=8), run, resume=True, show=False)
    before, after = weights(whole), weights(run)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert newest(run / "checkpoints", "best").name == newest(whole / "checkpoints", "best").name
    found = record(run)
    (extension,) = found["extended"]
    assert extension.items() >= {"from": 4, "to": 8, "at": 4}.items()
    assert extension["when"]
    assert (found["steps"], found["finished"], found["config"]["loop"]["steps"]) == (8, True, 8)
    assert found["validation"] == record(whole)["validation"]


def test_a_run_is_not_made_shorter(gap: Make, tmp_path: Path) -> None:
    run = finetune(gap(loop__steps=4), tmp_path / "run", show=False).directory
    with pytest.raises(InputError, match="4 steps cannot become one of 3"):
        finetune(gap(loop__steps=3), run, resume=True)
    with pytest.raises(InputError, match="other settings"):
        finetune(gap(loop__steps=8, loop__seed=7), run, resume=True)


def test_a_cosine_that_is_extended_says_so(
    gap: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finetune(
        gap(optimizer__schedule__kind="cosine", loop__steps=2), tmp_path / "run", show=False
    ).directory
    finetune(gap(optimizer__schedule__kind="cosine", loop__steps=4), run, resume=True)
    assert "cosine" in capsys.readouterr().err
    rates = [
        value for step, name, value, _ in read_metrics(run / "metrics.csv") if name == "train/learning_rate"
    ]
    assert rates[-1] > 0


def test_from_the_command_line(store_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    command = ["finetune", "--out", str(out), "--data.store", str(store_path), "--loop.batch_size", "8"]
    command += ["--model.encoder.channels", "8", "--model.encoder.layers", "1", "--model.encoder.heads", "2"]
    assert main([*command, "--optimizer.freeze", "encoder", "--loop.steps", "2"]) == 0
    said = capsys.readouterr().err
    assert "are frozen" in said
    assert "finished after 2 of 2 steps" in said
    assert main(["finetune", "--out", str(out), "--resume", "--loop.steps", "4", "--quiet"]) == 0
    assert record(out)["steps"] == 4
    assert main([*command, "--freeze", "encoder"]) == 2
    assert "--optimizer.freeze" in capsys.readouterr().err
