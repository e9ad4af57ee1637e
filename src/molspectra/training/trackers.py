"""Where metrics of a run go besides `metrics.csv`: TensorBoard, Weights & Biases, MLflow; all off by default.

Where they are sent is decided by their own environment variables (WANDB_MODE, WANDB_PROJECT,
MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME); without any, MLflow writes a database into the run directory.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from molspectra.errors import MissingExtraError
from molspectra.training.config import LoopConfig
from molspectra.training.settings import flat

PROJECT = "molspectra"
"""Project or experiment of the runs, unless the environment names one."""

PACKAGES = {
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
}
"""Packages that each tracker needs; MLflow's own database needs the last two."""


class Tracker(Protocol):
    """Takes metrics."""

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Take the values after `step` optimizer steps."""

    def close(self) -> None:
        """Send what was not sent yet."""


def asked_for(loop: LoopConfig) -> tuple[str, ...]:
    """Return the trackers that the settings ask for.

    Raises:
        MissingExtraError: a package is not installed.
    """
    names = tuple(name for name in PACKAGES if getattr(loop, name))
    for name in names:
        if any(importlib.util.find_spec(package) is None for package in PACKAGES[name]):
            raise MissingExtraError(f"loop.{name}: needs {name} (pip install 'molspectra[trackers]')")
    return names


def open_trackers(
    names: tuple[str, ...], directory: Path, start: int, run_id: str, settings: Mapping[str, Any]
) -> list[Tracker]:
    """Open the trackers of a run; one that was resumed goes on in the same place after step `start`.

    Args:
        names: as `asked_for` returns.
        directory: of the run.
        start: step that the session begins from.
        run_id: identity of the run.
        settings: plain values.
    """
    found: list[Tracker] = []
    if "tensorboard" in names:
        found.append(_TensorBoard(directory, start))
    if "wandb" in names:
        found.append(_Wandb(directory, run_id, settings))
    if "mlflow" in names:
        found.append(_MLflow(directory, run_id, settings))
    return found


class _TensorBoard:
    def __init__(self, directory: Path, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.events: Any = SummaryWriter(str(directory / "tensorboard"), purge_step=start + 1)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.events.add_scalar(name, value, step)

    def close(self) -> None:
        self.events.close()


class _Wandb:
    def __init__(self, directory: Path, run_id: str, settings: Mapping[str, Any]) -> None:
        import wandb

        self.run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run_id,
            name=directory.name,
            resume="allow",
            dir=str(directory),
            config=dict(settings),
            settings=wandb.Settings(silent=True),
        )

    def add(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()


class _MLflow:
    def __init__(self, directory: Path, run_id: str, settings: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric
        from mlflow.tracking import MlflowClient

        self.metric = Metric
        database = f"sqlite:///{directory.absolute() / 'mlflow.db'}"
        self.client: Any = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or database)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self.client.get_experiment_by_name(name)
        place = experiment.experiment_id if experiment else self.client.create_experiment(name)
        same = self.client.search_runs([place], filter_string=f"tags.`{PROJECT}.run` = '{run_id}'")
        if same:
            self.id = same[0].info.run_id
            self.client.update_run(self.id, status="RUNNING")
        else:
            run = self.client.create_run(place, run_name=directory.name, tags={f"{PROJECT}.run": run_id})
            self.id = run.info.run_id
            for key, value in flat(settings, "tracker").items():
                self.client.log_param(self.id, key, value)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        metrics = [self.metric(name, value, 0, step) for name, value in values.items()]
        self.client.log_batch(self.id, metrics)

    def close(self) -> None:
        self.client.set_terminated(self.id)
