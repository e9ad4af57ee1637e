"""Cross-validation: a fine-tuning run and its test for every fold, and the errors of all in one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from molspectra.data.atomic import folder_lock
from molspectra.errors import ExistsError, InputError, MismatchError, SettingError, ValueRangeError
from molspectra.evaluation.evaluate import evaluate, plain_json
from molspectra.evaluation.finetuned import errors_of, in_brackets
from molspectra.training.config import FinetuneConfig
from molspectra.training.data import Selection
from molspectra.training.provenance import compare_seen
from molspectra.training.record import FOLDS, read_json, write_json
from molspectra.training.run import finetune
from molspectra.training.settings import to_dict

FIGURES = {"mae": "MAE", "rmse": "RMSE", "r2": "R²"}
"""Figures of the summary, and their names in the table."""

CLASS_FIGURES = {"auroc": "AUROC", "auprc": "AUPRC", "f1": "F1"}
"""The same of a class."""


def finetune_folds(
    config: FinetuneConfig, out: str | Path, *, resume: bool = False, show: bool = True
) -> dict[str, Any]:
    """Fine-tune and test with every fold as the test part, and write the summary `folds.json`.

    Args:
        config: settings with `data.folds`, and no `data.fold`.
        out: directory to make, with a run `fold-0`, `fold-1`, … for each fold, tested in its own directory.
        resume: continue in the directory that is there; finished runs and tests are kept as they are.
        show: progress on standard error.

    Returns:
        What `folds.json` holds: "targets" by name (forces among them), each with its unit and for `FIGURES`
        the values of all folds with their mean and sample standard deviation.

    Raises:
        ExistsError: the directory is there and `resume` is False.
        InputError: as in `finetune` and `evaluate`; a fold without test molecules, or with some that
            were seen in pre-training; found before any training.
    """
    out, data = Path(out), config.data
    if not data.folds or data.fold is not None:
        raise SettingError("data.folds: all folds are asked for by data.folds without data.fold")
    if config.loop.processes > 1:
        raise SettingError("loop.devices: several devices train one fold at a time; choose it with data.fold")
    if (out / "record.json").exists():
        raise MismatchError(f"{out}: holds a single run; choose another directory for the folds")
    if out.is_dir() and any(out.iterdir()) and not resume:
        raise ExistsError(f"{out}: exists already; continue it with --resume or choose another directory")
    configs = [replace(config, data=replace(data, fold=fold)) for fold in range(data.folds)]
    for one in configs:  # before hours of training
        selection = Selection.of(one.data, config.labels)
        if not len(selection.test):
            raise ValueRangeError(
                f"{data.store}: fold {one.data.fold} of {data.folds} is empty; use fewer folds"
            )
        try:
            compare_seen(one, selection)
        except InputError as error:
            raise error.with_context(f"fold {one.data.fold}") from error
    with folder_lock(out, "training its folds"):
        if not (out / "config.json").exists():
            write_json(out / "config.json", to_dict(config))
        results = [_result(one, out / f"fold-{one.data.fold}", resume, show) for one in configs]
        summary = plain_json(summary_of(results) | {"config": to_dict(config)})
        write_json(out / FOLDS, summary)
    return summary


def _result(config: FinetuneConfig, run: Path, resume: bool, show: bool) -> dict[str, Any]:
    """Train and test with one fold unless this is done; return the content of its `evaluation.json`."""
    finetune(config, run, resume=resume, show=show)
    path = run / "evaluation.json"
    if path.is_file():
        return dict(read_json(path))
    return evaluate(run, device=config.loop.accelerator)


def summary_of(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Gather the errors of the folds' tests by target."""
    errors = [errors_of(result) for result in results]
    targets = {
        name: {"unit": one["unit"], "level": one["level"]}
        | {figure: _spread([fold[name][figure] for fold in errors]) for figure in figures_of(one)}
        for name, one in errors[0].items()
    }
    return {"folds": len(results), "molecules": [one["molecules"] for one in results], "targets": targets}


def _spread(values: list[float | None]) -> dict[str, Any]:
    """Return values of the folds with their mean and sample standard deviation, of those that are known."""
    known = [value for value in values if value is not None]
    mean = float(np.mean(known)) if known else None
    return {"values": values, "mean": mean, "sd": float(np.std(known, ddof=1)) if len(known) > 1 else None}


def figures_of(one: Mapping[str, Any]) -> dict[str, str]:
    """Return the figures of a target, and their names."""
    return CLASS_FIGURES if "auroc" in one else FIGURES


def fold_table(summary: Mapping[str, Any]) -> list[str]:
    """Return the lines of a table: mean ± standard deviation over the folds for every target."""
    lines: list[list[str]] = []
    for figures in (FIGURES, CLASS_FIGURES):
        those = {name: one for name, one in summary["targets"].items() if figures_of(one) is figures}
        if those:
            lines.append(["target", *(f"{name} (mean ± sd)" for name in figures.values()), "folds"])
        for name, one in those.items():
            spreads = [one[figure] for figure in figures]
            lines.append(
                [f"{name}{in_brackets(one['unit'])}", *map(_written, spreads), str(summary["folds"])]
            )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in lines
    ]


def _written(spread: Mapping[str, Any]) -> str:
    if spread["mean"] is None:
        return "–"
    return f"{spread['mean']:.4g}" + ("" if spread["sd"] is None else f" ± {spread['sd']:.2g}")
