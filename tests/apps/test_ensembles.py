"""Ensembles: training, continuing, predictions with uncertainties, the calculator, and what is refused."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from ase.io import read
from tiny_runs import ENCODER, settings

import molspectra as ms
from molspectra.apps.cli import main
from molspectra.apps.loading import LoadedEnsemble
from molspectra.chem.readers import to_ase
from molspectra.errors import DamagedError, ExistsError, InputError, MismatchError, NewerFormatError
from molspectra.evaluation.ensemble import finetune_ensemble, read_ensemble
from molspectra.models.model import ModelConfig
from molspectra.reporting.collect import collect_report
from molspectra.reporting.evaluation_figure import evaluation_figure
from molspectra.training.config import FinetuneConfig
from molspectra.training.data import Selection
from molspectra.training.record import read_run

SMILES = ["CCO", "C=CC", "CC(C)=O"]


@pytest.fixture(scope="module")
def config(store_path: Path) -> FinetuneConfig:
    return FinetuneConfig(model=ModelConfig(ENCODER), **settings(store_path, 3))


@pytest.fixture(scope="module")
def ensemble(config: FinetuneConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ensembles") / "gap"
    finetune_ensemble(config, out, 3, show=False)
    return out


def test_members_differ_in_their_seed_alone(ensemble: Path) -> None:
    configs = [json.loads((run / "config.json").read_text()) for run in read_ensemble(ensemble).members]
    assert [one["loop"].pop("seed") for one in configs] == [3, 4, 5]
    assert configs[0] == configs[1] == configs[2]


def test_predictions_are_means_with_calibrated_spreads(ensemble: Path) -> None:
    """By hand from the members' own predictions."""
    values = np.array([ms.predict(SMILES, run).values for run in read_ensemble(ensemble).members])
    found = ms.predict(SMILES, ensemble, coverage=0.5)
    calibration = read_ensemble(ensemble).calibrations["gap"]
    assert found.values == pytest.approx(values.mean(0), rel=1e-12)
    assert found.uncertainties == pytest.approx(calibration.scale * values.std(0, ddof=1))
    assert found.half_widths == pytest.approx(calibration.half_width(values.std(0, ddof=1), 0.5))
    assert ms.predict(SMILES, read_ensemble(ensemble).members[0]).uncertainties is None
    table = found.table()
    assert table.schema.field("gap_uncertainty").metadata[b"unit"] == b"eV"
    width = np.array(table["gap_high"]) - np.array(table["gap_low"])
    assert width == pytest.approx(2 * found.half_widths)


def test_the_calibration_is_that_of_the_validation_part(ensemble: Path, config: FinetuneConfig) -> None:
    selection = Selection.of(config.data, ("gap",))
    molecules = [selection.store.molecule(int(row)) for row in selection.val]
    values = np.array([ms.predict(molecules, run).values for run in read_ensemble(ensemble).members])
    errors = values.mean(0) - selection.store.column("gap")[selection.val]
    ratios = np.sort(np.abs(errors) / values.std(0, ddof=1))
    assert read_ensemble(ensemble).calibrations["gap"].ratios == pytest.approx(ratios, rel=1e-4)


