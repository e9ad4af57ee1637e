"""Dynamics with a trained model: the command, its trajectory, how energy is conserved, interruption."""

import os
import signal

import numpy as np
import pytest
from ase import units
from ase.io import read

from molspectra import Calculator, bundled, read_molecules
from molspectra.apps import md as module
from molspectra.apps.cli import main
from molspectra.apps.md import relax, run_md
from molspectra.chem.readers import to_ase
from molspectra.errors import ExistsError, MolspectraError, SettingError
from molspectra.simulation.dynamics import DynamicsSettings
from molspectra.training.interrupt import Interrupted

SHORT = DynamicsSettings(temperature=300.0, interval_fs=2.0, timestep_fs=0.5, equilibration_fs=3.0, seed=4)


@pytest.fixture
def atoms(ethanol_run):
    atoms = to_ase(bundled("bundled-ethanol").molecule(3))
    atoms.calc = Calculator(ethanol_run)
    return atoms


@pytest.fixture
def start(tmp_path, atoms):
    path = tmp_path / "start.xyz"
    atoms.write(path)
    return str(path)


def test_a_trajectory_holds_what_the_model_says(tmp_path, atoms, ethanol_run):
    out = tmp_path / "nve.extxyz"
    result = run_md(atoms, out, SHORT, time_ps=0.04, show=False)
    frames = read(out, ":")
    assert len(frames) == result.frames == 21
    assert [frame.info["time_fs"] for frame in frames] == [2.0 * k for k in range(21)]
    totals = np.array([frame.get_total_energy() for frame in frames])
    assert np.ptp(totals) < 0.05
    assert result.fluctuation < 20
    fitted = np.polyfit(np.arange(21) * 0.002, totals, 1)[0]
    assert result.drift == pytest.approx(1000 * fitted, rel=1e-3, abs=0.5)
    last = frames[-1].copy()
    last.calc = Calculator(ethanol_run)
    assert last.get_potential_energy() == pytest.approx(frames[-1].get_potential_energy(), abs=1e-5)
    np.testing.assert_allclose(last.get_forces(), frames[-1].get_forces(), atol=1e-4)
    molecules = list(read_molecules(out))
    assert len(molecules) == 21
    assert molecules[0].formula == "C2H6O"


def test_a_shorter_step_conserves_energy_better(tmp_path, ethanol_run):
    found = []
    for step in (0.5, 0.25):
        atoms = to_ase(bundled("bundled-ethanol").molecule(3))
        atoms.calc = Calculator(ethanol_run)
        settings = DynamicsSettings(
            temperature=300.0, interval_fs=0.5, timestep_fs=step, equilibration_fs=0.0
        )
        found.append(run_md(atoms, tmp_path / f"{step}.extxyz", settings, 0.02, show=False).fluctuation)
    assert found[1] < 0.4 * found[0]


def test_a_heat_bath_heats(tmp_path, atoms):
    """Strong coupling brings cold atoms near the bath's temperature."""
    hot = DynamicsSettings(
        temperature=400.0, interval_fs=5.0, timestep_fs=0.5, friction_per_ps=200.0, equilibration_fs=30.0
    )
    result = run_md(atoms, tmp_path / "bath.extxyz", hot, 0.1, "langevin", show=False)
    assert 250 < result.temperature < 550


def test_the_same_seed_gives_the_same_trajectory(tmp_path, ethanol_run):
    texts = []
    for name in ("one", "two"):
        atoms = to_ase(bundled("bundled-ethanol").molecule(3))
        atoms.calc = Calculator(ethanol_run)
        run_md(atoms, tmp_path / name, SHORT, 0.01, "langevin", show=False)
        texts.append((tmp_path / name).read_text())
    assert texts[0] == texts[1]


def test_ctrl_c_leaves_whole_frames(tmp_path, atoms, monkeypatch):
    frame = module._frame

    def interrupting(atoms, time_fs):
        if time_fs == 6.0:
            os.kill(os.getpid(), signal.SIGINT)
        return frame(atoms, time_fs)

    monkeypatch.setattr(module, "_frame", interrupting)
    out = tmp_path / "stopped.extxyz"
    with pytest.raises(Interrupted, match="4 frames are in"):
        run_md(atoms, out, SHORT, 1.0, show=False)
    assert len(read(out, ":")) == 4


def test_ctrl_c_on_the_command_line(tmp_path, start, ethanol_run, monkeypatch, capsys):
    frame = module._frame

    def interrupting(atoms, time_fs):
        if time_fs == 10.0:
            os.kill(os.getpid(), signal.SIGINT)
        return frame(atoms, time_fs)

    monkeypatch.setattr(module, "_frame", interrupting)
    out = str(tmp_path / "stopped.extxyz")
    assert (
        main(
            ["md", str(ethanol_run), "--input", start, "--out", out, "--no-relax", "--equilibration-fs", "0"]
        )
        == 130
    )
    assert "interrupted; 3 frames" in capsys.readouterr().err
    assert len(read(out, ":")) == 3


class Killed(BaseException):
    pass


