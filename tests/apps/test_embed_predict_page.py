"""Everything that docs/embed_predict.md shows is done here, in its order."""

from pathlib import Path

import numpy as np
import pytest
from docs_pages import DOCS, follow

import molspectra as ms
from molspectra.apps.commands.embed import _parser


@pytest.mark.slow
def test_the_files_and_commands_of_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    done, names = [], {}
    for name, result in follow("embed_predict", capsys):
        if name == "python":
            names = result
        else:
            done.append(name)
    trained = ["finetune", "predict", "finetune", "evaluate", "predict"]
    classes = ["prepare", "finetune", "evaluate", "predict"]
    assert done == ["embed", "embed", *trained, *classes, "predict"]
    assert names["found"].quantities[0].unit == "probability"
    assert names["found"].values.shape == (2,)
    assert "gap [eV]" in Path("gaps.csv").read_text()
    assert np.load("alcohols.npy").shape == (3, 128)
    assert len(list(ms.read_molecules("slopes.extxyz"))) == 3


def test_the_page_names_every_option():
    text = (DOCS / "embed_predict.md").read_text(encoding="utf-8")
    for option in ("--length", "--together", "--modality", "--unit", "--quantity", "--outside"):
        assert option in text
        assert option in _parser().format_help()
