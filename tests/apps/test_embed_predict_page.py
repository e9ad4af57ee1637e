"""Everything that docs/embed_predict.md shows is done here, in its order."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import molspectra as ms
from molspectra.apps.cli import main
from molspectra.apps.commands.embed import _parser

PAGE = Path(__file__).resolve().parents[2] / "docs/embed_predict.md"
BLOCK = re.compile(r"```\{code-block\} (\w+)\n(?::caption: ([^\n]*)\n)?\n?(.*?)\n```", re.DOTALL)


@pytest.mark.slow
def test_the_files_and_commands_of_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    said, done, names = "", [], {}
    for language, caption, body in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(body, PAGE.name, "exec"), names)
        elif language == "bash":
            said = ""
            for command in body.splitlines():
                program, *arguments = shlex.split(command)
                assert program == "molspectra"
                assert main(arguments) == 0, capsys.readouterr().err
                done.append(arguments[0])
                said += capsys.readouterr().out
        elif caption == "output":
            assert said == body + "\n"
        else:
            Path(caption).write_text(body + "\n", encoding="utf-8")
    trained = ["finetune", "predict", "finetune", "evaluate", "predict"]
    classes = ["prepare", "finetune", "evaluate", "predict"]
    assert done == ["embed", "embed", *trained, *classes, "predict"]
    assert names["found"].quantities[0].unit == "probability"
    assert names["found"].values.shape == (2,)
    assert "gap [eV]" in Path("gaps.csv").read_text()
    assert np.load("alcohols.npy").shape == (3, 128)
    assert len(list(ms.read_molecules("slopes.extxyz"))) == 3


def test_the_page_names_every_option():
    text = PAGE.read_text(encoding="utf-8")
    for option in ("--length", "--together", "--modality", "--unit", "--quantity", "--outside"):
        assert option in text
        assert option in _parser().format_help()
