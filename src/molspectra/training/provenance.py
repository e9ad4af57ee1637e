"""Where the numbers of a run come from: its record, the sessions it had, and the molecules seen before it."""

import logging
import secrets
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from molspectra.data.atomic import LOCK, naming
from molspectra.data.store.store import Store
from molspectra.errors import DamagedError, ExistsError, MismatchError, NotFoundError
from molspectra.training.checkpoint import find_checkpoint, newest, saved, step_of
from molspectra.training.config import DataConfig, FinetuneConfig, RunConfig
from molspectra.training.data import Selection, elements_of
from molspectra.training.devices import AUTO
from molspectra.training.leaks import Exposure, clean_split, exposure, twins
from molspectra.training.record import (
    commit,
    kernels_used,
    machine,
    one_of_several,
    read_json,
    read_metrics,
    versions,
    write_json,
)
from molspectra.training.seen import SEEN, Seen, own_seen, seen_by
from molspectra.training.settings import as_typed, from_dict, to_dict
from molspectra.training.targets import PROBABILITY, classes_of

log = logging.getLogger(__name__)

MAY_DIFFER = (
    *("data.store", "data.workers", "data.allow_leak"),
    *("loop.tensorboard", "loop.wandb", "loop.mlflow", "loop.keep"),
    *("loop.devices", "loop.nodes"),
)
"""Settings that a resumed run may change; of the store the content is compared."""

SESSION = ("versions", "commit", "machine", "device", "processes", "kernels")
"""Facts that the record keeps of every session of a run that was resumed."""


