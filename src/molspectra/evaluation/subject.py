"""A run to be tested: its settings, record, model, and the rows to test on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from molspectra.data.store.schema import Quantity
from molspectra.data.store.store import Store
from molspectra.errors import InputError, MismatchError, NotFoundError, SettingError, UnitError
from molspectra.evaluation.ensemble import is_ensemble, load_members, read_ensemble
from molspectra.evaluation.predict import moved
from molspectra.evaluation.uncertainty import Calibration
from molspectra.models.model import MolSpectra
from molspectra.training.checkpoint import load_model
from molspectra.training.config import DataConfig, FinetuneConfig, PretrainConfig
from molspectra.training.data import Selection, open_store
from molspectra.training.record import read_run
from molspectra.training.seen import selection_of
from molspectra.training.targets import PROBABILITY, quantities_of

PARTS = ("train", "val", "test", "all")
"""Parts of the run's split; "all": every row of a store that has labels, however it is split."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A run to be tested.

    Attributes:
        out: directory of the results.
        data: the run's data settings, with the store that is read.
        model: from `checkpoint`, in evaluation mode on the chosen device.
        selection: the store and its split; of the part "all", every row with a label as the test part.
        training: the split with the rows that the run was trained on, None where they are not at hand.
        part: one of `PARTS`.
        checkpoint: "best" or "last".
        others: of an ensemble the models of the other members; `directory`, `record` and `model` are those of
            the first, whose settings differ from theirs in the seed alone.
        calibrations: of the spread of an ensemble, by target.
    """

    directory: Path
    out: Path
    config: PretrainConfig | FinetuneConfig
    data: DataConfig
    record: Mapping[str, Any]
    model: MolSpectra
    selection: Selection
    training: Selection | None
    part: str
    checkpoint: Literal["best", "last"] = "best"
    others: tuple[MolSpectra, ...] = ()
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """Rows of the part."""
        return rows_of(self.selection, self.part)

    @property
    def batch_size(self) -> int:
        """Molecules per pass, as in the run's validation: in-batch contrasts depend on it."""
        return self.config.loop.batch_size

    def file(self, stem: str, suffix: str) -> Path:
        """Path of a result file."""
        return result_file(self.out, self.part, stem, suffix)


def result_file(out: str | Path, part: str, stem: str, suffix: str) -> Path:
    """Path of a result file; results on other parts than the test part carry the part's name."""
    return Path(out) / (f"{stem}{suffix}" if part == "test" else f"{stem}-{part}{suffix}")


def rows_of(selection: Selection, part: str) -> npt.NDArray[np.int64]:
    """Return the rows of a part by its name."""
    rows: npt.NDArray[np.int64] = getattr(selection, "test" if part == "all" else part)
    return rows


def open_subject(
    run: Path,
    out: Path,
    part: str,
    store: str | None = None,
    *,
    allow_other_data: bool,
    device: str,
    checkpoint: Literal["best", "last"] = "best",
) -> Subject:
    """Load a run's model and its data; arguments and errors as in `evaluate`."""
    if part not in PARTS:
        raise SettingError(f"part must be one of {', '.join(PARTS)}, not {part!r}")
    ensemble = read_ensemble(run) if is_ensemble(run) else None
    if ensemble is not None:
        run = ensemble.members[0]
    config, record = read_run(run)
    data = config.data if store is None else dataclasses.replace(config.data, store=store)
    targets = config.targets if isinstance(config, FinetuneConfig) else ()
    if part == "all":
        if not targets:
            raise SettingError(f"{run}: part all is for the labels of a fine-tuned run, not for pre-training")
        selection = Selection.all_of(open_store(data.store), targets)
        if not len(selection.test):
            raise NotFoundError(f"{data.store}: no row has {' or '.join(targets)}")
        try:
            training = selection_of(config, record)
        except InputError:
            training = None
    else:
        selection = training = _of_split(run, config, data, targets, record, part, allow_other_data)
    check_units(run, record["about"], selection.store)
    model, _ = load_model(run, checkpoint)
    subject = Subject(
        run, out, config, data, record, moved(model, device), selection, training, part, checkpoint
    )
    if ensemble is None:
        return subject
    others = tuple(moved(one, device) for one in load_members(ensemble.members[1:], checkpoint))
    return dataclasses.replace(subject, others=others, calibrations=ensemble.calibrations)


def check_units(run: Path, about: Mapping[str, Any], store: Store) -> None:
    """Refuse a store whose labels are in other units than those that a run has learnt.

    Raises:
        UnitError: with both units.
    """
    if "unit" not in about and "targets" not in about:
        return  # pre-trained
    learnt = quantities_of(about)
    if "forces" in about:
        learnt["forces"] = Quantity(**about["forces"])
    found = dict(store.metadata.properties)
    if store.metadata.forces is not None:
        found["forces"] = store.metadata.forces
    for name, quantity in learnt.items():
        if quantity.unit == PROBABILITY:
            continue  # of a label 0 or 1, which has no unit
        if name in found and found[name].unit != quantity.unit:
            raise UnitError(
                f"{store.path}: {name} is in {found[name].unit or 'no unit'}, {run} predicts it in "
                f"{quantity.unit or 'no unit'}; prepare the store with that unit"
            )


def _of_split(
    run: Path,
    config: PretrainConfig | FinetuneConfig,
    data: DataConfig,
    targets: tuple[str, ...],
    record: Mapping[str, Any],
    part: str,
    allow_other_data: bool,
) -> Selection:
    """Split the store as the run's settings say, after checking that the split means the same in it."""
    selection = Selection.of(data, targets)
    trained_on, current = record["data"]["hash"], selection.store.hash
    if trained_on != current and not allow_other_data:
        raise MismatchError(
            f"{data.store}: its content ({current[:12]}) is not what {run} was trained on "
            f"({str(trained_on)[:12]}); give that store, or allow other data"
        )
    if trained_on != current and data.split in ("reference", "column"):
        by = "row number" if data.split == "reference" else "a column of the store"
        raise MismatchError(
            f"{data.store}: {run} has a {data.split} split, which goes by {by}, so on other data than its "
            "own the test part may hold what it was trained on; give its own store"
        )
    if not len(rows_of(selection, part)):
        raise NotFoundError(f"{data.store}: the {part} part of the run's split is empty")
    return selection
