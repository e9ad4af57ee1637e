"""What docs/dynamics.md shows is done here in its order, with a smaller model and shorter times."""

import importlib.util
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

from molspectra.apps.cli import main
from molspectra.simulation import autocorrelation

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/dynamics.md"
BLOCK = re.compile(r"```\{code-block\} (\w+)\n\n(.*?)\n```", re.DOTALL)
SHORT = {
    "finetune": [
        "--loop.steps",
        "40",
        "--model.encoder.channels",
        "16",
        "--loop.validate_every",
        "20",
        "--quiet",
    ],
    "md": ["--time-ps", "0.02", "--equilibration-fs", "5", "--no-relax", "--quiet"],
    "examples/ethanol_ir.py": ["--time-ps", "0.02", "--equilibration-fs", "4", "--no-relax"],
}


def example():
    """`main` of examples/ethanol_ir.py."""
    spec = importlib.util.spec_from_file_location("ethanol_ir", ROOT / "examples/ethanol_ir.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def second_moments(molecule, frames):
    """Symmetric tensors [T, 3, 3] that turn with the molecule, made in no time: like polarisabilities."""
    centred = np.array([frame - frame.mean(0) for frame in frames])
    return np.einsum("tni,tnj->tij", centred, centred)


def test_the_commands_and_code_of_the_page(tmp_path, monkeypatch, ethanol_run, capsys):
    pytest.importorskip("tblite")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(autocorrelation, "xtb_polarisabilities", second_moments)
    done, scope = [], {}
    for language, body in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(body, PAGE.name, "exec"), scope)
            done.append("python")
            continue
        for line in body.splitlines():
            program, name, *arguments = shlex.split(line)
            done.append(name)
            if arguments == ["--config", "small-md17", "--out", "runs/ethanol"]:
                shutil.copytree(ethanol_run, "runs/ethanol")
            elif program == "python":
                example()([*arguments, *SHORT[name]])
            else:
                assert main([name, *arguments, *SHORT[name]]) == 0, capsys.readouterr().err
    spectrum = "examples/ethanol_ir.py"
    assert done == [
        *("finetune", "md", "python", "python"),
        *("python", "finetune", spectrum, spectrum),
        *("python", "finetune", "md", "python"),
    ]
    assert len(read("ethanol.extxyz", ":")) == 5
    assert all(frame.get_dipole_moment().any() for frame in read("learned_ir.extxyz", ":"))
    raman = scope["raman"]
    assert len(raman.activity) == len(scope["wavenumbers"]) == len(scope["absorption"])
    assert np.isfinite(raman.activity).all()
    assert raman.activity.max() > 0
    assert Path("ethanol_ir.png").stat().st_size > 1000
    assert "C–H stretches" in capsys.readouterr().out


def test_the_page_names_every_argument():
    import inspect

    from molspectra import Calculator

    text = PAGE.read_text(encoding="utf-8")
    for name in list(inspect.signature(Calculator.__init__).parameters)[1:]:
        assert f"| `{name}` |" in text