class Provenance:
    """The record of a run, compared with the earlier sessions of the run and with the runs it starts from.

    Attributes:
        config: settings of the run; a device that they leave open is the one that the first session named.
        run_id: identity of the run, in its record and in the manifests of its checkpoints.
        about: what every checkpoint says of itself: stage, target, units, levels of theory, elements.
        resumed: the run goes on from a checkpoint.
        finished: an earlier session reached the last step.
        extended_from: steps that the run was to have before, where it is to have more now; else None.
    """

    def __init__(self, config: RunConfig, directory: Path, *, resume: bool) -> None:
        """Read what an earlier session left in the run directory.

        Raises:
            InputError: the directory is in use and `resume` was not asked for, its settings are others, or
                checkpoints are gone that the run had saved.
        """
        self._directory = directory
        self.config, self._earlier, self.extended_from = _earlier_run(config, directory, resume)
        self._record: dict[str, Any] = {}
        self._seen: dict[str, Any] = {}
        self.run_id: str = self._earlier.get("id") or secrets.token_hex(8)
        self.finished = bool(self._earlier.get("finished")) and self.extended_from is None
        self.resumed = newest(directory / "checkpoints") is not None
        if self.finished:
            _require_weights(directory)
        elif self._earlier.get("finished") and not self.resumed:
            raise NotFoundError(
                f"{directory}: finished, and the checkpoint is gone from which it could go on (no step-... "
                "in checkpoints/); bring it back, or start another run from this one with init"
            )
        elif self._earlier and not self.resumed:
            _start_again(directory, self._earlier, config)
        self.about: dict[str, Any] = dict(self._earlier["about"]) if self.resumed else _stage_facts(config)

    @property
    def end(self) -> str:
        """How a finished run ended, in words."""
        return ended(self._earlier)

    @property
    def validation(self) -> dict[str, float]:
        """Last validation losses of a finished run."""
        return dict(self._earlier["validation"])

    def compare_data(self, selection: Selection) -> None:
        """Refuse data other than the run began with, and test molecules that were seen in pre-training.

        Raises:
            InputError: the hash of the store is not that of the record; or a leak into a fine-tuning run.
        """
        if self._earlier:
            recorded, actual = self._earlier["data"].get("hash"), selection.store.hash
            if recorded != actual:
                hashes = f"its content is {actual[:12]}, that of the run {str(recorded)[:12]}"
                raise MismatchError(
                    f"{self.config.data.store}: not the data that {self._directory} began with: {hashes}"
                )
        if not self.resumed:
            self._seen = compare_seen(self.config, selection)

    def describe(self, selection: Selection, targets: tuple[str, ...]) -> None:
        """Add to `about` what predictions are read by: elements, units and levels of theory of the training.

        A resumed run has this from its first session.
        """
        if self.resumed:
            return
        metadata, config = selection.store.metadata, self.config
        classes = classes_of(config) if isinstance(config, FinetuneConfig) else ()
        quantities = {
            name: replace(quantity, unit=PROBABILITY) if name in classes else quantity
            for name, quantity in metadata.properties.items()
        }
        self.about["elements"] = elements_of(selection.store, selection.train)
        if targets:
            self.about |= asdict(quantities[targets[0]])
        if "targets" in self.about:
            self.about["targets"] = {name: asdict(quantities[name]) for name in self.about["targets"]}
        if "forces" in targets and metadata.forces is not None:
            self.about["forces"] = asdict(metadata.forces)

    def begin(
        self, selection: Selection, fabric: Fabric, step: int, weights: Mapping[str, int] | None = None
    ) -> None:
        """Write `record.json`, `config.json` and, for pre-training, the molecules that the run will see.

        Args:
            selection: store and rows.
            fabric: device and processes; only the first process writes.
            step: the step that this session starts from.
            weights: how many weights are trained and frozen.

        Raises:
            WriteError: a file cannot be written.
        """
        record = self._facts(selection, fabric) | ({"weights": dict(weights)} if weights else {})
        if self.resumed:
            session = {"step": step, **{name: record[name] for name in SESSION}}
            identity = {"id": self.run_id, "manifests_after": self._earlier.get("manifests_after", step)}
            resumed = {"resumed": [*self._earlier.get("resumed", ()), session]}
            record = self._earlier | identity | resumed
            record.pop("stopped", None)
            if self.extended_from is not None:
                steps = self.config.loop.steps
                when = datetime.now(UTC).isoformat(timespec="seconds")
                longer = {"from": self.extended_from, "to": steps, "at": step, "when": when}
                record |= {
                    "finished": False,
                    "seconds": None,
                    "config": to_dict(self.config),
                    "extended": [*record.get("extended", ()), longer],
                }
                for name in ("validation", "steps", "best_step"):
                    record.pop(name, None)
        self._record = record
        if fabric.global_rank > 0:
            return
        with naming(self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
        for left_over in self._directory.glob(".*.part"):  # of a process that was killed while writing
            left_over.unlink(missing_ok=True)
        if self.extended_from is not None:  # results so far are those of the weights so far
            for path in self._directory.glob("evaluation*.json"):
                if not path.stem.endswith("-steps"):
                    path.rename(path.with_stem(f"{path.stem}-{self.extended_from}-steps"))
        write_json(self._directory / "record.json", record)
        write_json(self._directory / "config.json", to_dict(self.config))
        self._keep_seen(selection)

    def changed_kernels(self, fabric: Fabric) -> str:
        """What to say where the last session had other kernels than this one; else ""."""
        last = [self._earlier, *self._earlier.get("resumed", ())][-1]
        before = last.get("kernels", "plain")  # records from before there were kernels
        now = kernels_used(fabric.device, self.config.loop.precision)
        if before == now:
            return ""
        return f" with {now} kernels instead of {before}: equal to an unbroken run only up to rounding"

    def stop(self, step: int) -> None:
        """Note in `record.json` that the run was asked to stop and saved its state after a step.

        Raises:
            WriteError: the file cannot be written.
        """
        if newest(self._directory / "checkpoints") is not None:
            write_json(self._directory / "record.json", self._record | {"stopped": step})

    def finish(self, step: int, seconds: float, validation: Mapping[str, float]) -> str:
        """Add the outcome to `record.json`.

        Args:
            step: optimizer steps in all; fewer than asked for of a run that its patience ended.
            seconds: wall time of all sessions.
            validation: losses of the last validation.

        Returns:
            How the run ended, in words.

        Raises:
            WriteError: the file cannot be written.
        """
        best = newest(self._directory / "checkpoints", "best")
        outcome = {
            "steps": step,
            "best_step": None if best is None else step_of(best),
            "seconds": round(seconds, 2),
            "validation": validation,
            "finished": True,
        }
        record = self._record | outcome
        write_json(self._directory / "record.json", record)
        return ended(record)

    def _keep_seen(self, selection: Selection) -> None:
        """Write which molecules a pre-training run sees, with those of the runs that it started from."""
        config, path = self.config, self._directory / SEEN
        if isinstance(config, FinetuneConfig) or path.is_file():
            return
        seen = own_seen(config, selection, self._directory, self.about["stage"])
        (seen if config.init is None else seen.merged(seen_by(config.init))).save(path)

    def _labels(self, selection: Selection) -> dict[str, Any]:
        """Count the labels of each of several targets, by part."""
        config = self.config
        if not isinstance(config, FinetuneConfig) or len(config.targets) == 1:
            return {}
        return {"labels": {name: selection.labelled(name) for name in config.targets}}

    def _facts(self, selection: Selection, fabric: Fabric) -> dict[str, Any]:
        """Everything that a published number needs to carry."""
        device, parts = fabric.device, ("train", "val", "test")
        return {
            "id": self.run_id,
            "manifests_after": 0,
            "config": to_dict(self.config),
            "about": self.about,
            "seed": self.config.loop.seed,
            "data": {
                "store": self.config.data.store,
                "hash": selection.store.hash,
                "rows": {part: len(getattr(selection, part)) for part in parts},
                "rows_without_target": selection.lacking,
                **({"rows_in_no_part": selection.unassigned} if selection.unassigned else {}),
                **self._labels(selection),
            },
            "versions": versions(),
            "commit": commit(),
            "machine": machine(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "processes": fabric.world_size,
            "kernels": kernels_used(device, self.config.loop.precision),
            "finished": False,
            "seconds": None,
        } | self._seen


def ended(record: Mapping[str, Any]) -> str:
    """Return in words how the run of a record ended, and which of its weights are used."""
    loop, steps, best = record["config"]["loop"], record.get("steps"), record.get("best_step")
    words = f"finished after {steps} of {loop['steps']} steps"
    if steps != loop["steps"]:
        words += f", as {loop.get('patience')} validations in a row brought no lower loss (loop.patience)"
    if best is not None:
        words += (
            f"; the weights of step {best} had the lowest validation loss and are used, unless the last ones "
            "are asked for"
        )
    return words


def _stage_facts(config: RunConfig) -> dict[str, Any]:
    """Stage and target of a run, as its checkpoints name them."""
    encoder = config.model.spectrum_encoder
    if not isinstance(config, FinetuneConfig):
        return {"stage": "stage2" if encoder else "stage1"}
    facts: dict[str, Any] = {"stage": "finetune", "target": config.targets[0]}
    if len(config.targets) > 1:
        facts["targets"] = {name: {} for name in config.targets}
    if encoder is not None and config.model.spectrum_input:
        facts["spectrum_input"] = list(encoder.modalities)  # another task: spectra must be known to predict
    return facts


def _earlier_run(
    config: RunConfig, directory: Path, resume: bool
) -> tuple[RunConfig, dict[str, Any], int | None]:
    """Return settings and record of the run to be continued, {} where there is none, and `extended_from`."""
    if not directory.exists():
        return config, {}, None
    names = {path.name for path in directory.iterdir() if not path.match(".*.part")} - {LOCK}
    if not names:
        return config, {}, None
    if not resume:
        raise ExistsError(
            f"{directory}: exists already; continue it with --resume or choose another directory"
        )
    path = directory / "config.json"
    if names == {"record.json"}:  # killed before it had written its settings: nothing was done yet
        return config, {}, None
    if not path.is_file():
        raise NotFoundError(
            f"{directory}: holds no run that could be resumed (no config.json){one_of_several(directory)}"
        )
    before = from_dict(type(config), read_json(path), str(path))
    steps, more = before.loop.steps, config.loop.steps
    if more < steps:
        raise MismatchError(f"{directory}: loop.steps: a run of {steps} steps cannot become one of {more}")
    before = replace(before, loop=replace(before.loop, steps=more))
    if isinstance(before, FinetuneConfig) and isinstance(config, FinetuneConfig):
        refuse_other_target(directory, before.target, config.target)
    difference = first_difference(to_dict(before), to_dict(config))
    if difference:
        raise MismatchError(f"{directory}: cannot resume with other settings: {difference}")
    record = read_json(directory / "record.json")
    if not isinstance(record, dict) or not {"about", "data"} <= record.keys():
        raise DamagedError(f"{directory / 'record.json'}: not the record of a run")
    if steps < more and record.get("finished") and record.get("steps") != steps:
        raise MismatchError(
            f"{directory}: {ended(record)}; more steps do not change that: train anew with more patience"
        )
    if config.loop.accelerator == AUTO:
        config = replace(config, loop=replace(config.loop, accelerator=before.loop.accelerator))
    return config, record, steps if steps < more else None


def _require_weights(directory: Path) -> None:
    """Refuse a finished run whose weights are gone or damaged."""
    root = directory / "checkpoints"
    if not saved(root) and not saved(root, "best"):
        raise NotFoundError(
            f"{directory}: finished, as its record.json says, but its weights are gone (no checkpoint in "
            "checkpoints/); bring them back, or train in another directory"
        )
    find_checkpoint(directory)


def _start_again(directory: Path, record: Mapping[str, Any], config: RunConfig) -> None:
    """Say that a run starts over that was killed before it saved; refuse one whose checkpoints are gone."""
    loop = config.loop
    logged = max((step for step, *_ in read_metrics(directory / "metrics.csv")), default=0)
    was_saved = "stopped" in record or any(session["step"] for session in record.get("resumed", ()))
    if was_saved or logged > min(loop.save_every or loop.steps, loop.steps):
        raise NotFoundError(
            f"{directory}: its metrics.csv goes to step {logged}, but its checkpoints are gone (none in "
            "checkpoints/); bring them back, or start over in another directory"
        )
    log.warning("%s: was cut off before its first checkpoint (step %d) and starts over", directory, logged)


def first_difference(before: Any, now: Any, where: str = "") -> str:
    """Name the first setting in which two nested configurations differ, or return "".

    Settings in `MAY_DIFFER` do not count, nor a device that is left open now: a resumed run keeps its own.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            name = f"{where}.{key}" if where else key
            difference = "" if name in MAY_DIFFER else first_difference(before.get(key), now.get(key), name)
            if difference:
                return difference
        return ""
    same = before == now or (where == "loop.accelerator" and now == AUTO)
    return "" if same else f"{where} was {before!r} and is {now!r} now"


def refuse_other_target(directory: Path, before: object, now: str) -> None:
    """Refuse to resume a run that learns other targets.

    Raises:
        MismatchError: with both.
    """
    if before != now:
        raise MismatchError(
            f"{directory}: cannot resume with another target: the run there learns {before}, not {now}; "
            "leave --target out, or choose another directory"
        )


def compare_seen(config: RunConfig, selection: Selection) -> dict[str, Any]:
    """Compare a run's molecules with those that the runs before it saw; refuse a leak into fine-tuning.

    Returns:
        "seen": what the runs before it saw, how its test part compares (see `Exposure`), what was allowed,
        and how many test molecules are in its own training part (none in an identity split). Nothing for a
        run that starts from scratch by an identity split.

    Raises:
        MismatchError: a fine-tuning run whose test molecules were seen in pre-training.
    """
    facts: dict[str, Any] = {}
    if config.init is not None:
        seen = seen_by(config.init)
        test_exposure = exposure(selection.store, selection.test, seen)
        if isinstance(config, FinetuneConfig):
            refuse_leak(config.data, selection.store, test_exposure, seen, config.init)
        facts = {
            "before": seen.summary(),
            "test": test_exposure.plain(),
            "allow_leak": config.data.allow_leak,
        }
    if config.data.split != "identity":
        facts["test_in_own_training"] = twins(selection)
    return {"seen": facts} if facts else {}


def refuse_leak(config: DataConfig, store: Store, test: Exposure, seen: Seen, init: str) -> None:
    """Refuse to train where molecules of the test part were seen before, unless the settings allow it.

    Raises:
        MismatchError: how many, a few of them, and what to do.
    """
    if test.is_accepted(config.allow_leak):
        return
    clean = None if test.compared == "frames" else clean_split(store, config, seen)
    if clean is None:
        way_out = "split as it was split (--data.split, --data.split_seed, --data.fractions)"
    else:
        now, then = to_dict(config), to_dict(clean)
        changed = {name: as_typed(value) or "''" for name, value in then.items() if value != now[name]}
        options = " ".join(f"--data.{name} {text}" for name, text in changed.items())
        way_out = f"test on others, which it has not seen, with {options}"
    raise MismatchError(
        f"{config.store}: {test.sentence} ({init}): {', '.join(test.examples)}; {way_out}, or accept it with "
        f"--data.allow_leak {test.acceptable_with}"
    )
