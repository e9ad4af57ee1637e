"""Promise: a checkpoint that is not what its run saved is refused, and the newest good one is taken."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from molspectra.errors import DamagedError, InputError, MismatchError
from molspectra.training.checkpoint import check, find_checkpoint, load_model, read_resume, save_checkpoint
from molspectra.training.interrupt import Interrupted
from molspectra.training.loop import Trainer
from molspectra.training.run import pretrain

Make = Callable[..., Any]
GOOD, NEWEST = "step-000000002", "step-000000003"


def cut(config: Any, run: Path, patch: pytest.MonkeyPatch, step: int = 3) -> Path:
    """A run that was asked to stop when `step` steps were done, and has saved."""
    update = Trainer._update

    def until(self: Trainer, micros: Any) -> dict[str, float]:
        if self.step == step - 1:
            patch.setattr(self.ranks, "any", lambda stop: True)
        return update(self, micros)

    with pytest.MonkeyPatch.context() as own:
        own.setattr(Trainer, "_update", until)
        with pytest.raises(Interrupted):
            pretrain(config, run, show=False)
    return run


@pytest.fixture(scope="module")
def cut_run(stage1: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of four steps, with checkpoints after 2 and 3."""
    with pytest.MonkeyPatch.context() as patch:
        return cut(stage1(), tmp_path_factory.mktemp("runs") / "cut", patch)


