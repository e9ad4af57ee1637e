"""The search for settings: its trials, how it goes on, what it writes, and what it refuses."""

import csv
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_runs import ENCODER, settings

from molspectra.apps.cli import main
from molspectra.errors import ExistsError, InputError, MismatchError, MissingExtraError, NotFoundError
from molspectra.models.model import ModelConfig
from molspectra.training import tune as module
from molspectra.training.config import FinetuneConfig
from molspectra.training.record import read_metrics
from molspectra.training.settings import from_dict, read_recipe
from molspectra.training.tune import Range, tune

SPACE = ("optimizer.learning_rate=1e-4:1e-2:log", "loop.batch_size=4|8")


@pytest.fixture(scope="module")
def config(store_path: Path) -> FinetuneConfig:
    return FinetuneConfig(model=ModelConfig(ENCODER), **settings(store_path, 0, steps=2))


@pytest.fixture(scope="module")
def searched(config: FinetuneConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tune") / "search"
    tune(config, out, SPACE, trials=4, show=False)
    return out


def test_the_best_trial_has_the_lowest_validation_loss(searched: Path, config: FinetuneConfig) -> None:
    with (searched / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    for row in rows:
        metrics = read_metrics(searched / f"trial-{int(row['trial']):03d}" / "metrics.csv")
        assert float(row["loss"]) == min(value for _, name, value, _ in metrics if name == "val/loss")
        assert 1e-4 <= float(row["optimizer.learning_rate"]) <= 1e-2
        assert row["loop.batch_size"] in ("4", "8")
    assert [float(row["loss"]) for row in rows] == sorted(float(row["loss"]) for row in rows)
    first = next(row for row in rows if row["trial"] == "0")  # the settings as they are
    assert (float(first["optimizer.learning_rate"]), first["loop.batch_size"]) == (1e-3, "8")
    best = from_dict(FinetuneConfig, read_recipe(str(searched / "best.yaml")), "best")
    assert best.loop.batch_size == int(rows[0]["loop.batch_size"])
    assert best.optimizer.learning_rate == pytest.approx(float(rows[0]["optimizer.learning_rate"]), rel=1e-3)
    assert best.data == config.data


def test_a_search_that_goes_on_equals_one_in_one_go(
    searched: Path, config: FinetuneConfig, tmp_path: Path
) -> None:
    out = tmp_path / "again"
    tune(config, out, SPACE, trials=2, show=False)
    with pytest.raises(ExistsError, match="--resume"):
        tune(config, out, SPACE, trials=4)
    tune(config, out, SPACE, trials=4, resume=True, show=False)
    assert (out / "trials.csv").read_bytes() == (searched / "trials.csv").read_bytes()
    before = (out / "trial-003" / "metrics.csv").stat().st_mtime_ns
    assert len(tune(config, out, SPACE, trials=3, resume=True, show=False)) == 4
    assert (out / "trial-003" / "metrics.csv").stat().st_mtime_ns == before
    with pytest.raises(MismatchError, match="another seed"):
        tune(config, out, SPACE, seed=1, resume=True)


def test_a_killed_search_goes_on(store_path: Path, tmp_path: Path) -> None:
    """SIGTERM in the second trial or so: the trial is continued and no other one is drawn for it."""
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "molspectra", "tune", "--out", str(out), "--data.store", str(store_path)]
    command += ["--data.fractions", "0.5,0.2,0.3", "--loop.steps", "12", "--model.encoder.channels", "8"]
    command += ["--model.encoder.layers", "1", "--model.encoder.heads", "2", "--loop.batch_size", "4"]
    command += ["--trials", "3", "--quiet", "--search", SPACE[0]]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    while not (out / "trial-001" / "metrics.csv").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode in (130, 0)  # 0: it was at the end already
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in out.glob("trial-*")) == ["trial-000", "trial-001", "trial-002"]
    assert "the best of 3 trials" in done.stdout


def test_a_trial_that_diverges_is_told_and_left_behind(
    config: FinetuneConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = ("optimizer.learning_rate=1e-3|1e30",)
    trials = tune(config, tmp_path / "out", space, trials=6, show=True)
    values = {trial.settings["optimizer.learning_rate"]: trial.value for trial in trials}
    assert math.isnan(values[1e30])
    assert trials[0].settings == {"optimizer.learning_rate": 1e-3}
    assert "failed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("optimizer.learning_rate", "write NAME=LOW:HIGH"),
        ("optimizer.lr=1e-4:1e-2", "did you mean optimizer.learning_rate"),
        ("optimizer.learning_rate=1e-2:1e-4", "ascending"),
        ("optimizer.learning_rate=0:1:log", "positive"),
        ("optimizer.learning_rate=1:2:linear", "LOW:HIGH:log"),
        ("loop.batch_size=a|b", "an integer"),
        ("data.split=identity:reference", "two ascending numbers"),
    ],
)
def test_ranges_that_are_none(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Range.of(text)


def test_values_that_no_run_takes_are_refused_before_the_first(
    config: FinetuneConfig, tmp_path: Path
) -> None:
    for space in (("optimizer.ema=0.5:1.0",), ("loop.steps=0:10",), (SPACE[0], SPACE[0]), ()):
        with pytest.raises(InputError):
            tune(config, tmp_path / "out", space)
    with pytest.raises(InputError, match="trials"):
        tune(config, tmp_path / "out", SPACE, trials=0)
    assert not (tmp_path / "out").exists()
    with pytest.raises(NotFoundError, match=r"'gap_rmse'.* loss, gap, gap_mae"):
        tune(config, tmp_path / "out", SPACE, trials=1, metric="gap_rmse", show=False)
    assert not (tmp_path / "out").exists()


def test_without_optuna_it_says_what_to_install(
    config: FinetuneConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"molspectra\[tune\]"):
        tune(config, tmp_path / "out")


def test_from_the_command_line(store_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["tune", "--out", str(out), "--data.store", str(store_path), "--data.fractions", "0.5,0.2,0.3"]
    command += ["--model.encoder.channels", "8", "--model.encoder.layers", "1", "--model.encoder.heads", "2"]
    command += ["--loop.steps", "2", "--trials", "2", "--metric", "gap_mae", "--quiet"]
    assert main(command) == 0
    assert "gap_mae" in capsys.readouterr().out
    assert (
        main(["finetune", "--config", str(out / "best.yaml"), "--out", str(tmp_path / "run"), "--quiet"]) == 0
    )
