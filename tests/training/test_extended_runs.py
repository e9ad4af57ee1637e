"""A run that is given more steps equals one that had them, wherever it ended before; what it leaves aside."""

import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import same

from molspectra.errors import ExistsError, NotFoundError
from molspectra.training.average import WeightAverage
from molspectra.training.checkpoint import newest, read_resume, saved
from molspectra.training.config import FinetuneConfig
from molspectra.training.loop import Trainer
from molspectra.training.run import finetune
from molspectra.training.settings import did_you_mean, settings_of

Make = Callable[..., Any]


def with_losses(monkeypatch: pytest.MonkeyPatch, losses: dict[int, float]) -> None:
    """Let the validations after these steps find these losses instead."""
    validate = Trainer.validate
    monkeypatch.setattr(Trainer, "validate", lambda self: validate(self) | {"loss": losses[self.step]})


def assert_equal_ends(run: Path, other: Path) -> None:
    """The newest state and the best weights are equal to the byte."""
    for kind in ("step", "best"):
        one, two = newest(run / "checkpoints", kind), newest(other / "checkpoints", kind)
        assert one is not None
        assert two is not None
        assert one.name == two.name
        assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
        if kind == "step":
            assert same(read_resume(one), read_resume(two))


@pytest.mark.parametrize("kind", ["constant", "plateau"])
@pytest.mark.parametrize("end", [4, 5])
def test_an_earlier_end_leaves_no_trace_in_what_follows(
    gap: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, end: int
) -> None:
    """Also where that end was validated besides, and with the lowest loss of all."""
    with_losses(monkeypatch, {2: 5.0, 4: 4.0, 5: 0.5, 6: 4.5, 8: 4.5, 9: 4.6, 10: 4.4, 12: 3.0})
    changes = {
        "loop__save_every": 0,
        "loop__log_every": 3,
        "loop__patience": 3,
        "optimizer__schedule__kind": kind,
        "optimizer__schedule__patience": 0,
        "optimizer__ema": 0.9,
    }
    whole, run = tmp_path / "whole", tmp_path / "run"
    finetune(gap(loop__steps=12, **changes), whole, show=False)
    finetune(gap(loop__steps=end, **changes), run, show=False)
    best = newest(run / "checkpoints", "best")
    assert best is not None
    assert best.name.endswith(str(end))  # it is used until the run goes on
    (run / "evaluation.json").write_text("{}")
    finetune(gap(loop__steps=12, **changes), run, resume=True, show=False)
    assert_equal_ends(run, whole)
    records = [json.loads((each / "record.json").read_text()) for each in (run, whole)]
    assert [record["steps"] for record in records] == [10, 10]  # the patience ends both
    assert [record["best_step"] for record in records] == [4, 4]
    assert len(saved(run / "checkpoints", "best")) == 1
    assert [path.name for path in run.glob("evaluation*")] == [f"evaluation-{end}-steps.json"]


def test_patience_survives_an_interruption_to_the_byte(
    gap: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_before_step_3: Make
) -> None:
    with_losses(monkeypatch, {1: 5.0, 2: 3.0, 3: 4.0, 4: 3.0, 5: 3.5})
    config = gap(loop__steps=8, loop__validate_every=1, loop__save_every=1, loop__patience=3)
    whole = finetune(config, tmp_path / "whole", show=False).directory
    with cut_before_step_3():
        finetune(config, tmp_path / "cut", show=False)
    finetune(config, tmp_path / "cut", resume=True, show=False)
    assert_equal_ends(tmp_path / "cut", whole)

    # Killed after its last save, before its record said that it is finished.
    path = whole / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"finished": False}))
    finetune(config, whole, resume=True, show=False)
    assert json.loads(path.read_text())["steps"] == 5
    assert_equal_ends(tmp_path / "cut", whole)


def test_extending_a_finished_run_takes_its_lock_and_its_last_state(gap: Make, tmp_path: Path) -> None:
    run = finetune(gap(loop__save_every=0), tmp_path / "run", show=False).directory
    with (run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        finetune(gap(loop__save_every=0), run, resume=True, show=False)  # nothing to write
        with pytest.raises(ExistsError):
            finetune(gap(loop__save_every=0, loop__steps=6), run, resume=True, show=False)
    for checkpoint in saved(run / "checkpoints"):
        checkpoint.rename(run / checkpoint.name)
    with pytest.raises(NotFoundError, match="checkpoint is gone"):
        finetune(gap(loop__save_every=0, loop__steps=6), run, resume=True, show=False)


def test_restarts_over_more_steps_say_so(
    gap: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"optimizer__schedule__kind": "restarts"}
    finetune(gap(loop__steps=2, **changes), tmp_path / "run", show=False)
    finetune(gap(loop__steps=4, **changes), tmp_path / "run", resume=True)
    assert "restarts schedule" in capsys.readouterr().err


def test_an_average_leaves_frozen_weights_alone() -> None:
    """Their zeros may have a sign, which an interpolation would lose."""
    model = torch.nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.fill_(-0.0)
    model.weight.requires_grad_(False)
    average = WeightAverage(model, 0.5)
    assert set(average.state_dict()) == {"bias"}
    before = model.bias.detach().clone()
    with torch.no_grad():
        model.bias.add_(1.0)
    average.update(model, 100)
    with average.applied(model):
        assert torch.signbit(model.weight).all()
        torch.testing.assert_close(model.bias.detach(), before + 0.5)
    torch.testing.assert_close(model.bias.detach(), before + 1.0)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("freeze", "optimizer.freeze"),
        ("freeze-encoder", "optimizer.freeze"),
        ("patience", "loop.patience"),
        ("early_stopping", "loop.patience"),
        ("schedule.patience", "optimizer.schedule.patience"),
    ],
)
def test_usual_names_lead_to_the_setting(written: str, meant: str) -> None:
    names = {setting.name for setting in settings_of(FinetuneConfig)}
    assert f"mean {meant}?" in did_you_mean(written, names)
