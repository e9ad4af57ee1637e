"""The code that docs/own_loop.md shows runs as it is, and learns."""

import re
from pathlib import Path
from typing import Any

import torch

PAGE = Path(__file__).resolve().parents[1] / "docs/own_loop.md"


def test_the_code_runs_and_learns(capsys):
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(compile(block, PAGE.name, "exec"), names)
    number, unit = re.fullmatch(r"MAE ([\d.]+) (\w+)\n", capsys.readouterr().out).groups()
    assert unit == "eV"
    labels = names["batch"].targets["gap"]
    assert float(number) < 0.7 * float((labels - labels.median()).abs().mean())
    assert not any(weight.requires_grad for weight in names["encoder"].parameters())
