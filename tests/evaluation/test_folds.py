"""Fine-tuning with every fold as the test part."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tiny_runs import ENCODER, settings

from molspectra.apps.cli import main
from molspectra.errors import ExistsError, MismatchError, SettingError, ValueRangeError
from molspectra.evaluation.folds import finetune_folds, fold_table, summary_of
from molspectra.models.model import ModelConfig
from molspectra.training.config import DataConfig, FinetuneConfig
from molspectra.training.data import Selection
from molspectra.training.run import finetune


@pytest.fixture(scope="module")
def config(tiny):
    start = FinetuneConfig(model=ModelConfig(ENCODER, property="scalar"), **settings(tiny.path, 0, 2))
    return replace(start, data=replace(start.data, folds=3))


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """Directory and summary of all folds."""
    out = tmp_path_factory.mktemp("folds") / "all"
    return out, finetune_folds(config, out, show=False)


def test_the_errors_of_all_folds(whole, config, tiny):
    out, summary = whole
    assert json.loads((out / "folds.json").read_text()) == summary
    tests = [json.loads((out / f"fold-{fold}" / "evaluation.json").read_text()) for fold in range(3)]
    assert [one["data"]["fold"] for one in tests] == [0, 1, 2]
    assert sum(summary["molecules"]) == len(tiny.store) - 1  # ammonia has no gap
    gap = summary["targets"]["gap"]
    assert gap["unit"] == "eV"
    assert gap["mae"]["values"] == [one["mae"] for one in tests]
    assert gap["mae"]["mean"] == pytest.approx(np.mean(gap["mae"]["values"]))
    assert gap["rmse"]["sd"] == pytest.approx(np.std(gap["rmse"]["values"], ddof=1))
    head, line = fold_table(summary)
    assert head.split()[:2] == ["target", "MAE"]
    assert line.startswith("gap [eV]")
    assert f"{gap['mae']['mean']:.4g} ± {gap['mae']['sd']:.2g}" in line


def test_a_fold_by_itself_is_the_same_run(whole, config, tmp_path):
    out, _ = whole
    alone = finetune(replace(config, data=replace(config.data, fold=1)), tmp_path / "one", show=False)
    assert alone.metrics == json.loads((out / "fold-1" / "record.json").read_text())["validation"]


def test_what_is_missing_is_done_on_resume(whole, config, tmp_path, capsys):
    out, summary = whole
    kept = (out / "fold-0" / "record.json").stat().st_mtime_ns
    (out / "fold-1" / "evaluation.json").unlink()
    (out / "folds.json").unlink()
    assert main(["finetune", "--out", str(out), "--resume", "--quiet"]) == 0  # knows its settings
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == fold_table(summary)
    assert json.loads((out / "folds.json").read_text()) == summary
    assert (out / "fold-0" / "record.json").stat().st_mtime_ns == kept
    with pytest.raises(ExistsError, match="--resume"):
        finetune_folds(config, out, show=False)
    with pytest.raises(MismatchError, match=r"data\.folds was 3 and is 2"):
        finetune_folds(replace(config, data=replace(config.data, folds=2)), out, resume=True, show=False)
    with pytest.raises(MismatchError, match="single run"):
        finetune_folds(config, out / "fold-0", resume=True, show=False)


def test_folds_that_cannot_be_tested_are_refused_before_training(config, tmp_path):
    for data, error in ((replace(config.data, folds=60), ValueRangeError), (DataConfig(), SettingError)):
        with pytest.raises(error, match="fold"):
            finetune_folds(replace(config, data=data), tmp_path / "out", show=False)
    assert not (tmp_path / "out").exists()
    with pytest.raises(SettingError, match="choose one of the 3 folds"):
        Selection.of(config.data)


def test_a_fold_that_pre_training_has_seen_is_refused_before_training(runs, config, tmp_path):
    out, started = tmp_path / "out", replace(config, init=str(runs["stage1"]))
    with pytest.raises(
        MismatchError, match=r"fold \d: .* test molecules were seen .*--data\.allow_leak structures"
    ):
        finetune_folds(started, out, show=False)
    assert not out.exists()
    accepted = replace(started, data=replace(config.data, folds=2, allow_leak="structures"))
    assert finetune_folds(accepted, out, show=False)["folds"] == 2


@pytest.mark.parametrize(
    "values",
    [
        {"folds": 1},
        {"fold": 0},
        {"folds": 5, "fold": 5},
        {"folds": 5, "fold": -1},
        {"folds": 2, "fractions": (0.3, 0.5, 0.2)},
        {"folds": 5, "split": "reference", "sizes": (20, 5)},
        {"folds": 5, "split": "column", "split_column": "set"},
    ],
)
def test_folds_that_do_not_fit(values):
    name = "fold" if values.get("folds") == 5 and "fold" in values else "folds"
    with pytest.raises(SettingError, match=rf"data\.{name}\b"):
        DataConfig(**values)


def test_a_figure_that_a_fold_lacks():
    errors = {"target": "gap", "unit": "eV", "level": "", "molecules": 3, "mae": 1.0, "rmse": 2.0}
    summary = summary_of([{**errors, "r2": None}, {**errors, "mae": 2.0, "r2": 0.5}])
    assert summary["targets"]["gap"]["r2"] == {"values": [None, 0.5], "mean": 0.5, "sd": None}
    assert "1.5 ± 0.71" in fold_table(summary)[1]
