"""The benchmarks run and say what they promise; no time is looked at."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks import __main__ as everything
from benchmarks import ceiling, loader, machine, report, scaling
from benchmarks.cases import CASES, Options, configuration
from benchmarks.goals import MISSED, STEPS
from benchmarks.molecules import LEAST_ATOMS, aspirins, chains, qm9_like
from benchmarks.steps import CONFIGS, measure, parser

from molspectra.reporting.canvas import write_figure

ROOT = Path(__file__).parents[2]
FIGURES = (
    "median_seconds", "spread", "molecules_per_second", "peak_memory_gb", "efficiency", "flop",
    "matmul_gflops", "batch_seconds", "processor_seconds",
)  # fmt: skip
ABOUT = (
    "config", "mode", "batch", "threads", "precision", "kernels", "device", "commit", "machine", "date",
    "torch", "numba", "allocator",
)  # fmt: skip


def tiny(*arguments: str) -> dict[str, object]:
    options = ["--tiny", "--threads", "1", "--allocator", "default", "--batch", "2", "--steps", "2"]
    return measure(parser().parse_args([*arguments, *options]))


def test_the_configurations_are_the_cases_and_have_goals() -> None:
    assert set(CONFIGS) == set(CASES) == set(STEPS) == set(everything.FULL)


@pytest.mark.parametrize("option", ["--batch", "--steps", "--threads"])
def test_numbers_must_be_positive(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["--config", "qm9-stage1", option, "0"])
    assert "0 is not positive" in capsys.readouterr().err


@pytest.mark.parametrize("name", CASES)
def test_every_step_gives_all_figures(name: str) -> None:
    result = tiny("--config", name)
    assert set(FIGURES) | set(ABOUT) <= result.keys()
    for figure in FIGURES:
        assert math.isfinite(result[figure])
        assert result[figure] > 0 or figure == "spread"
    assert result["molecules_per_second"] == pytest.approx(2 / result["median_seconds"])


def test_the_last_line_is_json_and_the_comparison_in_it() -> None:
    command = [sys.executable, "-m", "benchmarks.steps", "--config", "qm9-stage1", "--tiny", "--batch", "2"]
    command += ["--steps", "2", "--threads", "1", "--json", "--compare", "plain"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert result["allocator"] == "tuned"
    assert result["speedup"] > 0
    assert result["plain_median_seconds"] > 0


def test_a_profile_names_operators(capsys: pytest.CaptureFixture[str]) -> None:
    tiny("--config", "qm9-inference", "--profile")
    assert "aten::addmm" in capsys.readouterr().err


def test_modes_and_precision_reach_the_settings() -> None:
    options = Options(batch=4, mode="reference", precision="bf16-mixed")
    reference = configuration(CASES["qm9-stage2"], options)
    assert reference.model.encoder.whitening == "reference"
    assert not reference.model.encoder.vector_cutoff
    assert (reference.alignment.form, reference.alignment.masked) == ("reference", True)
    assert reference.denoising.normalise == "running"
    assert (reference.loop.batch_size, reference.loop.precision) == (4, "bf16-mixed")
    assert (reference.model.encoder.layers, reference.model.encoder.channels) == (8, 256)
    sound = configuration(CASES["qm9-stage2"], Options(batch=4, mode="default"))
    assert sound.model.encoder.whitening == "isotropic"
    assert sound.model.encoder.vector_cutoff
    assert (sound.alignment.form, sound.alignment.masked) == ("symmetric", True)
    published = configuration(CASES["md17-finetune"], Options(batch=8))
    assert (published.noise_mode, published.forces, published.model.encoder.radial) == ("reference", True, 32)


def test_molecules_have_the_sizes_that_are_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MOLSPECTRA_SHARED", raising=False)
    assert LEAST_ATOMS - 0.3 < np.mean([len(each) for each in qm9_like(256)]) < 18
    (tmp_path / "data" / "qm9").mkdir(parents=True)
    sizes, rng = np.array([3, 20, 21, 19]), np.random.default_rng(0)
    np.savez(
        tmp_path / "data" / "qm9" / "qm9_geometries.npz",
        n_atoms=sizes.astype(np.uint8), z=np.full(63, 6, np.uint8), pos=rng.normal(0, 9, (63, 3)),
    )  # fmt: skip
    monkeypatch.setenv("MOLSPECTRA_SHARED", str(tmp_path))
    assert {len(each) for each in qm9_like(3)} <= set(sizes)
    assert [len(each) for each in aspirins(2)] == [21, 21]
    assert not np.allclose(*(each.positions for each in aspirins(2)))
    assert [len(chains(atoms, 1)[0]) for atoms in (10, 50, 101)] == [11, 50, 101]


def test_spread_is_the_interquartile_range_over_the_median() -> None:
    assert machine.spread([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(2 / 3)
    assert machine.spread([2.0]) == 0


def test_the_page_shows_goals_and_what_was_reached() -> None:
    steps = [
        {"label": "steps", "config": "qm9-stage1", "batch": 128, "median_seconds": 3.2, "spread": 0.04,
         "molecules_per_second": 40.0, "efficiency": 0.918, "peak_memory_gb": 2.5, "matmul_gflops": 110.0,
         "batch_seconds": 0.016, "mode": "reference", "precision": "32-true", "allocator": "tuned"},
    ]  # fmt: skip
    steps += [steps[0] | {"label": "compare", "plain_median_seconds": 6.4, "speedup": 2.0}]
    steps += [steps[0] | {"label": "bf16", "precision": "bf16-mixed", "median_seconds": 1.0}]
    steps += [steps[0] | {"label": "allocator", "allocator": "default", "median_seconds": 4.5}]
    steps += [steps[0] | {"config": "qm9-stage2", "label": "default", "mode": "default", "batch": 64}]
    steps += [steps[0] | {"config": "md17-force", "batch": 1, "efficiency": 0.4, "median_seconds": 0.006}]
    about = {
        "machine": {"cpu": "a CPU", "cores": 2, "memory_gib": 24.0, "system": "a system"}, "numba": "0.61",
        "date": "a day", "commit": "abc", "threads": 2, "torch": "2.13", "load": "0.6", "command": "it",
        "quick": False,
    }  # fmt: skip
    loaded = {"milliseconds": 1.0, "molecules_per_second": 128_000.0}
    text = report.page(
        {
            "about": about,
            "steps": steps,
            "failed": ["steps --config qm9-stage2: exit code 1"],
            "ceilings": {"copy, GB/s": 20.0},
            "loader": {"batch": 128, "stores": {"as it is": {"structures alone": loaded}}},
            "simulation": {"cpu_seconds": {"IR and Raman": 0.9, "IR, Raman and UV-Vis": 9.0}},
            "startup": {"cpu_seconds": {"--version": 0.04, "finetune --help": 3.3}},
            "calculator": {"seconds": {"float64": 0.0061, "float32": 0.006}},
            "search": {
                "count": 1_000_000,
                "width": 256,
                "found": {
                    "clustered": {"exact": 39.0, "approximate": 2.5, "recall": 0.985, "lists": 26, "of": 2000}
                },
            },
            "regressions": ["qm9-stage1 128: half as fast"],
        }
    )  # fmt: skip
    assert "| 0.92 (0.306) | 3.00× (4×: not yet) |" in text  # the reference's efficiency is 0.306
    assert "| qm9-stage2 | default | 64 |" in text
    assert "3.61× (4×: not yet)" in text  # 0.918 / 0.254
    assert "0.006 (≤ 0.005: not yet)" in text
    assert "6.30× (5×: goal)" in text
    for name in ("qm9-stage1", "qm9-stage2", "md17-force"):
        assert f"- {name}, goal missed: {STEPS[name].missed}." in text
    for name in ("calculator", "approximate search", "startup"):
        assert f"- {name}, goal missed: {MISSED[name]}." in text
    for name in ("md17-finetune", "exact search"):
        assert f"{name}, goal missed" not in text
    assert "**A busy machine** (load 0.6)" in text
    assert "**Slower than before**: qm9-stage1 128: half as fast" in text
    assert "2.50 (≤ 3: goal)" in text
    assert "| qm9-stage1 | 128 | 6.4 | 3.2 | 2.00× |" in text
    assert "| float64 | 6.1 | ≤ 6: not yet |\n| float32 | 6.0 | ≤ 6: goal |" in text
    assert "| clustered | exact | 39.0 | ≤ 45: goal |" in text
    assert "| 2.5 | ≤ 2: not yet | 0.985 (≥ 0.98: goal) | 26 of 2000 |" in text
    assert "≥ 100,000: goal" in text
    assert "**Failed**: `steps --config qm9-stage2: exit code 1`" in text
    assert "| IR, Raman and UV-Vis | 9.00 | ≤ 8: not yet |" in text
    assert "| `molspectra --version` | 0.04 | ≤ 0.5: goal |" in text
    assert "| `molspectra finetune --help` | 3.30 | ≤ 0.5: not yet |" in text
    assert "| qm9-stage1 | 16.0 | 0.5% |" in text


def test_ceilings_loader_and_plots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceiling, "MATRIX_SIDES", (16,))
    monkeypatch.setattr(ceiling, "COPIED", 1024)
    monkeypatch.setattr(ceiling, "EXPONENTIALS", 512)
    monkeypatch.setattr(ceiling, "THIN", (2, 16, 8))
    import torch

    assert min(ceiling.ceilings(torch.device("cpu"), 1).values()) > 0
    found = loader.measure(None, 2, step_seconds=1.0, repeats=1)
    assert found["stores"]["as it is"]["with 3 spectra"]["molecules_per_second"] > 0
    assert 0 < found["stores"]["spectra as samples"]["structures alone"]["share_of_a_step"] < 1
    points = [{"x": x, "molecules": 2, "seconds": 0.1} for x in (1.0, 2.0)]
    for name in scaling.LABELS:
        write_figure(tmp_path / f"{name}.svg", scaling.figure(name, points))
        assert "<svg" in (tmp_path / f"{name}.svg").read_text()


def test_every_planned_run_is_one_that_the_program_takes() -> None:
    for quick in (True, False):
        for _, options in everything.plan(quick):
            parser().parse_args(options)


def test_a_measurement_that_fails_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(everything.Failed, match="ceiling --threads none: exit code 2"):
        everything.run("ceiling", ["--threads", "none"])
    assert "invalid int value" in capsys.readouterr().err


def test_scripts_about_datasets_are_those_that_are_no_modules() -> None:
    names = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert set(everything.DATASET_SCRIPTS) <= names
