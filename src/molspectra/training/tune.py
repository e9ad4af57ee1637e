"""Search for settings of a fine-tuning run, by Optuna (extra `tune`): many short runs, one recipe.

The directory holds one run per trial, `trial-000` and so on, the journal of the study, and at the end of
every trial `trials.csv` and `best.yaml`. What a trial tries depends on the trials before it and on the seed
alone, so a search that was cut off goes on as if it had not been.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import yaml

from molspectra.data.atomic import atomic_file, folder_lock
from molspectra.errors import ExistsError, MismatchError, MissingExtraError, NotFoundError, SettingError
from molspectra.printable import say
from molspectra.training.config import SPACE, TRIALS, FinetuneConfig
from molspectra.training.configuration import configuration_for
from molspectra.training.nonfinite import NonFiniteError
from molspectra.training.record import read_json, read_metrics, write_json
from molspectra.training.run import finetune
from molspectra.training.settings import Setting, did_you_mean, flat, from_dict, put, settings_of, to_dict
from molspectra.training.stages import auroc_of, validated
from molspectra.training.targets import classes_of, resolved

MOST_TRIALS = 10_000
"""More trials than anybody has the time for are a mistake."""

JOURNAL, ABOUT, TABLE, BEST = "study.journal", "tune.json", "trials.csv", "best.yaml"


@dataclass(frozen=True)
class Range:
    """Where the value of a setting may lie.

    Attributes:
        setting: the setting.
        choices: its values, or
        ends: the smallest and the largest.
        log: draw on a logarithmic scale.
    """

    setting: Setting
    choices: tuple[Any, ...] = ()
    ends: tuple[float, float] | None = None
    log: bool = False

    @classmethod
    def of(cls, text: str) -> Range:
        """Read NAME=LOW:HIGH, NAME=LOW:HIGH:log or NAME=A|B|C.

        Raises:
            SettingError: another form, an unknown setting, or a value that the setting does not take.
        """
        name, is_pair, values = text.partition("=")
        if not is_pair or not values:
            raise SettingError(
                f"search {text}: write NAME=LOW:HIGH, NAME=LOW:HIGH:log or NAME=A|B|C, such as {SPACE[0]}"
            )
        settings = {setting.name: setting for setting in settings_of(FinetuneConfig)}
        if name not in settings:
            raise SettingError(f"search {text}: unknown setting {name!r}{did_you_mean(name, settings)}")
        setting = settings[name]
        parts = values.split(":")
        if len(parts) == 1:
            return cls(setting, choices=tuple(setting.parse(value) for value in values.split("|")))
        if len(parts) > 3 or parts[2:] not in ([], ["log"]):
            raise SettingError(f"search {text}: a range is LOW:HIGH or LOW:HIGH:log")
        low, high = (setting.parse(part) for part in parts[:2])
        is_log = len(parts) == 3
        if type(low) not in (int, float) or not low < high or (is_log and low <= 0):
            raise SettingError(f"search {text}: a range has two ascending numbers, for log positive ones")
        return cls(setting, ends=(low, high), log=is_log)

    @property
    def examples(self) -> tuple[Any, ...]:
        """Values that must be valid: all choices, or both ends."""
        return self.choices or self.ends or ()

    def distribution(self) -> Any:
        """It in Optuna's words."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.ends is None:  # lists are no values of Optuna, their places are
            return CategoricalDistribution(list(range(len(self.choices))))
        low, high = self.ends
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=self.log)
        return FloatDistribution(low, high, log=self.log)

    def value(self, drawn: Any) -> Any:
        """The value of the setting that stands for what Optuna drew."""
        return self.choices[drawn] if self.ends is None else drawn


@dataclass(frozen=True)
class Trial:
    """A finished trial.

    Attributes:
        number: from 0.
        settings: what was tried, by name.
        value: best validation loss (or other metric), the lowest or of an AUROC the highest; NaN for one
            whose loss was not finite.
    """

    number: int
    settings: Mapping[str, Any]
    value: float


