"""`molspectra reproduce` on a tiny store: plans, resuming, refusing, results, pages."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from molspectra.apps.cli import main
from molspectra.chem.readers import from_smiles
from molspectra.data.store.bundled import bundled
from molspectra.data.store.store import Metadata, Quantity, Row, write_store
from molspectra.errors import InputError, MismatchError, MolspectraError, NotFoundError, SettingError
from molspectra.reproduce import page, run
from molspectra.reproduce.experiments import EXPERIMENTS, chain, experiment
from molspectra.reproduce.plan import check, make_plan
from molspectra.reproduce.results import collect
from molspectra.reproduce.scales import merged, read_scale, scales
from molspectra.training.interrupt import Interrupted
from molspectra.training.settings import to_dict

SCALE = """
about: made up for a test
seeds: [0, 1]
all:
  model:
    encoder: {channels: 8, layers: 1, heads: 2, radial: 4}
  data: {fractions: [0.6, 0.2, 0.2]}
  loop: {steps: 2, batch_size: 8, validate_every: 1, save_every: 0}
stage2:
  model:
    spectrum_encoder: {modalities: [uv_vis], width: 8, heads: 2, layers: 1, feed_forward: 8}
md17:
  data: {split: reference, sizes: [12, 4]}
  energy_weight: 0.2
  force_weight: 0.8
  denoising_weight: 0.0
pilot:
  model:
    encoder: {kind: egnn, channels: 8, layers: 1}
    spectrum_encoder: {modalities: [uv_vis], width: 8, heads: 2, layers: 1, feed_forward: 8}
    spectrum_input: true
  loop: {steps: 2}
