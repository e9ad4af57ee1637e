"""A run to be tested: its settings, record, model, and the rows to test on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from molspectra.errors import MismatchError, NotFoundError, SettingError
from molspectra.evaluation.predict import moved
from molspectra.models.model import MolSpectra
from molspectra.training.checkpoint import load_model
from molspectra.training.config import DataConfig, FinetuneConfig, PretrainConfig
from molspectra.training.data import Selection
from molspectra.training.record import read_run

PARTS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Subject:
    """A run to be tested.

    Attributes:
        out: directory of the results.
        data: the run's data settings, with the store that is read.
        model: from `checkpoint`, in evaluation mode on the chosen device.
        selection: the store and its split.
        part: "train", "val" or "test".
        checkpoint: "best" or "last".
    """

    directory: Path
    out: Path
    config: PretrainConfig | FinetuneConfig
    data: DataConfig
    record: Mapping[str, Any]
    model: MolSpectra
    selection: Selection
    part: str
    checkpoint: Literal["best", "last"] = "best"

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """Rows of the part."""
        return rows_of(self.selection, self.part)

    @property
    def batch_size(self) -> int:
        """Molecules per pass, as in the run's validation: in-batch contrasts depend on it."""
        return self.config.loop.batch_size

    def file(self, stem: str, suffix: str) -> Path:
        """Path of a result file; results on other parts than the test part carry the part's name."""
        return self.out / (f"{stem}{suffix}" if self.part == "test" else f"{stem}-{self.part}{suffix}")


def rows_of(selection: Selection, part: str) -> npt.NDArray[np.int64]:
    """Return the rows of a part by its name."""
    rows: npt.NDArray[np.int64] = getattr(selection, part)
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
    config, record = read_run(run)
    data = config.data if store is None else dataclasses.replace(config.data, store=store)
    targets = config.targets if isinstance(config, FinetuneConfig) else ()
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
    model, _ = load_model(run, checkpoint)
    return Subject(run, out, config, data, record, moved(model, device), selection, part, checkpoint)
