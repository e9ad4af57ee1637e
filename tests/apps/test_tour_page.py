"""What docs/tour.md and docs/gpu.md show is done here, in their order, with fewer steps of fine-tuning."""

import json

import matplotlib
import pytest
from docs_pages import follow

import molspectra as ms


@pytest.mark.slow
def test_the_tour(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tblite")
    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    commands = []

    def shorter(command):
        commands.append(command)
        return command.replace("--loop.steps 300", "--loop.steps 4")

    done = list(follow("tour", capsys, shorter))
    assert [name for name, _ in done] == [
        "embed", "simulate", "python", "index", "search", "finetune", "predict", "python",
    ]  # fmt: skip
    assert sum("--loop.steps 300" in command for command in commands) == 1
    hits = dict(done)["search"]
    assert hits.splitlines()[1].split()[-2:] == ["acetone", "CC(C)=O"]
    found = done[-1][1]["found"]
    assert found.quantities[0].unit == "eV"
    assert found.values.shape == (3,)
    assert "gap [eV]" in (tmp_path / "gaps.csv").read_text(encoding="utf-8").splitlines()[0]
    assert (tmp_path / "acetone.png").stat().st_size > 1000
    assert len(ms.Store("acetone.arrow")) == 1


def test_the_page_of_devices(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    done = list(follow("gpu", capsys, lambda command: command.replace("--loop.steps 20", "--loop.steps 2")))
    assert [name for name, _ in done] == ["finetune", "python"]
    assert json.loads((tmp_path / "gap/record.json").read_text())["device"] == "cpu"
    assert done[-1][1]["found"].values.shape == (2,)