def test_a_kill_leaves_no_trajectory_that_looks_whole(tmp_path, atoms, monkeypatch):
    """The frames are kept under another name, what stood there before stays, and neither is overwritten."""
    frame = module._frame

    def killing(atoms, time_fs):
        if time_fs == 6.0:
            raise Killed
        return frame(atoms, time_fs)

    out, part = tmp_path / "x.extxyz", tmp_path / "x.part.extxyz"
    out.write_text("of before")
    with monkeypatch.context() as patch:
        patch.setattr(module, "_frame", killing)
        with pytest.raises(Killed):
            run_md(atoms, out, SHORT, 0.02, overwrite=True, show=False)
    assert out.read_text() == "of before"
    assert len(read(part, ":")) == 3
    out.unlink()
    with pytest.raises(ExistsError, match=r"x\.part\.extxyz"):
        run_md(atoms, out, SHORT, 0.02, show=False)
    assert run_md(atoms, out, SHORT, 0.02, overwrite=True, show=False).frames == 11
    assert len(read(out, ":")) == 11
    assert not part.exists()


def test_an_interruption_before_the_first_frame_replaces_nothing(tmp_path, atoms, monkeypatch):
    monkeypatch.setattr(module, "MAX_HEAT", 1e-3)
    out = tmp_path / "x.extxyz"
    out.write_text("of before")
    with pytest.raises(MolspectraError, match="before the first frame"):
        run_md(atoms, out, SHORT, 0.01, overwrite=True, show=False)
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("x.extxyz", "of before")]


def test_a_molecule_that_comes_apart_is_told(tmp_path, atoms, monkeypatch):
    monkeypatch.setattr(module, "MAX_HEAT", 1e-3)
    with pytest.raises(MolspectraError, match="came apart at"):
        run_md(atoms, tmp_path / "x.extxyz", SHORT, 0.01, show=False)


def test_the_minimum_has_no_forces(atoms):
    before = atoms.get_potential_energy()
    relax(atoms, fmax=0.05)
    assert np.sqrt((atoms.get_forces() ** 2).sum(1)).max() < 0.05
    assert atoms.get_potential_energy() < before


def test_no_minimum_is_told(atoms, monkeypatch):
    monkeypatch.setattr(module, "RELAX_STEPS", 1)
    with pytest.raises(MolspectraError, match="no minimum"):
        relax(atoms, fmax=1e-6)


def test_the_command(tmp_path, start, ethanol_run, capsys):
    out = tmp_path / "md.extxyz"
    arguments = ["md", str(ethanol_run), "--input", start, "--out", str(out), "--no-relax"]
    arguments += ["--time-ps", "0.02", "--equilibration-fs", "5", "--quiet"]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert "5 frames in" in printed.out
    assert "drift" in printed.out
    assert "9 atoms" in printed.out
    assert not printed.err
    assert len(read(out, ":")) == 5
    assert main(arguments) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*arguments, "--overwrite", "--ensemble", "langevin"]) == 0
    assert "drift" not in capsys.readouterr().out


def test_progress_is_shown(tmp_path, start, ethanol_run, capsys):
    arguments = ["md", str(ethanol_run), "--input", start, "--out", str(tmp_path / "md.extxyz"), "--no-relax"]
    assert main([*arguments, "--time-ps", "0.02", "--equilibration-fs", "5"]) == 0
    assert "molecular dynamics: 5/5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--smiles", "CN", "--out", "x.extxyz", "--no-relax"], "is N, which the model was not trained on"),
        (["--smiles", "CCO", "--out", "missing/x.extxyz"], "does not exist"),
        (
            ["--smiles", "CCO", "--out", "x.extxyz", "--time-ps", "0.0071", "--no-relax"],
            "whole number of intervals",
        ),
        (["--smiles", "CCO", "--out", "x.extxyz", "--timestep-fs", "0.3"], "whole number of time steps"),
        (["--input", "two.xyz", "--out", "x.extxyz"], "more than one structure"),
        (["--smiles", "CCO"], "--out"),
    ],
)
def test_what_cannot_run_is_refused(tmp_path, monkeypatch, ethanol_run, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.xyz").write_text("1\n\nHe 0 0 0\n1\n\nHe 0 0 0\n")
    assert main(["md", str(ethanol_run), *options]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "x.extxyz").exists()


def test_an_unknown_ensemble_is_refused(tmp_path, atoms):
    with pytest.raises(SettingError, match="nve, langevin"):
        run_md(atoms, tmp_path / "x", SHORT, 0.01, "npt", show=False)


def test_velocities_have_their_temperature(tmp_path, atoms):
    """Of the mean kinetic energy 3N·kT/2, over several seeds, before anything has moved."""
    found = []
    for seed in range(20):
        settings = DynamicsSettings(temperature=300.0, interval_fs=0.5, equilibration_fs=0.0, seed=seed)
        run_md(atoms, tmp_path / f"{seed}", settings, 0.0005, show=False)
        found.append(read(tmp_path / f"{seed}", 0).get_kinetic_energy() / (13.5 * units.kB))
    assert np.mean(found) == pytest.approx(300, abs=60)
