"""Promise: a run never starts over without a word, and what a kill left of a start is in nobody's way."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from molspectra.errors import DamagedError, ExistsError, NotFoundError
from molspectra.training.checkpoint import newest
from molspectra.training.interrupt import Interrupted
from molspectra.training.loop import Trainer
from molspectra.training.run import pretrain

Make = Callable[..., Any]


class Killed(BaseException):
    """Stands for SIGKILL: what runs after it does not count."""


def killed_at(step: int, config: Any, run: Path) -> None:
    update = Trainer._update

    def until(self: Trainer, micros: Any) -> dict[str, float]:
        if self.step == step:
            raise Killed
        return update(self, micros)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_update", until)
        with pytest.raises(Killed):
            pretrain(config, run, show=False)


def stopped_after(step: int, config: Any, run: Path) -> None:
    """Ask the run to stop; it saves."""
    update = Trainer._update

    def until(self: Trainer, micros: Any) -> dict[str, float]:
        if self.step == step - 1:
            os.kill(os.getpid(), 15)
        return update(self, micros)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_update", until)
        with pytest.raises(Interrupted):
            pretrain(config, run, show=False, resume=True)


def files(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.mark.parametrize("emptied", [True, False])
@pytest.mark.parametrize(
    "begin",
    [
        lambda config, run: killed_at(3, config(), run),  # saved after step 2, as planned
        lambda config, run: stopped_after(1, config(), run),  # saved because it was asked to stop
    ],
)
def test_checkpoints_that_are_gone_are_an_error(
    stage1: Make, tmp_path: Path, begin: Callable[[Make, Path], None], emptied: bool
) -> None:
    run = tmp_path / "run"
    begin(stage1, run)
    for path in (run / "checkpoints").iterdir() if emptied else [run / "checkpoints"]:
        shutil.rmtree(path)
    before = files(run)
    with pytest.raises(NotFoundError, match="its checkpoints are gone") as caught:
        pretrain(stage1(), run, resume=True, show=False)
    assert str(run) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert files(run) == before


def test_a_run_that_was_resumed_had_a_checkpoint(stage1: Make, tmp_path: Path) -> None:
    """Also where its metrics end before the first one that was planned."""
    config = stage1(loop__save_every=0, loop__log_every=4)
    stopped_after(1, config, tmp_path / "run")
    stopped_after(2, config, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(NotFoundError, match="its checkpoints are gone"):
        pretrain(config, tmp_path / "run", resume=True, show=False)


def test_a_run_that_had_not_saved_starts_over_with_a_word(
    stage1: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, run = stage1(loop__save_every=0, loop__validate_every=0), tmp_path / "run"
    killed_at(2, config, run)
    caplog.set_level(logging.WARNING, "molspectra")
    again = pretrain(config, run, resume=True, show=False)
    (message,) = caplog.messages
    assert str(run) in message
    assert "step 2" in message
    assert again.metrics == pretrain(config, tmp_path / "whole", show=False).metrics
    record = json.loads((run / "record.json").read_text())
    assert record["finished"]
    assert "resumed" not in record


def test_finished_without_weights_is_an_error(stage1: Make, tmp_path: Path) -> None:
    run = pretrain(stage1(), tmp_path / "run", show=False).directory
    for checkpoint in (run / "checkpoints").glob("step-*"):
        shutil.rmtree(checkpoint)
    assert pretrain(stage1(), run, resume=True, show=False).metrics  # the best weights are there
    (best,) = (run / "checkpoints").iterdir()
    weights = best / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    with pytest.raises(DamagedError, match=r"model\.safetensors"):
        pretrain(stage1(), run, resume=True, show=False)
    weights.unlink()
    with pytest.raises(DamagedError, match=r"model\.safetensors"):
        pretrain(stage1(), run, resume=True, show=False)
    shutil.rmtree(best)
    with pytest.raises(NotFoundError, match=r"finished.* its weights are gone"):
        pretrain(stage1(), run, resume=True, show=False)


def test_a_stop_is_noted_until_the_run_goes_on(stage1: Make, tmp_path: Path) -> None:
    stopped_after(1, stage1(), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "record.json").read_text())["stopped"] == 1
    pretrain(stage1(), tmp_path / "run", resume=True, show=False)
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert "stopped" not in record
    assert [session["step"] for session in record["resumed"]] == [1]


def test_killed_at_any_moment_of_its_start_a_run_can_be_resumed(stage1: Make, tmp_path: Path) -> None:
    """A process that is killed removes nothing: neither half a file nor its lock."""
    reference = pretrain(stage1(), tmp_path / "whole", show=False).metrics
    names = set()
    for limit in range(100):
        run, calls = tmp_path / str(limit), 0

        def mortal(function: Callable[..., Any], limit: int = limit) -> Callable[..., Any]:
            def wrapped(*args: Any, **options: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls > limit:
                    raise Killed
                return function(*args, **options)

            return wrapped

        def at_once(self: Trainer, micros: Any) -> None:
            raise Killed

        with pytest.MonkeyPatch.context() as patch:
            for owner, name in ((Path, "mkdir"), (Path, "replace"), (os, "fsync"), (Path, "unlink")):
                patch.setattr(owner, name, mortal(getattr(owner, name)))
            patch.setattr(Trainer, "_update", at_once)
            with pytest.raises(Killed):
                pretrain(stage1(), run, show=False)
        names |= {path.name.split(".")[1] if path.suffix == ".part" else path.name for path in run.glob("*")}
        assert pretrain(stage1(), run, resume=True, show=False).metrics == reference
        assert not list(run.glob(".*"))
        assert newest(run / "checkpoints") is not None
        if calls <= limit:
            break
    else:
        pytest.fail("never started")
    assert {"record", "config", "seen", "metrics", "record.json", "config.json"} <= names
    assert limit > 8


def test_a_directory_of_something_else_is_no_left_over(stage1: Make, tmp_path: Path) -> None:
    for name in ("record.json", "metrics.csv"):  # of a run whose settings are gone
        (tmp_path / name).write_text("{}")
    with pytest.raises(NotFoundError, match=r"no config\.json"):
        pretrain(stage1(), tmp_path, resume=True, show=False)
    with pytest.raises(ExistsError, match="--resume"):
        pretrain(stage1(), tmp_path, show=False)