def test_from_the_command_line(store_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Train, be told that it is there, go on with one more member, predict a table with uncertainties."""
    out, table = tmp_path / "ens", tmp_path / "gap.csv"
    tiny = ["--model.encoder.channels", "8", "--model.encoder.layers", "1", "--model.encoder.heads", "2"]
    tiny += ["--data.store", str(store_path), "--data.fractions", "0.5,0.25,0.25", "--loop.steps", "2"]
    command = ["finetune", "--target", "gap", "--out", str(out), "--quiet", *tiny]
    assert main([*command, "--members", "2"]) == 0
    assert "gap: uncertainty =" in capsys.readouterr().out
    kept = (out / "member-0" / "metrics.csv").read_bytes()
    assert main([*command, "--members", "2"]) == 2
    assert "an ensemble is there" in capsys.readouterr().err
    assert main([*command, "--members", "3", "--resume"]) == 0
    assert (out / "member-0" / "metrics.csv").read_bytes() == kept
    assert len(read_ensemble(out).members) == 3
    assert main(["evaluate", str(out)]) == 0
    capsys.readouterr()
    assert main([*command, "--members", "2", "--resume"]) == 2
    assert "3 members, which cannot become 2" in capsys.readouterr().err
    assert main([*command, "--members", "4", "--resume"]) == 0
    assert not list(out.glob("*.csv")) + list(out.glob("evaluation*"))  # they were those of three
    predict = ["predict", *("--smiles", *SMILES), "--model", str(out), "--out", str(table), "--quiet"]
    assert main([*predict, "--coverage", "0.8"]) == 0
    with table.open() as file:
        row = next(csv.DictReader(file))
    low, value, high = (float(row[f"gap {name}[eV]"]) for name in ("80 % from ", "", "80 % to "))
    assert low < value < high
    assert float(row["gap uncertainty [eV]"]) > 0


def test_every_file_has_the_ends_of_the_intervals(ensemble: Path, tmp_path: Path) -> None:
    found = ms.predict(SMILES, ensemble, coverage=0.5)
    ends = (found.values - found.half_widths, found.values + found.half_widths)
    for suffix in (".csv", ".parquet", ".extxyz"):
        found.save(tmp_path / f"gap{suffix}")
    table = pq.read_table(tmp_path / "gap.parquet")
    assert json.loads(table.schema.metadata[b"molspectra"])["coverage"] == "0.5"
    frames = [frame.info for frame in read(tmp_path / "gap.extxyz", ":")]
    assert frames[0]["coverage"] == 0.5
    with (tmp_path / "gap.csv").open() as file:
        rows = list(csv.DictReader(file))
    for key, word, values in zip(("gap_low", "gap_high"), ("from", "to"), ends, strict=True):
        assert table[key].to_pylist() == pytest.approx(values)
        assert [frame[key] for frame in frames] == pytest.approx(values)
        assert [float(row[f"gap 50 % {word} [eV]"]) for row in rows] == pytest.approx(values)


def test_an_unfinished_ensemble_is_called_one(
    ensemble: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut_off = tmp_path / "cut_off"
    shutil.copytree(ensemble / "member-0", cut_off / "member-0")
    predict = ["predict", "--smiles", "CCO", "--out", str(tmp_path / "a.csv"), "--model", str(cut_off)]
    for command in (["evaluate", str(cut_off)], predict):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "ensemble that is not finished" in said
        assert f"--out {cut_off} --members N --resume" in said
        assert "neither" not in said
    with pytest.raises(InputError, match="not finished"):
        ms.load(cut_off)


def test_the_evaluation_is_that_of_the_mean(
    ensemble: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Errors, uncertainties and coverage by hand from the members' own evaluations."""
    assert main(["evaluate", str(ensemble), "--plot", str(tmp_path / "x.png")]) == 0
    assert "stated coverage" in capsys.readouterr().out
    result = json.loads((ensemble / "evaluation.json").read_text())
    observed = evaluation_figure(result, ensemble).axes[-1].lines[1].get_ydata()
    assert observed.tolist() == [one["observed"] for one in result["uncertainty"]["coverage"].values()]
    tables = []
    for run in read_ensemble(ensemble).members:
        alone = ms.evaluate(run)
        with (run / "predictions.csv").open() as file:
            tables.append(list(csv.DictReader(file)))
        assert alone["mae"] in result["mae_of_members"]
    computed = np.array([float(row["computed gap [eV]"]) for row in tables[0]])
    values = np.array([[float(row["predicted gap [eV]"]) for row in table] for table in tables])
    errors, spreads = values.mean(0) - computed, values.std(0, ddof=1)
    assert result["mae"] == pytest.approx(np.abs(errors).mean())
    calibration = read_ensemble(ensemble).calibrations["gap"]
    with (ensemble / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = [float(row["uncertainty of gap [eV]"]) for row in rows]
    assert found == pytest.approx(calibration.scale * spreads)
    inside = np.abs(errors) <= calibration.half_width(spreads, 0.5)
    assert result["uncertainty"]["coverage"]["0.5"]["observed"] == pytest.approx(inside.mean())


def test_a_report_has_the_members_and_their_mean(ensemble: Path, tmp_path: Path) -> None:
    copy = tmp_path / "gap"
    shutil.copytree(ensemble, copy, ignore=shutil.ignore_patterns("evaluation*", "predictions*"))
    content = collect_report([copy])
    assert [run.name for run in content.runs] == ["gap/member-0", "gap/member-1", "gap/member-2"]
    assert len({curve.seed for curve in content.curves}) == 3
    assert any(f"molspectra evaluate {copy}" in note for note in content.notes)
    result = ms.evaluate(copy)
    notes = collect_report([copy, copy / "member-1"]).notes
    (note,) = (note for note in notes if f"MAE {result['mae']:.4g} eV of gap" in note)
    assert f"{min(result['mae_of_members']):.4g} to {max(result['mae_of_members']):.4g}" in note
    assert main(["report", str(copy), "--out", str(tmp_path / "page.html")]) == 0


def test_only_predictions_take_an_ensemble(ensemble: Path) -> None:
    loaded = ms.load(ensemble)
    assert isinstance(loaded, LoadedEnsemble)
    assert "3 members" in repr(loaded)
    with pytest.raises(MismatchError, match="member-0"):
        ms.embed(SMILES, ensemble)


def test_the_calculator_tells_where_members_disagree(
    ethanol_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two members by hand: a run on ethanol's energy and forces, and the same with another seed."""
    config, _ = read_run(ethanol_run)
    config = replace(config, loop=replace(config.loop, steps=2, save_every=0, validate_every=2))
    out = tmp_path / "ethanol"
    finetune_ensemble(config, out, 2, show=False)
    members = read_ensemble(out).members
    atoms = to_ase(ms.bundled("bundled-ethanol").molecule(3))
    forces = []
    for run in members:
        atoms.calc = ms.Calculator(run)
        forces.append(atoms.get_forces())
    atoms.calc = ms.Calculator(out, max_force_spread=1e-6)
    with pytest.warns(UserWarning, match="max_force_spread"):
        mean = atoms.get_forces()
    assert mean == pytest.approx(np.mean(forces, axis=0))
    distance = np.linalg.norm(np.subtract(*forces), axis=1) / np.sqrt(2)
    assert atoms.calc.results["force_spread"] == pytest.approx(distance)
    assert atoms.calc.results["energy_uncertainty"] > 0
    start, frames = tmp_path / "start.xyz", tmp_path / "md.extxyz"
    atoms.write(start)
    command = ["md", str(out), "--input", str(start), "--out", str(frames), "--time-ps", "0.004", "--quiet"]
    command += ["--interval-fs", "2", "--equilibration-fs", "0", "--no-relax"]
    assert main([*command, "--max-force-spread", "1000"]) == 0
    assert "0 of 3 frames" in capsys.readouterr().out
    assert all(frame.info["force_spread"] > 0 for frame in read(frames, ":"))


def test_a_damaged_ensemble_is_refused(ensemble: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ensemble, copy)
    path = copy / "ensemble.json"
    plain = json.loads(path.read_text())
    for error, changes in (
        (NewerFormatError, {"format": 2}),
        (DamagedError, {"members": ["member-0", "member-9"]}),
        (DamagedError, {"members": ["member-0", "../elsewhere"]}),
        (DamagedError, {"members": ["member-0"]}),
        (DamagedError, {"calibration": {"gap": {}}}),
    ):
        path.write_text(json.dumps(plain | changes))
        with pytest.raises(error, match=r"ensemble\.json"):
            ms.load(copy)


@pytest.mark.parametrize("members", [1, 0, -2, 1000])
def test_an_ensemble_has_several_members(config: FinetuneConfig, tmp_path: Path, members: int) -> None:
    with pytest.raises(InputError, match="members"):
        finetune_ensemble(config, tmp_path / "out", members)


def test_no_ensemble_over_a_run(config: FinetuneConfig, tmp_path: Path) -> None:
    ms.finetune(config, tmp_path / "run", show=False)
    with pytest.raises(ExistsError, match="single run"):
        finetune_ensemble(config, tmp_path / "run", 2)


@pytest.mark.parametrize(
    "command",
    [["export-model", "--out", "m.pt2"], ["embed", "--smiles", "C", "--out", "v.npy", "--model"]],
)
def test_what_takes_one_run_names_a_member(
    ensemble: Path,
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*command, str(ensemble)]) == 2
    assert "member-0" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