@pytest.fixture
def run(cut_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(cut_run, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def whole(stage1: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain(stage1(), tmp_path_factory.mktemp("runs") / "whole", show=False).directory


def flip(path: Path) -> None:
    """Change the last bit of the byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def foreign(run: Path, other: Path) -> None:
    shutil.rmtree(run / "checkpoints" / NEWEST)
    shutil.copytree(other / "checkpoints" / "step-000000004", run / "checkpoints" / "step-000000004")


def renamed(run: Path, other: Path) -> None:
    (run / "checkpoints" / NEWEST).rename(run / "checkpoints" / "step-000000004")


def swapped(run: Path, other: Path) -> None:
    weights = run / "checkpoints" / GOOD / "model.safetensors"
    shutil.copy(weights, run / "checkpoints" / NEWEST / "model.safetensors")


def swapped_state(run: Path, other: Path) -> None:
    shutil.copy(run / "checkpoints" / GOOD / "resume.pt", run / "checkpoints" / NEWEST / "resume.pt")


def without(name: str) -> Callable[[Path, Path], None]:
    return lambda run, other: (run / "checkpoints" / NEWEST / name).unlink()


def flipped(name: str) -> Callable[[Path, Path], None]:
    return lambda run, other: flip(run / "checkpoints" / NEWEST / name)


SPOILT = {
    "a bit of the weights": (flipped("model.safetensors"), "model.safetensors"),
    "a bit of the settings": (flipped("config.json"), "config.json"),
    "a bit of the state": (flipped("resume.pt"), "resume.pt"),
    "a bit of the manifest": (flipped("manifest.json"), NEWEST),
    "another run's": (foreign, "of another run"),
    "renamed": (renamed, f"saved as {NEWEST}"),
    "weights of another step": (swapped, "model.safetensors"),
    "state of another step": (swapped_state, "resume.pt"),
    "no manifest": (without("manifest.json"), "manifest.json"),
    "no weights": (without("model.safetensors"), "model.safetensors"),
    "no state": (without("resume.pt"), "resume.pt"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_the_newest_good_one_is_taken_and_said(
    run: Path, whole: Path, stage1: Make, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    spoil, said = SPOILT[case]
    spoil(run, whole)
    caplog.set_level(logging.WARNING, "molspectra")
    pretrain(stage1(), run, resume=True, show=False)
    (message,) = caplog.messages
    assert said in message
    assert f"{GOOD} is taken instead" in message
    assert "\n" not in message
    assert [session["step"] for session in json.loads((run / "record.json").read_text())["resumed"]] == [2]
    ends = [each / "checkpoints" / "step-000000004" / "model.safetensors" for each in (run, whole)]
    assert ends[0].read_bytes() == ends[1].read_bytes()  # as if nothing had happened
    check(ends[0].parent, ["config.json", "model.safetensors", "resume.pt"])


@pytest.mark.parametrize("case", SPOILT)
def test_without_a_good_one_nothing_is_started(run: Path, whole: Path, stage1: Make, case: str) -> None:
    spoil, said = SPOILT[case]
    spoil(run, whole)
    shutil.rmtree(run / "checkpoints" / GOOD)
    metrics = (run / "metrics.csv").read_bytes()
    with pytest.raises(InputError) as caught:
        pretrain(stage1(), run, resume=True, show=False)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (run / "metrics.csv").read_bytes() == metrics


@pytest.mark.parametrize("step", [0, -1, 2, 5, 10**9, 3.0, True, "3", None])
@pytest.mark.parametrize("old", [True, False])
def test_a_step_out_of_range_is_refused(
    run: Path, stage1: Make, made_before: Callable[[Path], None], step: Any, old: bool
) -> None:
    """Neither one beyond the run's last, nor another than that of its name."""
    directory = run / "checkpoints" / NEWEST
    state = read_resume(directory) | {"step": step}
    shutil.rmtree(run / "checkpoints" / GOOD)
    if old:
        torch.save(state, directory / "resume.pt")
        made_before(run)
    else:
        run_id = json.loads((run / "record.json").read_text())["id"]
        model, about = load_model(directory)
        save_checkpoint(directory.parent, "step", 3, model, about, state, run=run_id)
    with pytest.raises(DamagedError, match=NEWEST):
        pretrain(stage1(), run, resume=True, show=False)


@pytest.mark.parametrize(
    "change",
    [
        {"step": -3},
        {"step": 10**12},
        {"step": 3.0},
        {"step": True},
        {"kind": "best"},
        {"run": None},
        {"format": 2},
        {"files": []},
        {"files": {}},
        {"more": 1},
    ],
)
def test_a_manifest_that_says_anything_else_is_refused(run: Path, change: dict[str, Any]) -> None:
    path = run / "checkpoints" / NEWEST / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=NEWEST):
        load_model(path.parent)


def test_use_takes_the_next_one_too(run: Path, whole: Path, caplog: pytest.LogCaptureFixture) -> None:
    flip(run / "checkpoints" / NEWEST / "model.safetensors")
    caplog.set_level(logging.WARNING, "molspectra")
    assert find_checkpoint(run, "last") == run / "checkpoints" / GOOD
    assert len(caplog.messages) == 1
    with pytest.raises(DamagedError, match=NEWEST):  # that one was asked for
        load_model(run / "checkpoints" / NEWEST)
    (best,) = (run / "checkpoints").glob("best-*")
    flip(best / "config.json")
    assert find_checkpoint(run) == run / "checkpoints" / GOOD
    other = whole / "checkpoints" / "step-000000004"
    shutil.copytree(other, run / "checkpoints" / other.name)
    with pytest.raises(MismatchError, match="of another run"):
        load_model(run / "checkpoints" / other.name)
    shutil.copytree(other, run.parent / "a model of mine")  # any name does outside a run
    load_model(run.parent / "a model of mine")


def test_the_last_and_the_best_are_kept(stage1: Make, tmp_path: Path) -> None:
    config = stage1(loop__steps=6, loop__save_every=1, loop__keep=3)
    root = pretrain(config, tmp_path / "run", show=False).directory / "checkpoints"
    kept = sorted(path.name for path in root.iterdir())
    assert kept[1:] == [f"step-{step:09d}" for step in (4, 5, 6)]
    assert kept[0].startswith("best-")


def test_a_refused_newer_one_never_takes_the_place_of_a_good_one(stage1: Make, tmp_path: Path) -> None:
    """Resumed from step 2 and stopped again at step 3, while a damaged step 4 lies there."""
    config = stage1(loop__keep=1, loop__save_every=1)
    model, about = load_model(pretrain(config, tmp_path / "run", show=False).directory)
    root = tmp_path / "run" / "checkpoints"
    for step in (2, 3):
        save_checkpoint(root, "step", step, model, about, {"step": step})
    names = sorted(path.name for path in root.glob("*step-*"))
    assert names == ["refused-step-000000004", "step-000000003"]


def test_a_run_from_before_gets_manifests(
    run: Path, whole: Path, stage1: Make, made_before: Callable[[Path], None]
) -> None:
    made_before(run)
    load_model(run)
    with pytest.MonkeyPatch.context() as patch:  # killed before it saves again
        patch.setattr(Trainer, "_update", None)
        with pytest.raises(TypeError):
            pretrain(stage1(), run, resume=True, show=False)
    pretrain(stage1(), run, resume=True, show=False)
    new = run / "checkpoints" / "step-000000004"
    record = json.loads((run / "record.json").read_text())
    assert json.loads((new / "manifest.json").read_text())["run"] == record["id"]
    assert record["manifests_after"] == 3
    assert (new / "model.safetensors").read_bytes() == (
        whole / "checkpoints" / new.name / "model.safetensors"
    ).read_bytes()
    (new / "manifest.json").unlink()  # from here on it must be there
    with pytest.raises(DamagedError, match=r"manifest\.json"):
        load_model(new)


def test_two_runs_have_two_identities(run: Path, whole: Path) -> None:
    ids = [json.loads((each / "record.json").read_text())["id"] for each in (run, whole)]
    assert len(set(ids)) == 2
    assert all(len(each) == 16 for each in ids)
