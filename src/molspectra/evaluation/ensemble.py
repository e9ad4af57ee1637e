"""Ensembles: runs that differ in their seed alone, in one directory, with the calibration of their spread.

The directory holds one run per member, `member-0` and so on, and `ensemble.json`, which is written last.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from molspectra.compiled import use_setting
from molspectra.data.atomic import folder_lock
from molspectra.data.store.store import Store
from molspectra.errors import (
    DamagedError,
    ExistsError,
    MismatchError,
    NotFoundError,
    SettingError,
    check_format,
)
from molspectra.evaluation.predict import Predictions, predict_rows
from molspectra.evaluation.uncertainty import Calibration
from molspectra.models.model import MolSpectra
from molspectra.printable import say
from molspectra.training.checkpoint import load_model
from molspectra.training.config import FinetuneConfig
from molspectra.training.configuration import configuration_for
from molspectra.training.data import Selection
from molspectra.training.record import ENSEMBLE, read_json, write_json
from molspectra.training.targets import classes_of, resolved

log = logging.getLogger(__name__)

FORMAT = 1

MEMBERS = 5
"""Default number of members."""

MOST_MEMBERS = 100
"""More members than anybody has the time for are a mistake."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ensemble:
    """Fine-tuned runs whose mean is the prediction.

    Attributes:
        directory: where they are.
        members: directories of the runs.
        calibrations: of their spread, by target; made on the validation part. Classes have none.
    """

    directory: Path
    members: tuple[Path, ...]
    calibrations: Mapping[str, Calibration]


class MemberPredictions(NamedTuple):
    """Predictions of an ensemble for n molecules."""

    mean: Predictions
    """Means over the members, of values and of forces."""
    spreads: Floats
    """[n, T] sample standard deviations over the members."""
    values: Floats
    """[M, n, T] values of every member."""


def is_ensemble(path: str | Path) -> bool:
    """Whether this is the directory of a finished ensemble."""
    return (Path(path) / ENSEMBLE).is_file()


def read_ensemble(directory: str | Path) -> Ensemble:
    """Read which members an ensemble has, and its calibration.

    Raises:
        InputError: not an ensemble, a damaged one, or one without its members.
    """
    directory = Path(directory)
    path = directory / ENSEMBLE
    if not path.is_file():
        raise NotFoundError(f"{directory}: not an ensemble (no {ENSEMBLE})")
    plain = read_json(path)
    try:
        check_format(f"{path}, an ensemble", plain["format"], FORMAT)
        members = tuple(directory / str(name) for name in plain["members"])
        calibrations = {str(name): Calibration.from_plain(one) for name, one in plain["calibration"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedError(f"{path}: not what finetune --members wrote ({error!r})") from error
    for member in members:
        if member.parent != directory or not (member / "record.json").is_file():
            raise DamagedError(f"{path}: names the member {member.name}, which is not there")
    if len(members) < 2:
        raise DamagedError(f"{path}: names {len(members)} members, and an ensemble has at least 2")
    return Ensemble(directory, members, calibrations)


def finetune_ensemble(
    config: FinetuneConfig | str | PathLike[str] | Mapping[str, Any],
    out: str | Path,
    members: int = MEMBERS,
    *,
    resume: bool = False,
    show: bool = True,
) -> Ensemble:
    """Fine-tune several times with the seeds seed, seed + 1, …, and calibrate the spread of the predictions.

    Args:
        config: settings of the members, as for `finetune`; `loop.seed` is that of the first.
        out: directory to make.
        members: how many, at least 2.
        resume: keep the members that are finished, continue the one that is not, and start those that lack.
        show: progress on standard error.

    Raises:
        ExistsError: something is in `out` and `resume` is False.
        InputError: as in `finetune`, or a number of members that is no ensemble.
        Interrupted: the run was asked to stop; its state is saved.
    """
    from molspectra.training.run import finetune  # a second of imports, which those who predict do not need

    config, out = configuration_for("finetune", config, FinetuneConfig), Path(out)
    if type(members) is not int or not 2 <= members <= MOST_MEMBERS:
        raise SettingError(f"members: an ensemble has 2 to {MOST_MEMBERS} members, not {members!r}")
    if config.loop.processes > 1:
        raise SettingError("members: each is trained on one device; set loop.devices and loop.nodes 1")
    if (out / "record.json").exists():
        raise ExistsError(f"{out}: a single run is there; choose another directory for the ensemble")
    if is_ensemble(out) and not resume:
        raise ExistsError(f"{out}: an ensemble is there; choose another directory, or --resume")
    before = len(read_ensemble(out).members) if is_ensemble(out) else members
    if members < before:
        raise MismatchError(f"{out}: has {before} members, which cannot become {members}")
    with folder_lock(out, "training this ensemble"):
        if members > before:  # tests so far are those of fewer members
            for path in (*out.glob("evaluation*.json"), *out.glob("predictions*.csv")):
                path.unlink()
        runs = []
        for number in range(members):
            run = out / f"member-{number}"
            if show:
                say(f"{run.name}, {number + 1} of {members}", error=True)
            loop = replace(config.loop, seed=config.loop.seed + number)
            runs.append(finetune(replace(config, loop=loop), run, resume=resume, show=show).directory)
        calibrations = _calibrated(config, runs)
        plain = {
            "format": FORMAT,
            "members": [run.name for run in runs],
            "calibration": {name: vars(one) for name, one in calibrations.items()},
        }
        write_json(out / ENSEMBLE, plain)
    return Ensemble(out, tuple(runs), calibrations)


def _calibrated(config: FinetuneConfig, runs: Sequence[Path]) -> dict[str, Calibration]:
    """Calibrate the spread of the members on the validation part, by target."""
    selection = Selection.of(config.data, config.labels)
    models = load_members(runs)
    with use_setting(config.loop.kernels):
        predictions, spreads, _ = predict_members(
            models, selection.store, selection.val, config.targets, batch_size=config.loop.batch_size
        )
    found, classes = {}, classes_of(resolved(config))
    for index, name in enumerate(config.targets):
        if name in classes:  # a probability has no error of its own
            continue
        errors = predictions.prediction[:, index] - predictions.target[:, index]
        known = ~np.isnan(errors)
        found[name] = Calibration.of(errors[known], spreads[known, index])
        for remark in found[name].remarks():
            log.warning("%s: %s", name, remark)
    return found


def load_members(runs: Sequence[Path], prefer: Literal["best", "last"] = "best") -> tuple[MolSpectra, ...]:
    """Load the models of the members, in evaluation mode.

    Raises:
        InputError: a run without a model, or a damaged one.
    """
    return tuple(load_model(run, prefer)[0] for run in runs)


def predict_members(
    models: Sequence[MolSpectra],
    store: Store,
    rows: npt.NDArray[np.int64],
    targets: Sequence[str],
    **options: Any,
) -> MemberPredictions:
    """Predict by every member; arguments and errors as in `predict_rows`."""
    found = [predict_rows(model, store, rows, targets, **options) for model in models]
    values = np.stack([one.prediction for one in found])
    means, spreads = mean_and_spread(values)
    forces = [one.force_prediction for one in found if one.force_prediction is not None]
    mean_forces = mean_and_spread(forces)[0] if forces else None
    mean = replace(found[0], prediction=means, force_prediction=mean_forces)
    return MemberPredictions(mean, spreads, values)


def mean_and_spread(values: Iterable[Floats]) -> tuple[Floats, Floats]:
    """Mean and sample standard deviation over the members, each of the shape of one member's values."""
    stacked = np.stack(list(values))
    return stacked.mean(0), stacked.std(0, ddof=1)