def tune(
    config: FinetuneConfig | str | PathLike[str] | Mapping[str, Any],
    out: str | Path,
    space: str | Sequence[str] = SPACE,
    *,
    trials: int = TRIALS,
    metric: str = "loss",
    seed: int = 0,
    resume: bool = False,
    show: bool = True,
) -> list[Trial]:
    """Fine-tune with different settings and keep those with the best metric of the validation part.

    The first trial takes the settings as they are where they lie in the space. The others are drawn by the
    tree-structured Parzen estimator of Optuna.

    Args:
        config: settings of all trials, as for `finetune`.
        out: directory to make; `best.yaml` in it is a recipe.
        space: what to try, as "NAME=LOW:HIGH", "NAME=LOW:HIGH:log" or "NAME=A|B|C".
        trials: how many.
        metric: of the validation, such as "loss" or "gap_mae", which shall be low, or "active_auroc" of a
            class, which shall be high.
        seed: of the search.
        resume: go on with the search that is there, up to this number of trials; start it where there is
            none.
        show: progress on standard error.

    Returns:
        The trials, the best first.

    Raises:
        MissingExtraError: Optuna is not installed.
        ExistsError: a search is there and `resume` is False.
        InputError: a range that is none, a metric that no validation tells, settings that fit no run, or
            other settings than the search had.
        Interrupted: a trial was asked to stop; its state is saved.
    """
    if importlib.util.find_spec("optuna") is None:
        raise MissingExtraError("a search for settings needs Optuna; pip install 'molspectra[tune]'")
    if not 1 <= trials <= MOST_TRIALS:
        raise SettingError(f"trials: 1 to {MOST_TRIALS:,} are possible, not {trials}")
    config = configuration_for("finetune", config, FinetuneConfig)
    space = [space] if isinstance(space, str) else list(space)
    out, ranges = Path(out), [Range.of(text) for text in space]
    names = [one.setting.name for one in ranges]
    if not ranges or len(set(names)) < len(names):
        raise SettingError(f"search: each setting once, and at least one; not {', '.join(names) or 'none'}")
    for one in ranges:
        for value in one.examples:
            _changed(config, {one.setting.name: value})
    known = validated(resolved(config))
    if metric not in known:
        raise NotFoundError(f"metric: no {metric!r} in a validation, which tells {', '.join(known)}")
    about = {"settings": to_dict(config), "space": space, "metric": metric, "seed": seed}
    _check_directory(out, about, resume)
    with folder_lock(out, "searching for settings"), _quiet_optuna():
        write_json(out / ABOUT, about)
        study = _Study(config, out, ranges, metric, seed, show)
        while len(study.finished()) < trials:
            study.next(trials)
    return study.finished()


