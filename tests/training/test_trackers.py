"""Trackers: what goes to Weights & Biases and MLflow, offline, and how a resumed run goes on there."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from molspectra.errors import MissingExtraError
from molspectra.training.record import read_metrics
from molspectra.training.run import finetune

Make = Callable[..., Any]


def run_id(run: Path) -> str:
    return str(json.loads((run / "record.json").read_text())["id"])


@pytest.mark.parametrize("name", ["wandb", "mlflow", "tensorboard"])
def test_a_missing_package_is_named(
    gap: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=rf"loop\.{name}: .*molspectra\[trackers\]"):
        finetune(gap(**{f"loop__{name}": True}), tmp_path / "run", show=False)
    assert not (tmp_path / "run").exists()


def test_what_weights_and_biases_is_told(
    gap: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_before_step_3: Make
) -> None:
    """With a stand-in of its interface: all metrics at their steps, once, under the identity of the run."""
    sessions: list[dict[str, Any]] = []

    def init(**options: Any) -> Any:
        session: dict[str, Any] = {"options": options, "rows": [], "finished": False}
        sessions.append(session)
        return SimpleNamespace(
            log=lambda values, step: session["rows"].append((step, values)),
            finish=lambda: session.update(finished=True),
        )

    stand_in = ModuleType("wandb")
    stand_in.init, stand_in.Settings = init, lambda **options: options  # type: ignore[attr-defined]
    stand_in.__spec__ = SimpleNamespace()  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    monkeypatch.setenv("WANDB_PROJECT", "gaps")
    with cut_before_step_3():
        finetune(gap(loop__wandb=True), tmp_path / "run", show=False)
    run = finetune(gap(loop__wandb=True), tmp_path / "run", resume=True, show=False).directory
    assert [session["finished"] for session in sessions] == [True, True]
    for session in sessions:
        options = session["options"]
        assert (options["id"], options["project"], options["resume"]) == (run_id(run), "gaps", "allow")
        assert options["config"]["loop"]["steps"] == 4
    assert [step for step, _ in sessions[1]["rows"]] == [3, 4, 4]
    told = {(step, name): value for step, values in sessions[1]["rows"] for name, value in values.items()}
    written = {(step, name): value for step, name, value, _ in read_metrics(run / "metrics.csv") if step > 2}
    assert told.keys() == written.keys()
    assert all(written[key] == pytest.approx(value, rel=1e-6) for key, value in told.items())


@pytest.mark.filterwarnings("ignore")  # of their own
def test_weights_and_biases_offline(gap: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = finetune(gap(loop__wandb=True, loop__steps=1), tmp_path / "run", show=False).directory
    (folder,) = (run / "wandb").glob(f"offline-run-*-{run_id(run)}")
    assert list(folder.glob("*.wandb"))


@pytest.mark.filterwarnings("ignore")
def test_mlflow_in_the_run_directory(gap: Make, tmp_path: Path, cut_before_step_3: Make) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    with cut_before_step_3():
        finetune(gap(loop__mlflow=True), tmp_path / "run", show=False)
    run = finetune(gap(loop__mlflow=True), tmp_path / "run", resume=True, show=False).directory
    client = MlflowClient(f"sqlite:///{run / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("molspectra")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.data.tags["molspectra.run"] == run_id(run)
    assert found.data.params["loop.steps"] == "4"
    assert found.info.status == "FINISHED"
    losses = {
        metric.step: metric.value for metric in client.get_metric_history(found.info.run_id, "val/loss")
    }
    rows = {step: value for step, name, value, _ in read_metrics(run / "metrics.csv") if name == "val/loss"}
    assert losses == pytest.approx(rows)
