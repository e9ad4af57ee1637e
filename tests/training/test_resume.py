"""Promise: a run that was cut off and continued ends bit for bit like one that was not."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from molspectra.data.store.shard_writer import write_shards
from molspectra.data.store.store import Store, write_store
from molspectra.errors import DamagedError, ExistsError, InputError, MismatchError
from molspectra.training.checkpoint import newest, read_resume
from molspectra.training.interrupt import Interrupted
from molspectra.training.loop import Trainer
from molspectra.training.record import MetricLog, read_metrics, unreadable_metrics
from molspectra.training.run import finetune, pretrain
from molspectra.training.settings import to_dict

Make = Callable[..., Any]

KILLED = """
import json, os, signal, sys
from molspectra.training.config import PretrainConfig
from molspectra.training.loop import Trainer
from molspectra.training.run import pretrain
from molspectra.training.settings import from_dict

update = Trainer._update

def until_step_9(self, micros):
    if self.step == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return update(self, micros)

Trainer._update = until_step_9
if __name__ == "__main__":
    pretrain(from_dict(PretrainConfig, json.load(open(sys.argv[1])), "test"), sys.argv[2], show=False)
"""


@pytest.fixture(scope="module")
def config(stage2: Make) -> Any:
    """Twenty steps with everything that has a state."""
    return stage2(
        loop__steps=20,
        loop__save_every=7,
        loop__validate_every=5,
        loop__accumulation=2,
        optimizer__ema=0.9,
        optimizer__clip=1.0,
        denoising__normalise="running",
    )


@pytest.fixture(scope="module")
def whole(config: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing happened to."""
    return pretrain(config, tmp_path_factory.mktemp("whole") / "run", show=False).directory


def lines(run: Path) -> list[list[str]]:
    """metrics.csv without the times."""
    with (run / "metrics.csv").open(newline="") as file:
        return [line[:3] for line in csv.reader(file)]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        kinds = [
            (each.dtype, each.shape, each.numpy().tobytes()) for each in (one, other)
        ]  # NaN may be there
        return bool(kinds[0] == kinds[1])
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def assert_same_end(run: Path, whole: Path) -> None:
    for kind in ("step", "best"):
        ours, theirs = newest(run / "checkpoints", kind), newest(whole / "checkpoints", kind)
        assert ours is not None
        assert theirs is not None
        assert ours.name == theirs.name
        weights = [(each / "model.safetensors").read_bytes() for each in (ours, theirs)]
        assert weights[0] == weights[1]
    ours, theirs = (read_resume(each / "checkpoints" / "step-000000020") for each in (run, whole))
    assert ours["average"]
    assert ours["optimizer"]["state"]
    assert same(ours, theirs)
    assert lines(run) == lines(whole)