class _Study:
    """The trials so far, in Optuna's journal and on the disk."""

    def __init__(
        self, config: FinetuneConfig, out: Path, ranges: Sequence[Range], metric: str, seed: int, show: bool
    ) -> None:
        import optuna
        from optuna.storages.journal import JournalFileBackend

        self.config, self.out, self.metric, self.seed, self.show = config, out, metric, seed, show
        self.sign = -1 if metric in map(auroc_of, classes_of(resolved(config))) else 1
        """Of the metric in the search for the smallest: an AUROC is the better the larger it is."""
        self.ranges = {one.setting.name: one for one in ranges}
        self.distributions = {name: one.distribution() for name, one in self.ranges.items()}
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(out / JOURNAL)))
        self.study = optuna.create_study(storage=storage, study_name="tune", load_if_exists=True)
        if not self.study.get_trials():
            self._enqueue_start()

    def _enqueue_start(self) -> None:
        """Make the settings as they are the first trial, where they lie in the space."""
        given = flat(to_dict(self.config), "search")
        start: dict[str, Any] = {}
        for name, one in self.ranges.items():
            value: Any = given.get(name)
            value = tuple(value) if isinstance(value, list) else value
            if one.ends is None and value in one.choices:
                start[name] = one.choices.index(value)
            elif one.ends is not None and one.ends[0] <= value <= one.ends[1]:
                start[name] = value
        if len(start) == len(self.ranges):
            self.study.enqueue_trial(start)

    def finished(self) -> list[Trial]:
        """The trials that ended, the best first."""
        from optuna.trial import TrialState

        ended = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))
        found = [
            Trial(
                one.number,
                self._settings(one.params),
                math.nan if one.value is None else self.sign * one.value,
            )
            for one in ended
            if set(one.params) == set(self.ranges)  # not one that was killed while it was drawn
        ]
        return sorted(found, key=lambda one: (math.isnan(one.value), self.sign * one.value, one.number))

    def next(self, trials: int) -> None:
        """Go on with the trial that was cut off, or do another one."""
        import optuna
        from optuna.trial import TrialState

        cut_off = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if cut_off and set(cut_off[0].params) == set(self.ranges):
            number, drawn = cut_off[0].number, cut_off[0].params
        elif cut_off:  # killed while it was drawn
            self.study.tell(cut_off[0].number, state=TrialState.FAIL)
            return
        else:
            count = len(self.study.get_trials(deepcopy=False))
            self.study.sampler = optuna.samplers.TPESampler(seed=self.seed + count)
            trial = self.study.ask(self.distributions)
            number, drawn = trial.number, trial.params
        settings = self._settings(drawn)
        words = ", ".join(f"{name} {_shown(value)}" for name, value in settings.items())
        run = self.out / f"trial-{number:03d}"
        try:
            finetune(_changed(self.config, settings), run, resume=True, show=self.show)
            value = self._value(run)
        except NonFiniteError as error:
            self.study.tell(number, state=TrialState.FAIL)
            said = f"failed ({error})"
        else:
            self.study.tell(number, self.sign * value)
            said = f"{self.metric} {value:.4g}"
        best = self._write()
        if self.show:
            say(f"trial {number} ({number + 1} of {trials}): {said}; {words}; {best}", error=True)

    def _value(self, run: Path) -> float:
        """The best value of the metric in the validations of a run."""
        rows = [(name, value) for _, name, value, _ in read_metrics(run / "metrics.csv")]
        values = [value for name, value in rows if name == f"val/{self.metric}"]
        if not values:
            known = sorted({name.removeprefix("val/") for name, _ in rows if name.startswith("val/")})
            raise NotFoundError(
                f"metric: no {self.metric!r} in the validations of {run}, only {', '.join(known)}"
            )
        return min(values, key=lambda value: self.sign * value)

    def _write(self) -> str:
        """Write the table and the best recipe; returns words about the best trial."""
        trials = self.finished()
        text = io.StringIO(newline="")
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["trial", self.metric, *self.ranges])
        for one in trials:
            table.writerow(
                [one.number, repr(one.value), *(_shown(one.settings[name]) for name in self.ranges)]
            )
        with atomic_file(self.out / TABLE) as file:
            file.write(text.getvalue().encode())
        best = trials[0]
        if math.isnan(best.value):
            return "none has succeeded"
        recipe = yaml.safe_dump(to_dict(_changed(self.config, best.settings)), sort_keys=False)
        with atomic_file(self.out / BEST) as file:
            file.write(f"# trial {best.number}: {self.metric} {best.value:.6g}\n{recipe}".encode())
        return f"best: trial {best.number} with {best.value:.4g}"

    def _settings(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """Settings by name of what Optuna drew."""
        return {name: one.value(drawn[name]) for name, one in self.ranges.items() if name in drawn}


def _check_directory(out: Path, about: Mapping[str, Any], resume: bool) -> None:
    """Refuse a directory with another search, or with anything else."""
    path = out / ABOUT
    if not path.is_file():
        if (out / "record.json").exists():
            raise ExistsError(f"{out}: a run is there; choose another directory for the search")
        return
    if not resume:
        raise ExistsError(f"{out}: a search is there; choose another directory, or --resume")
    before = read_json(path)
    for name, value in about.items():
        if not isinstance(before, dict) or before.get(name) != value:
            raise MismatchError(f"{path}: the search there has another {name}; choose another directory")


def _changed(config: FinetuneConfig, settings: Mapping[str, Any]) -> FinetuneConfig:
    """Settings with some of them changed, by dotted name."""
    values: dict[str, Any] = {}
    put(values, settings, "search")
    return from_dict(FinetuneConfig, values, "search", config)


def _shown(value: Any) -> str:
    """A value as it is written on the command line, floats in four digits."""
    if isinstance(value, tuple):
        return ",".join(map(_shown, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Keep Optuna's own lines off standard error: what it says is said here."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
