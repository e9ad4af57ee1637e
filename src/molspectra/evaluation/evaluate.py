"""Test a run on molecules that it was not trained on, and write the results into its directory."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from molspectra.compiled import use_setting
from molspectra.errors import MismatchError, SettingError
from molspectra.evaluation.finetuned import assess_property
from molspectra.evaluation.pretrained import assess_pretraining
from molspectra.evaluation.subject import Subject, open_subject
from molspectra.training.checkpoint import find_checkpoint
from molspectra.training.config import FinetuneConfig
from molspectra.training.leaks import exposure, twins
from molspectra.training.record import commit, kernels_used, machine, versions, write_json
from molspectra.training.seen import seen_by


def evaluate(
    run: str | Path,
    out: str | Path | None = None,
    part: str = "test",
    *,
    store: str | None = None,
    allow_other_data: bool = False,
    device: str = "cpu",
    checkpoint: Literal["best", "last"] = "best",
    disturbances: bool = False,
    allow_leak: Literal["none", "structures", "all"] = "none",
) -> dict[str, Any]:
    """Test a run's model and write `evaluation.json` (and tables beside it) into the run directory.

    Fine-tuned runs get the errors of the property (and forces) and `predictions.csv`; stage 1 the denoising
    loss; stage 2 all losses, retrieval (`retrieval.csv`) and reconstructed patches of three molecules
    (`reconstruction.safetensors`). Earlier results on the same part are replaced. The dictionary returned is
    what `evaluation.json` holds.

    Args:
        run: run directory, or that of an ensemble, whose means are tested, with their uncertainties.
        out: another directory for the results; made where it is missing.
        part: "test", "val" or "train" of the run's own split; "all" for every row of another store that has
            labels of what a fine-tuned run predicts, its molecules compared with those that the run and the
            runs before it saw in training.
        store: another path of the store; None takes the one that the run names.
        allow_other_data: accept a store with other content than the run was trained on. Its split is by
            identity with the run's seed, so that no training molecule of the run is in the test part; a run
            with a reference split, which goes by row number, is tested on its own data only.
        device: where to compute.
        checkpoint: test the weights with the lowest validation loss ("best", as published), or the newest.
        disturbances: of a stage-2 run, also search with disturbed spectra (takes some minutes).
        allow_leak: with part "all", accept molecules that were seen in training, as `data.allow_leak` does.

    Raises:
        MismatchError: molecules of the part "all" that were seen in training.
        UnitError: labels in another unit than the run has learnt.
        InputError: not a run, a store that is missing or whose content differs, an unknown or empty part;
            `disturbances` for a run that is not of stage 2.
        MolspectraError: a prediction or embedding is not finite.
    """
    began = time.perf_counter()
    if allow_leak != "none" and part != "all":
        raise SettingError(
            "allow_leak is for part all; training has compared the parts of the run's own split"
        )
    run = Path(run)
    target = run if out is None else Path(out)
    subject = open_subject(
        run,
        target,
        part,
        store,
        allow_other_data=allow_other_data,
        device=device,
        checkpoint=checkpoint,
    )
    config = subject.config
    if disturbances and (isinstance(config, FinetuneConfig) or not config.model.spectrum_encoder):
        raise SettingError(f"{run}: only a stage-2 run is searched with disturbed spectra")
    seen = _seen(subject, allow_leak)
    target.mkdir(parents=True, exist_ok=True)
    with use_setting(config.loop.kernels):
        result = _header(subject) | seen
        if isinstance(config, FinetuneConfig):
            result |= assess_property(subject, config)
        else:
            result |= assess_pretraining(subject, config, disturbances=disturbances)
    result["seconds"] = round(time.perf_counter() - began, 2)
    result = plain_json(result)
    write_json(subject.file("evaluation", ".json"), result)
    return result


def _header(subject: Subject) -> dict[str, Any]:
    """Return the facts that belong to every result: data, split, weights, versions and machine."""
    checkpoint = find_checkpoint(subject.directory, subject.checkpoint)
    metadata = subject.selection.store.metadata
    return {
        "stage": subject.record["about"]["stage"],
        "part": subject.part,
        "molecules": len(subject.rows),
        "data": {
            "store": subject.data.store,
            "hash": subject.selection.store.hash,
            "trained_on": subject.record["data"]["hash"],
            **({"rows_without_target": subject.selection.lacking} if subject.part == "all" else {}),
            "split": subject.data.split if subject.part != "all" else "none",
            "split_seed": subject.data.split_seed,
            "fractions": list(subject.data.fractions),
            "sizes": list(subject.data.sizes),
            **({"folds": subject.data.folds, "fold": subject.data.fold} if subject.data.folds else {}),
            **({"split_column": subject.data.split_column} if subject.data.split == "column" else {}),
            "source": metadata.source,
            "licence": metadata.licence,
            "levels": {"geometry": metadata.level, **metadata.lines, **metadata.samples},
        },
        "seed": subject.config.loop.seed,
        "checkpoint": checkpoint.name,
        "checkpoint_choice": subject.checkpoint,
        "finished": bool(subject.record.get("finished")),
        "trained_at": subject.record.get("commit"),
        "commit": commit(),
        "versions": versions(),
        "machine": machine(),
        "kernels": kernels_used(
            next(subject.model.parameters()).device, "32-true"
        ),  # the type that weights are loaded in
    }


def _seen(subject: Subject, allow_leak: str) -> dict[str, Any]:
    """Report whether test molecules occur in pre-training or in the run's own training part.

    Raises:
        MismatchError: the part is "all", and some do, other than `allow_leak` accepts.
    """
    if subject.part == "all":
        found = exposure(subject.selection.store, subject.rows, seen_by(subject.directory))
        sentence = found.said_of("training")
        if not found.is_accepted(allow_leak):
            raise MismatchError(
                f"{subject.data.store}: {sentence} ({subject.directory}): {', '.join(found.examples)}; leave "
                f"them out, or accept it with --allow-leak {found.acceptable_with}"
            )
        return {"seen": {"training": found.plain() | {"sentence": sentence}, "allow_leak": allow_leak}}
    if subject.part == "train":
        return {}
    selection, config = subject.selection, subject.config
    seen: dict[str, Any] = {}
    pretraining = config.init if isinstance(config, FinetuneConfig) else subject.directory
    if pretraining is not None:
        seen["pretraining"] = exposure(selection.store, subject.rows, seen_by(pretraining)).plain()
    if config.data.split != "identity" and subject.part == "test":
        seen["test_in_own_training"] = twins(selection)
    return {"seen": seen} if seen else {}


def plain_json(value: Any) -> Any:
    """Return plain JSON values: keys become text, a number that is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
