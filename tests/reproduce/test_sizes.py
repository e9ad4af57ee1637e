"""An experiment over several numbers of labels, and the floors that stand beside the networks in it."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from molspectra.apps.cli import main
from molspectra.data.store.bundled import bundled
from molspectra.data.store.store import write_store
from molspectra.errors import MissingExtraError, SettingError
from molspectra.evaluation import floors
from molspectra.evaluation.finetuned import read_predictions
from molspectra.reproduce import experiments
from molspectra.reproduce.experiments import experiment
from molspectra.reproduce.plan import make_plans
from molspectra.reproduce.results import collect
from molspectra.reproduce.scales import read_scale
from molspectra.reproduce.sizes import arm_rows
from molspectra.training.config import DataConfig, FinetuneConfig

SCALE = """
about: made up for a test
seeds: [0, 1]
sizes: [[20, 2], [40, 3]]
all:
  model:
    encoder: {channels: 8, layers: 1, heads: 2, radial: 4}
  data: {fractions: [0.7, 0.1, 0.2]}
  loop: {batch_size: 8, validate_every: 0, save_every: 0}
pretrain:
  loop: {steps: 2}
stage2:
  model:
    spectrum_encoder: {modalities: [uv_vis], width: 8, heads: 2, layers: 1, feed_forward: 8}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("sizes")
    (root / "tiny.yaml").write_text(SCALE, encoding="utf-8")
    source = bundled()
    write_store(root / "all.arrow", (source.row(row) for row in range(90)), source.metadata)
    return root


def plans(folder, key="base"):
    stores = dict.fromkeys(("structures", "spectra", "labels"), str(folder / "all.arrow"))
    return make_plans(
        experiment(key), "gap", read_scale(str(folder / "tiny.yaml"), key), folder / "out", stores
    )


def test_every_number_of_labels_has_its_rows_and_steps(folder):
    small, large = plans(folder)
    for plan, labels, steps in ((small, 20, 2), (large, 40, 3)):
        assert plan.stem == f"base-gap-{labels}"
        assert {run.config.data.train_rows for run in plan.runs} == {labels}
        assert {run.config.loop.steps for run in plan.runs} == {steps}
    assert not {run.directory for run in small.runs} & {run.directory for run in large.runs}
    first, second = (
        {run.directory for run in plan.runs if run.is_pretraining} for plan in plans(folder, "efficiency")
    )
    assert first == second


def test_forces_are_learnt_from_numbers_of_frames(folder):
    stores = dict.fromkeys(("structures", "spectra"), str(folder / "all.arrow"))
    stores["trajectory"] = "bundled-ethanol"
    scale = read_scale(str(folder / "tiny.yaml"), "forces")
    made = make_plans(experiment("forces"), "ethanol", scale, folder / "out", stores)
    runs = [run for run in made[1].runs if not run.is_pretraining]
    assert {run.config.data.train_rows for run in runs} == {40}
    assert all(run.config.forces for run in runs)
    assert arm_rows(made, [collect(plan) for plan in made])[0] == ["start", "20 frames", "40 frames"]


def test_a_scale_without_sizes_is_refused(folder):
    scale = read_scale("small", "base")
    with pytest.raises(SettingError, match=r"small.*sizes"):
        make_plans(experiment("base"), "gap", scale, folder / "no", {"labels": "bundled"})


@pytest.mark.parametrize("sizes", ["{a: 4}", "[100]", "[[100, 0]]", "[[100, x]]", "7"])
def test_sizes_that_are_none_are_refused(tmp_path, sizes):
    path = tmp_path / "bad.yaml"
    path.write_text(f"sizes: {sizes}", encoding="utf-8")
    with pytest.raises(SettingError, match=r"bad\.yaml"):
        read_scale(str(path), "base")


def test_the_command(folder, monkeypatch, capsys):
    """Errors of every arm and size, paired; a second call makes nothing again."""
    pytest.importorskip("sklearn")
    store = str(folder / "all.arrow")
    data = ["--labels", store, "--structures", store, "--spectra", store]
    what = ["reproduce", "efficiency", "--scale", str(folder / "tiny.yaml"), "--out", str(folder / "out")]
    # without densities of states, which the bundled molecules lack
    spec = experiment("efficiency")
    arms = tuple(arm for arm in spec.arms if arm != "stage2-dos")
    pairs = tuple(pair for pair in spec.pairs if "stage2-dos" not in pair)
    monkeypatch.setitem(experiments.EXPERIMENTS, spec.key, replace(spec, arms=arms, pairs=pairs))
    assert main([*what, *data, "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert "20 labels" in shown
    assert "descriptors, gradient boosting" in shown
    values = json.loads((folder / "out/efficiency-gap.json").read_text(encoding="utf-8"))
    assert values["complete"] is True
    for labels in ("20", "40"):
        mae = values["sizes"][labels]["mae"]
        assert set(mae) == set(arms)
        assert all(set(by_seed) == {"0", "1"} for by_seed in mae.values())
        run = folder / f"out/gap/labels-{labels}/descriptors-seed0"
        computed, predicted = read_predictions(run / "predictions.csv")
        error = 1000 * np.abs(np.subtract(computed, predicted)).mean()
        assert mae["descriptors"]["0"] == pytest.approx(error)
    text = (folder / "out/efficiency-gap.md").read_text(encoding="utf-8")
    assert "| stages 1+2 − stage 1 continued without spectra |" in text
    html = (folder / "out/efficiency-gap.html").read_text(encoding="utf-8")
    assert "<svg" in html
    record = folder / "out/gap/labels-20/descriptors-seed0/record.json"
    before = record.stat().st_mtime_ns
    assert main([*what, *data, "--quiet"]) == 0
    assert record.stat().st_mtime_ns == before


@pytest.mark.parametrize("name", floors.FLOORS)
def test_a_floor_learns(folder, tmp_path, name):
    """With all other molecules it is better than the best constant; the same seed gives the same numbers."""
    pytest.importorskip("sklearn")
    config = FinetuneConfig(
        target="gap", data=DataConfig(str(folder / "all.arrow"), fractions=(0.7, 0.1, 0.2))
    )
    result = floors.assess_floor(name, config, tmp_path / "one")
    assert result["mae"] < result["median_predictor_mae"]
    assert floors.assess_floor(name, config, tmp_path / "two")["mae"] == result["mae"]


def test_a_floor_without_scikit_learn_says_how_to_get_it(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    config = FinetuneConfig(target="gap", data=DataConfig(str(folder / "all.arrow")))
    with pytest.raises(MissingExtraError, match="pip install"):
        floors.assess_floor("descriptors", config, tmp_path / "none")