def test_a_killed_run_goes_on_bit_for_bit(config: Any, whole: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    (tmp_path / "killed.py").write_text(KILLED)
    run = tmp_path / "run"
    command = [sys.executable, str(tmp_path / "killed.py"), str(tmp_path / "config.json"), str(run)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    saved = newest(run / "checkpoints")
    assert saved is not None
    assert saved.name == "step-000000007"
    assert lines(run)[-1][0] == "9"  # steps 8 and 9 were logged, and will be again

    result = pretrain(config, run, resume=True, show=False)
    assert_same_end(run, whole)
    record = json.loads((run / "record.json").read_text())
    assert record["finished"]
    assert record["steps"] == 20
    assert record["validation"] == result.metrics
    assert [session["step"] for session in record["resumed"]] == [7]


@pytest.mark.parametrize(
    ("number", "workers"), [(signal.SIGINT, 1), (signal.SIGTERM, 2), (signal.SIGUSR1, 1)]
)
def test_a_signal_saves_with_workers_and_the_run_goes_on_bit_for_bit(
    config: Any, whole: Path, tmp_path: Path, number: int, workers: int
) -> None:
    """It reaches all processes of a terminal or a batch job; the workers must not take the run with them."""
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    run = tmp_path / "run"
    command = [sys.executable, "-m", "molspectra", "pretrain", "--config", str(tmp_path / "config.json")]
    command += ["--out", str(run), "--data.workers", str(workers)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while process.poll() is None and len(read_metrics(run / "metrics.csv")) < 20:
        time.sleep(0.02)
    os.killpg(process.pid, number)
    _, said = process.communicate()
    assert process.returncode == 130, said
    stopped = newest(run / "checkpoints")
    assert stopped is not None
    step = int(stopped.name[-9:])
    assert 2 <= step < 20
    assert said.splitlines()[-1] == (
        f"molspectra: stopped at step {step} of 20, the state is saved; continue with --resume"
    )
    assert "Traceback" not in said
    assert "resource_tracker" not in said
    assert not (run / ".lock").exists()

    pretrain(config, run, resume=True, show=False)
    assert_same_end(run, whole)


DEAF = """
import multiprocessing, signal, sys
from molspectra.data.loader import ignore_signals_in_workers

def blocked():
    found = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return len(found & {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1})

def child():
    sys.exit(blocked())

if __name__ == "__main__":
    processes = [multiprocessing.get_context("spawn").Process(target=child) for _ in range(2)]
    with ignore_signals_in_workers():
        for process in processes:
            process.start()
    for process in processes:
        process.join()
    print([process.exitcode for process in processes], blocked())
"""


def test_workers_are_deaf_to_requests_to_stop_from_the_start(tmp_path: Path) -> None:
    (tmp_path / "deaf.py").write_text(DEAF)
    command = [sys.executable, str(tmp_path / "deaf.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[3, 3] 0"


def stopping_at(step: int, monkeypatch: pytest.MonkeyPatch, number: int = signal.SIGTERM) -> None:
    """Send a signal to this process during a step."""
    update = Trainer._update

    def patched(self: Trainer, micros: Any) -> dict[str, float]:
        if self.step == step:
            os.kill(os.getpid(), number)
        return update(self, micros)

    monkeypatch.setattr(Trainer, "_update", patched)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_stops_after_the_step(
    stage1: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    before = signal.getsignal(number)
    stopping_at(2, monkeypatch, number)
    with pytest.raises(Interrupted, match="stopped at step 3 of 4"):
        pretrain(stage1(), tmp_path / "run", show=False)
    assert newest(tmp_path / "run" / "checkpoints") == tmp_path / "run" / "checkpoints" / "step-000000003"
    assert signal.getsignal(number) is before
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert not record["finished"]


def test_a_request_during_the_last_step_changes_nothing(
    stage1: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping_at(3, monkeypatch)
    assert pretrain(stage1(), tmp_path / "run", show=False).metrics


def test_a_second_ctrl_c_stops_at_once(stage1: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopping_at(2, monkeypatch, signal.SIGINT)
    stopping_at(2, monkeypatch, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        pretrain(stage1(), tmp_path / "run", show=False)
    assert newest(tmp_path / "run" / "checkpoints") == tmp_path / "run" / "checkpoints" / "step-000000002"


def test_a_finished_run_is_left_alone(stage1: Make, tmp_path: Path) -> None:
    first = pretrain(stage1(), tmp_path / "run", show=False)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    assert pretrain(stage1(), tmp_path / "run", resume=True, show=False).metrics == first.metrics
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == files


def test_a_run_cut_off_after_its_last_step_is_finished(
    stage1: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pretrain(stage1(), tmp_path / "run", show=False)
    record = tmp_path / "run" / "record.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"finished": False}))
    monkeypatch.setattr(Trainer, "_update", None)
    assert pretrain(stage1(), tmp_path / "run", resume=True, show=False).metrics == first.metrics
    assert json.loads(record.read_text())["finished"]


@pytest.mark.parametrize("made", [True, False])
def test_resume_starts_where_there_is_nothing(stage1: Make, tmp_path: Path, made: bool) -> None:
    if made:
        (tmp_path / "run").mkdir()
    pretrain(stage1(loop__steps=1), tmp_path / "run", resume=True, show=False)
    assert "resumed" not in json.loads((tmp_path / "run" / "record.json").read_text())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"loop__seed": 1}, "loop.seed was 0 and is 1 now"),
        ({"optimizer__schedule__warmup": 3}, "optimizer.schedule.warmup was 0 and is 3 now"),
        ({"model__spectrum_encoder": None}, "model.spectrum_encoder was {"),
    ],
)
def test_other_settings_are_refused_by_name(
    stage2: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], said: str
) -> None:
    stopping_at(0, monkeypatch)
    with pytest.raises(Interrupted):
        pretrain(stage2(), tmp_path / "run", show=False)
    with pytest.raises(InputError) as caught:
        pretrain(stage2(**change), tmp_path / "run", resume=True, show=False)
    assert said in str(caught.value)
    with pytest.raises(ExistsError, match="--resume"):
        pretrain(stage2(), tmp_path / "run", show=False)


def test_other_data_are_refused(
    stage1: Make, store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping_at(1, monkeypatch)
    with pytest.raises(Interrupted):
        pretrain(stage1(), tmp_path / "run", show=False)
    store = Store(store_path)
    other, copy = tmp_path / "other.arrow", tmp_path / "copy.arrow"
    write_store(other, map(store.row, range(len(store) - 1)), store.metadata)
    copy.write_bytes(store_path.read_bytes())
    with pytest.raises(MismatchError, match=r"other\.arrow"):
        pretrain(stage1(data__store=str(other)), tmp_path / "run", resume=True, show=False)
    pretrain(stage1(data__store=str(copy)), tmp_path / "run", resume=True, show=False)


def test_standardisation_and_start_come_from_the_checkpoint(
    stage1: Make, gap: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed fine-tuning needs neither the run that it started from nor the training set's mean."""
    start = pretrain(stage1(loop__steps=1), tmp_path / "start", show=False).directory
    config = gap(init=str(start), energy_smoothing=0.5)
    whole = finetune(config, tmp_path / "whole", show=False).directory
    with monkeypatch.context() as patch:
        stopping_at(1, patch)
        with pytest.raises(Interrupted):
            finetune(config, tmp_path / "run", show=False)
    start.rename(tmp_path / "elsewhere")
    monkeypatch.setattr("molspectra.models.heads.PropertyHead.standardise", lambda *_: None)
    finetune(config, tmp_path / "run", resume=True, show=False)
    weights = [
        (each / "checkpoints" / "step-000000004" / "model.safetensors").read_bytes()
        for each in (tmp_path / "run", whole)
    ]
    assert weights[0] == weights[1]
    records = [json.loads((each / "record.json").read_text()) for each in (tmp_path / "run", whole)]
    assert records[0]["about"] == records[1]["about"]
    assert records[0]["about"]["initialised"]["parts"] == ["encoder", "noise_head"]


def test_metrics_beyond_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(
        "step,name,value,seconds\n1,train/loss,1,2.5\n2,train/loss,0.10,5\n3,train/loss,7,8\n3,tr"
    )
    log = MetricLog(tmp_path, 2)
    assert log.before == 5.0
    log.write(3, {"train/loss": 0.25})
    log.close()
    kept = path.read_text().splitlines()
    assert kept[:3] == ["step,name,value,seconds", "1,train/loss,1,2.5", "2,train/loss,0.10,5"]
    assert kept[3].startswith("3,train/loss,0.25,5.")
    assert len(kept) == 4


def test_metrics_that_cannot_be_read_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Except a last line without an end, which every kill may leave."""
    path = tmp_path / "metrics.csv"
    whole = "step,name,value,seconds\n1,train/loss,1,2.5\n\n2,train/loss,0.10,5\n"
    for torn, count in (
        ("", 0),
        ("3,tr", 0),
        ("2,train", 0),
        ("garbage\n3,tr", 1),
        ("x\n2,a,b,1\n1,a,2\n", 3),
    ):
        path.write_text(whole + torn)
        assert len(read_metrics(path)) == 2
        assert unreadable_metrics(path).startswith(f"{count} line" if count else "")
        caplog.clear()
        MetricLog(tmp_path, 2).close()
        assert [f"{path}: {count} line" in message for message in caplog.messages] == [True] * (count > 0)
        assert unreadable_metrics(path) == ""
    path.write_text("1,train/loss,1,2.5\nstep,name,value,seconds\n")
    assert unreadable_metrics(path).startswith("1 line ")


def test_a_run_refuses_a_store_that_is_not_what_was_written(
    stage1: Make, store_path: Path, tmp_path: Path
) -> None:
    """A changed coordinate shows only in the hash of the content."""
    content, positions = store_path.read_bytes(), Store(store_path).molecule(3).positions
    value = positions.astype("float32").tobytes()
    assert content.count(value) == 1
    other = tmp_path / "other.arrow"
    other.write_bytes(content.replace(value, value[:-4] + bytes(4)))
    Store(other)  # opens
    with pytest.raises(DamagedError, match=r"other\.arrow.*rows 0 to 39"):
        pretrain(stage1(data__store=str(other)), tmp_path / "run", show=False)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_store_in_shards_trains_and_goes_on_bit_for_bit(
    config: Any, whole: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run records another path, and nothing else differs: not the losses, not the weights."""
    write_shards(tmp_path / "shards", store, store.metadata, shard_rows=7)
    data = replace(config.data, store=str(tmp_path / "shards"), workers=2)
    sharded, run = replace(config, data=data), tmp_path / "run"
    update = Trainer._update

    def until_step_9(self: Trainer, micros: Any) -> Any:
        if self.step == 9:
            raise KeyboardInterrupt
        return update(self, micros)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", until_step_9)
        with pytest.raises(KeyboardInterrupt):
            pretrain(sharded, run, show=False)
    pretrain(sharded, run, resume=True, show=False)
    assert_same_end(run, whole)
