"""`molspectra doctor --gpu`: its checks, tried on the CPU, and what it says where there is no GPU."""

import getpass
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from molspectra.apps import doctor_gpu
from molspectra.apps.cli import main
from molspectra.models.segments import sum_by_target

CPU = torch.device("cpu")
TINY = {
    "model": {"encoder": {"channels": 16, "layers": 1, "heads": 2, "radial": 8}},
    "loop": {"batch_size": 4},
}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return doctor_gpu.report(CPU, TINY, steps=1)


def test_a_report_has_all_parts_and_names_nobody(found: dict[str, Any]) -> None:
    assert found["ok"], found["failed"]
    assert set(found["parity"]) == set(doctor_gpu.RECIPES)
    for name in (*doctor_gpu.RECIPES, "inference"):
        for figures in found["benchmark"][name].values():
            assert figures["seconds_per_step"] > 0
            assert figures["molecules_per_second"] == pytest.approx(4 / figures["seconds_per_step"])
    text = json.dumps(found)
    assert str(Path.home()) not in text
    assert str(Path.cwd()) not in text
    assert getpass.getuser() not in text or getpass.getuser() == "root"


def test_a_wrong_sum_fails_the_parity(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(values: torch.Tensor, edges: object) -> torch.Tensor:
        return sum_by_target(values, edges) * (1.01 if values.dtype == torch.float32 else 1.0)

    monkeypatch.setattr("molspectra.models.equivariant_transformer.sum_by_target", wrong)
    found = doctor_gpu.parity("stage 1", CPU, TINY)
    assert (
        max(found["loss"] / doctor_gpu.LIMITS["loss"], found["gradient"] / doctor_gpu.LIMITS["gradient"]) > 1
    )


def test_what_raises_or_is_no_number_fails_by_name() -> None:
    def broken() -> dict[str, float]:
        raise RuntimeError("no such file: some/where/x")

    results = {
        "parity": {"stage 1": {"loss": math.nan, "gradient": 0.0}},
        "physics": doctor_gpu._attempt(broken),
    }
    assert results["physics"] == {"error": "RuntimeError"}
    assert doctor_gpu._failed(results, "") == ["parity, stage 1, loss", "physics, error"]


def test_without_a_gpu_one_line_and_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    out = tmp_path / "gpu.json"
    assert main(["doctor", "--gpu", "--out", str(out)]) == 2
    said = capsys.readouterr().err.strip()
    assert "torch sees no CUDA GPU" in said
    assert "\n" not in said
    assert not out.exists()


def test_the_command_writes_the_report(
    found: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor_gpu, "gpu", lambda: CPU)
    monkeypatch.setattr(doctor_gpu, "report", lambda device, show: found)
    out = tmp_path / "gpu.json"
    assert main(["doctor", "--gpu", "--out", str(out)]) == 0
    assert json.loads(out.read_text())["device"] == {"name": "cpu"}
    assert "all checks passed" in capsys.readouterr().out
    assert main(["doctor", "--gpu", "--out", str(out)]) == 2
