"""The code that docs/api.md shows runs, with runs that train nothing."""

import re
from pathlib import Path
from typing import Any

import pytest

import molspectra as ms
from molspectra.training import run

PAGE = Path(__file__).resolve().parents[2] / "docs/api.md"


def test_the_code_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    use_runs: dict[str, Path],
) -> None:
    started: list[Any] = []
    monkeypatch.setattr(run, "_run", lambda config, *_: started.append(config))
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    load = ms.load
    monkeypatch.setattr(ms, "load", lambda _: load(use_runs["gap"]))
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), names)
    assert [config.loop.steps for config in started] == [500, 500]
    assert names["longer"].loop.steps == 2000
    assert "target: gap,homo" in capsys.readouterr().out
    assert len(names["frame"]) == len(names["store"])
    assert names["largest"] == names["store"].atom_counts[:10].max()
