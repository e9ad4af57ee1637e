"""The code of docs/sklearn.md, export_model.md, uncertainty.md and search_settings.md runs, in its order."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from molspectra.apps.cli import main

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCK = re.compile(r"```\{code-block\} (\w+)\n\n?(.*?)\n```", re.DOTALL)


def run_page(name):
    names = {}
    for language, body in BLOCK.findall((DOCS / name).read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(body, name, "exec"), names)
        else:
            for command in body.splitlines():
                assert main(shlex.split(command)[1:]) == 0
    return names


@pytest.mark.slow
def test_scikit_learn_page():
    pytest.importorskip("sklearn")
    names = run_page("sklearn.md")
    assert np.isfinite(names["scores"]).all()
    assert names["both"].predict(["CO"]).shape == (1, 2)
    assert np.isfinite(names["areas"]).all()


@pytest.mark.slow
def test_export_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_page("export_model.md")
    assert names["found"]["gap"].shape == (2,)
    assert names["found"]["embedding"].shape == (2, 128)
    assert Path("small.pt2").exists()


@pytest.mark.slow
def test_uncertainty_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_page("uncertainty.md")
    assert (names["found"].uncertainties > 0).all()
    heads = Path("gaps.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    text = (DOCS / "uncertainty.md").read_text(encoding="utf-8")
    for head in heads:
        if head.startswith("gap "):
            assert f"`{head}`" in text or head == "gap [eV]"
    head = Path("found.csv").read_text(encoding="utf-8").splitlines()[0]
    assert "logP uncertainty" in head
    assert "gap 50 % from [eV]" in head


@pytest.mark.slow
def test_search_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_page("search_settings.md")
    assert Path("runs/best/record.json").exists()