experiments:
  table3: {all: {optimizer: {learning_rate: 1.0e-3}}, pretrain_directory: pretrain-md17}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A directory with a scale, a store of 60 molecules, and a trajectory of 24 frames of ethanol."""
    root = tmp_path_factory.mktemp("reproduce")
    (root / "tiny.yaml").write_text(SCALE, encoding="utf-8")
    (root / "shared.yaml").write_text(SCALE.partition("experiments:")[0], encoding="utf-8")
    source = bundled()
    write_store(root / "all.arrow", (source.row(row) for row in range(60)), source.metadata)
    write_store(root / "other.arrow", (source.row(row) for row in range(61)), source.metadata)
    ethanol, generator = from_smiles("CCO"), np.random.default_rng(0)
    frames = []
    for _ in range(24):
        moves = 0.05 * generator.standard_normal((9, 3))
        moved = ethanol.with_positions(ethanol.positions + moves)
        frames.append(Row(moved, {}, {"energy": 10 * float((moves**2).sum())}, -20 * moves))
    level = "springs"
    facts = Metadata(
        source="made up",
        licence="CC0",
        properties={"energy": Quantity("kcal/mol", level)},
        forces=Quantity("kcal/mol/Å", level),
    )
    write_store(root / "ethanol.arrow", frames, facts)
    return root


def planned(folder, key="table2", subject="gap", out="out", changes=(), seeds=()):
    scale = read_scale(str(folder / "tiny.yaml"), key, changes)
    everything = str(folder / "all.arrow")
    stores = dict.fromkeys(("structures", "spectra", "labels"), everything)
    stores["trajectory"] = str(folder / "ethanol.arrow")
    return make_plan(experiment(key), subject, scale, folder / out, stores, seeds)


@pytest.fixture(scope="module")
def finished(folder):
    """Table 2 for the gap, run to the end; the plan and the failures."""
    plan = planned(folder)
    check(plan)
    written = []

    def after(failures):
        written.append(page.write(plan, collect(plan, failures), "the command"))

    failures = run.execute(plan, after, show=False)
    assert len(written) == len(plan.runs)
    return plan, failures


def stamps(plan):
    return {
        planned_run.name: os.stat(planned_run.directory / "record.json").st_mtime_ns
        for planned_run in plan.runs
    }


def test_every_experiment_can_be_planned_at_every_scale(tmp_path):
    for name in scales():
        for key, spec in EXPERIMENTS.items():
            scale = read_scale(name, key)
            stores = dict.fromkeys(("structures", "spectra", "labels", "trajectory"), "bundled")
            subject = "ethanol" if spec.kind == "md17" else "gap"
            plan = make_plan(spec, subject, scale, tmp_path, stores, [0])
            finetuned = 0 if spec.kind == "attention" else len(spec.arms)
            assert len(plan.runs) == len(chain(spec.arms)) + finetuned
            assert len({one.directory for one in plan.runs}) == len(plan.runs)


def test_pairs_and_published_rows_name_arms():
    for spec in EXPERIMENTS.values():
        assert {arm for first, second, _ in spec.pairs for arm in (first, second)} <= set(spec.arms)
        assert set(spec.published) <= set(spec.arms)


def test_order_start_and_control(folder):
    plan = planned(folder, seeds=[3])
    assert [planned_run.name for planned_run in plan.runs] == [
        *(f"pretrain/{arm} seed 3" for arm in ("stage1", "control", "stage2")),
        *(f"gap/{arm} seed 3" for arm in ("scratch", "stage1", "control", "stage2")),
    ]
    runs = {planned_run.name: planned_run for planned_run in plan.runs}
    control, stage2 = (to_dict(runs[f"pretrain/{arm} seed 3"].config) for arm in ("control", "stage2"))
    assert control["model"].pop("spectrum_encoder") is None
    assert stage2["model"].pop("spectrum_encoder") is not None
    assert control == stage2
    assert control["init"] == str(folder / "out/pretrain/seed3/stage1")
    finetuned = [planned_run.config for planned_run in plan.runs if not planned_run.is_pretraining]
    assert finetuned[0].init is None
    assert finetuned[3].init == str(folder / "out/pretrain/seed3/stage2")
    assert {config.loop.seed for config in finetuned} == {3}
    assert len({json.dumps(to_dict(config) | {"init": 0}) for config in finetuned}) == 1


def test_ablations_change_what_they_say(folder):
    def config(key, arm):
        plan = planned(folder, key, seeds=[0])
        return next(
            planned_run.config
            for planned_run in plan.runs
            if planned_run.is_pretraining and planned_run.arm == arm
        )

    assert config("table5", "stage2-mask0.30").reconstruction.mask_ratio == 0.3
    assert config("table6", "stage2-no-reconstruction").weights.reconstruction == 0
    assert config("table7", "stage2-no-ir").model.spectrum_encoder.modalities == ("uv_vis", "raman")
    assert config("table4", "stage2-patch20").model.spectrum_encoder.patch == (20, 20, 20)


@pytest.mark.parametrize(
    "text",
    [
        "all: 5",
        "stage1: [1]",
        "experiments: [table2]",
        "experiments: {table2: 5}",
        "experiments: {table2: {all: [1]}}",
        "seeds: 5",
        "seeds: [x]",
        "stores: [a]",
        "stores: {structures: 5}",
        "seconds_per_step: {stage1: fast}",
    ],
)
def test_parts_of_a_wrong_kind_are_refused(text, tmp_path):
    path = tmp_path / "scale.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingError, match=r"scale\.yaml: " + text.partition(":")[0]):
        read_scale(str(path), "table2")


def test_scales_merge_and_change(folder):
    tiny = str(folder / "tiny.yaml")
    scale = read_scale(tiny, "table3", ["stage1.loop.steps=7", "all.loop.steps=5", "md17.data.sizes=[3, 2]"])
    assert scale.settings("stage1")["loop"]["steps"] == 7
    assert scale.settings("stage2")["loop"]["steps"] == 5
    assert scale.settings("md17")["data"]["sizes"] == [3, 2]
    assert scale.settings("qm9")["optimizer"] == {"learning_rate": 1e-3}
    plan = planned(folder, "table3", "ethanol", seeds=[0])
    assert plan.runs[0].directory == folder / "out/pretrain-md17/seed0/stage1"
    assert "optimizer" not in read_scale(tiny, "table2").settings("qm9")
    assert merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4}, "d": {"e": 5}}) == {
        "a": {"b": 4, "c": 2},
        "d": {"e": 5},
    }


@pytest.mark.parametrize(
    "change", ["stage1.loop.steps", "loops.steps=1", "stage1=1", "stage1..x=1", "all.x=[1"]
)
def test_bad_changes_are_refused(folder, change):
    with pytest.raises(SettingError, match="--set"):
        read_scale(str(folder / "tiny.yaml"), "table2", [change])


def test_bad_scales_are_refused(folder, tmp_path):
    with pytest.raises(NotFoundError, match="scales: evidence, paper, small, smoke"):
        read_scale("tony", "table2")
    path = tmp_path / "bad.yaml"
    path.write_text("stage3: {}", encoding="utf-8")
    with pytest.raises(SettingError, match="did you mean stage"):
        read_scale(str(path), "table2")
    with pytest.raises(InputError, match=r"unknown setting .loop\.stops"):
        planned(folder, changes=["stage1.loop.stops=1"])


def test_results(finished):
    plan, failures = finished
    assert failures == {}
    results = collect(plan)
    assert results.finished == len(results.runs) == 14
    assert results.unit == "meV"
    assert not results.comparable
    assert any("structures" in reason for reason in results.reasons)
    for arm in results.arms:
        for seed, mae in arm.mae.items():
            evaluation = json.loads((plan.out / "gap" / f"{arm.key}-seed{seed}/evaluation.json").read_text())
            assert mae == pytest.approx(1000 * evaluation["mae"])
    arms = {arm.key: arm for arm in results.arms}
    assert arms["stage2"].published.value == 26.8
    assert arms["control"].published is None
    first = results.comparisons[0]
    assert first.test.mean == pytest.approx(arms["stage2"].mean - arms["control"].mean)
    assert first.interval.difference == pytest.approx(first.test.mean)
    assert first.interval.molecules == results.test
    assert "0 of" in results.seen["stages 1+2"]


def test_files(finished):
    plan, _ = finished
    values = json.loads((plan.out / "table2-gap.json").read_text(encoding="utf-8"))
    assert values["complete"] is True
    assert values["command"] == "the command"
    assert set(values["arms"][0]["mae"]) == {"0", "1"}
    assert all(line["settings"]["loop"]["steps"] == 2 for line in values["runs"])
    assert all(line["data_hash"] and line["versions"] and line["machine"] for line in values["runs"])
    text = (plan.out / "table2-gap.md").read_text(encoding="utf-8")
    assert "stages 1+2 − stage 1 continued without spectra" in text
    assert "Why they are not comparable" in text
    html = (plan.out / "table2-gap.html").read_text(encoding="utf-8")
    assert "<svg" in html
    assert "<script" not in html
    assert "With 2 seeds" in page.text(collect(plan))


def test_metrics_that_cannot_be_read_are_counted_on_the_page(finished):
    plan, _ = finished
    first = plan.runs[0]
    path = first.directory / "metrics.csv"
    content = path.read_bytes()
    assert "cannot be read" not in page.html(plan, collect(plan), "the command")
    try:
        path.write_bytes(content + b"garbage\n2,train/loss\n")
        text = page.html(plan, collect(plan), "the command")
    finally:
        path.write_bytes(content)
    assert f"{first.name}, metrics.csv: 2 lines cannot be read" in text


def test_a_finished_experiment_is_not_made_again(finished, monkeypatch):
    plan, _ = finished
    before = stamps(plan)
    monkeypatch.setattr(run, "_execute_run", lambda *_: pytest.fail("a finished run was made again"))
    again = planned(plan.out.parent)
    check(again)
    assert run.execute(again, lambda failures: None, show=False) == {}
    assert stamps(again) == before
    assert run.seconds_left(again) == 0


def test_changed_settings_are_told(finished):
    plan = planned(finished[0].out.parent, changes=["all.loop.steps=2"])
    check(plan)
    assert "settings changed: all.loop.steps=2" in collect(plan).reasons


def test_experiments_share_pretraining(finished):
    plan, _ = finished
    other = planned(plan.out.parent, "table7", "gap")
    check(other)
    words = {planned_run.name: run.state(planned_run).word for planned_run in other.runs}
    assert words["pretrain/stage2 seed 1"] == words["gap/control seed 0"] == "finished"
    assert words["pretrain/stage2-no-ir seed 0"] == words["gap/stage2-no-ir seed 0"] == "to do"
    assert "to do" in run.listed(other)
    assert collect(other).finished == 2 * 5


def test_other_settings_are_refused_by_name(finished):
    plan, _ = finished
    other = planned(plan.out.parent, changes=["stage1.loop.steps=3"])
    with pytest.raises(MismatchError, match=r"seed0/stage1: .*loop.steps was 2 and is 3 now"):
        check(other)


def test_other_data_are_refused(finished, folder):
    scale = read_scale(str(folder / "tiny.yaml"), "table2")
    stores = dict.fromkeys(("structures", "spectra", "labels"), str(folder / "other.arrow"))
    with pytest.raises(MismatchError, match=r"seed0/stage1.*other\.arrow"):
        check(make_plan(experiment("table2"), "gap", scale, folder / "out", stores))


def test_the_same_place_may_be_spelt_otherwise(finished, folder, monkeypatch):
    monkeypatch.chdir(folder)
    scale = read_scale("tiny.yaml", "table2")
    stores = dict.fromkeys(("structures", "spectra", "labels"), "all.arrow")
    plan = make_plan(experiment("table2"), "gap", scale, Path("out"), stores)
    check(plan)
    assert all(run.state(planned_run).finished for planned_run in plan.runs)


def test_a_failed_run_names_itself_and_the_others_go_on(folder, monkeypatch, capsys):
    plan = planned(folder, out="failing", seeds=[0])
    tried = []

    def make(planned_run, show):
        tried.append(planned_run.name)
        if planned_run.name == "pretrain/control seed 0":
            raise MolspectraError("the loss is not finite")

    monkeypatch.setattr(run, "_execute_run", make)
    failures = run.execute(plan, lambda failures: None, show=False)
    assert failures == {
        "pretrain/control seed 0": "the loss is not finite",
        "gap/control seed 0": "the run that it starts from failed",
    }
    assert "gap/stage2 seed 0" in tried
    assert "gap/control seed 0" not in tried
    assert "run 2 of 7: pretrain/control seed 0: the loss" in capsys.readouterr().err
    states = {line.name: line.state for line in collect(plan, failures).runs}
    assert states["pretrain/control seed 0"] == "failed: the loss is not finite"
    assert "Unfinished" in page.markdown(collect(plan, failures), "")


def test_forces_on_the_same_pretraining(folder, finished, capsys):
    out = folder / "out"
    before = stamps(finished[0])
    arguments = ["reproduce", "table3", "--molecule", "ethanol", "--scale", str(folder / "shared.yaml")]
    stores = [f"--{kind}={folder / 'all.arrow'}" for kind in ("structures", "spectra")]
    stores.append(f"--trajectory={folder / 'ethanol.arrow'}")
    assert main([*arguments, *stores, "--out", str(out), "--seeds", "0", "--quiet"]) == 0
    assert "forces of ethanol" in capsys.readouterr().out
    values = json.loads((out / "table3-ethanol.json").read_text(encoding="utf-8"))
    evaluation = json.loads((out / "ethanol/stage2-seed0/evaluation.json").read_text(encoding="utf-8"))
    arms = {arm["key"]: arm for arm in values["arms"]}
    assert arms["stage2"]["mae"]["0"] == pytest.approx(evaluation["forces"]["mae"])
    assert values["unit"] == "kcal/mol/Å"
    interval = values["comparisons"][0]["interval"]
    assert interval["molecules"] == 8
    difference = arms["stage2"]["mae"]["0"] - arms["control"]["mae"]["0"]
    assert interval["difference"] == pytest.approx(difference, rel=1e-6)
    assert stamps(finished[0]) == before


def test_an_interrupted_experiment_says_how_to_go_on(folder, monkeypatch, capsys, tmp_path):
    def make(planned_run, show):
        if planned_run.arm == "control":
            raise Interrupted("stopped at step 1 of 2, the state is saved; continue with --resume")

    monkeypatch.setattr(run, "_execute_run", make)
    stores = [f"--{kind}={folder / 'all.arrow'}" for kind in ("structures", "spectra", "labels")]
    arguments = ["reproduce", "table2", "--scale", str(folder / "tiny.yaml"), "--out", str(tmp_path), *stores]
    assert main([*arguments, "--quiet"]) == 130
    error = capsys.readouterr().err
    assert "run 2 of 14: pretrain/control seed 0: stopped at step 1 of 2" in error
    assert "the same command continues" in error
    assert "--resume" not in error
    assert "Unfinished: 0 of 14" in (tmp_path / "table2-gap.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tabel2", "--out", "x"], "did you mean 'table2'"),
        (["table2", "--out", "x", "--target", "alpha"], "no property 'alpha' in it; it has: zpve"),
        (["table2", "--out", "x", "--molecule", "ethanol"], "give --target"),
        (["table3", "--out", "x", "--target", "gap"], "give --molecule"),
        (["table3", "--out", "x", "--molecule", "water"], "known: aspirin"),
        (["table2", "--out", "x", "--seeds", "0,0"], "different numbers"),
        (["table2", "--out", "x", "--scale", "small"], "give --structures STORE"),
        (["table2", "--out", "x", "--sale", "small"], "did you mean --scale"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_other_molecules_than_asked_for_are_refused(folder, capsys, tmp_path):
    stores = [f"--{kind}={folder / 'all.arrow'}" for kind in ("structures", "spectra")]
    arguments = ["reproduce", "table3", "--molecule", "aspirin", "--out", str(tmp_path / "x"), *stores]
    assert main([*arguments, f"--trajectory={folder / 'ethanol.arrow'}"]) == 2
    assert "frames of C2H6O, but aspirin is C9H8O4" in capsys.readouterr().err


def test_the_pilot_and_other_denoising_are_planned_as_they_say(folder):
    pilot = {planned_run.arm: planned_run.config for planned_run in planned(folder, "pilot", seeds=[0]).runs}
    assert pilot["egnn-spectrum"].model.spectrum_input
    assert pilot["egnn"].model.spectrum_encoder is None
    assert pilot["egnn"].model.encoder == pilot["egnn-spectrum"].model.encoder
    slide = {
        planned_run.name: planned_run.config for planned_run in planned(folder, "tableA2", seeds=[0]).runs
    }
    assert slide["pretrain/control-slide seed 0"].denoising.kind == "slide"
    assert slide["pretrain/control-slide seed 0"].model.spectrum_encoder is None
    assert slide["gap/stage2-slide seed 0"].init.endswith("stage2-slide")
    assert slide["gap/stage2-slide seed 0"].denoising.kind == "coord"


def test_attention(folder, capsys):
    stores = [f"--{kind}={folder / 'all.arrow'}" for kind in ("structures", "spectra")]
    arguments = ["reproduce", "attention", "--scale", str(folder / "tiny.yaml"), "--seeds", "0", *stores]
    assert main([*arguments, "--out", str(folder / "out"), "--quiet"]) == 0
    assert capsys.readouterr().out.strip().endswith("attention.md")
    assert (folder / "out/attention/seed0/attention.png").is_file()
    values = json.loads((folder / "out/attention.json").read_text(encoding="utf-8"))
    shares = np.array(values["seeds"]["0"]["blocks"]["layers"])
    np.testing.assert_allclose(shares.sum(-1), 1, rtol=1e-5)
    assert "<svg" in (folder / "out/attention.html").read_text(encoding="utf-8")


def test_a_store_without_the_spectra_is_refused_before_anything_is_run(folder):
    scale = read_scale(str(folder / "tiny.yaml"), "pilot")
    plan = make_plan(
        experiment("pilot"), "energy", scale, folder / "x", {"labels": str(folder / "ethanol.arrow")}
    )
    with pytest.raises(NotFoundError, match=r"ethanol\.arrow: no uv_vis .*energy/egnn-spectrum seed 0"):
        check(plan)


def test_plan_does_nothing(folder, capsys, tmp_path):
    arguments = ["reproduce", "table2", "--out", str(tmp_path / "x"), "--plan"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "pretrain/control seed 1" in text
    assert "in all, estimated from the scale's rough times" in text
    assert not (tmp_path / "x").exists()
