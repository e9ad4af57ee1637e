"""What a run says of the runs before it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import __main__ as program
from benchmarks import history, report

from molspectra.errors import DamagedError

ROOT = Path(__file__).parents[2]
STEP = "qm9-stage1 128 reference 32-true tuned"


def run(efficiency, *, date="2026-11-29", load="0.2", cpu="a CPU", quick=False):
    step = {
        "config": "qm9-stage1",
        "batch": 128,
        "mode": "reference",
        "precision": "32-true",
        "allocator": "tuned",
    }
    about = {
        "date": date, "commit": "abcdefghij", "load": load, "threads": 2, "quick": quick,
        "machine": {"cpu": cpu, "cores": 2},
    }  # fmt: skip
    steps = [
        step | {"label": "steps", "efficiency": efficiency, "median_seconds": 1.23456},
        step | {"label": "compare", "efficiency": 0.1, "median_seconds": 9.0},
    ]
    return history.entry(
        {
            "about": about,
            "steps": steps,
            "calculator": {"seconds": {"float32": 0.006}},
            "search": {"count": 1000, "found": {"random": {"exact": 39, "approximate": 1.0, "recall": 0.99}}},
            "startup": {"cpu_seconds": {"--version": 0.04}},
            "simulation": {"cpu_seconds": {"IR and Raman": 0.8}},
        }
    )


def test_a_run_leaves_every_figure_with_its_unit():
    assert run(0.9)["figures"] == {
        STEP: {"value": 1.235, "unit": "s", "efficiency": 0.9},
        "calculator float32": {"value": 0.006, "unit": "s"},
        "search 1000 random exact": {"value": 39.0, "unit": "ms"},
        "search 1000 random approximate": {"value": 1.0, "unit": "ms"},
        "search 1000 random recall": {"value": 0.99, "unit": ""},
        "startup --version": {"value": 0.04, "unit": "CPU-s"},
        "simulation IR and Raman": {"value": 0.8, "unit": "CPU-s"},
    }


def test_a_loss_of_more_than_a_tenth_is_named():
    (found,) = history.regressions([run(0.8), run(1.0, date="2026-11-01"), run(0.9)], run(0.89))
    assert found == (
        "qm9-stage1 128 reference 32-true tuned: efficiency 0.89, 11% less than 1.00 (2026-11-01, abcdefg)"
    )
    assert history.regressions([run(1.0)], run(0.9001)) == []
    assert history.regressions([], run(0.1)) == []
    assert history.regressions([run(1.0)], run(0.1, quick=True)) == []


def test_more_seconds_at_the_same_efficiency_are_no_regression():
    slower = run(1.0)
    for figure in slower["figures"].values():
        figure["value"] *= 3
    assert history.regressions([run(1.0)], slower) == []


@pytest.mark.parametrize("other", [{"load": "3.0"}, {"cpu": "another"}, {"quick": True}, {"load": "unknown"}])
def test_runs_that_are_not_comparable_do_not_count(other):
    assert history.regressions([run(2.0, **other)], run(0.9)) == []


def test_only_recent_runs_count():
    earlier = [run(2.0), *[run(0.9)] * history.RECENT]
    assert history.regressions(earlier, run(0.89)) == []
    assert history.regressions(earlier[:-1], run(0.89))


def test_a_history_grows_by_lines(tmp_path):
    path = tmp_path / history.FILE
    assert history.read(path) == []
    runs = [run(0.9), run(0.8, load="2.5")]
    for each in runs:
        history.append(path, each)
    assert history.read(path) == runs
    assert [json.loads(line)["is_idle"] for line in path.read_text().splitlines()] == [True, False]


@pytest.mark.parametrize(
    "line",
    [
        b'{"date": 1}',
        b'{"date": "2026-11',
        b"",
        b"\xff\xfe",
        b"[]",
        json.dumps(run(0.9) | {"figures": [1]}).encode(),
        json.dumps(run(0.9) | {"figures": {STEP: {"efficiency": "none"}}}).encode(),
    ],
)
def test_a_damaged_line_is_named(line, tmp_path):
    path = tmp_path / history.FILE
    history.append(path, run(0.9))
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(DamagedError, match=r"history\.jsonl, line 2: .*remove it"):
        history.read(path)


def test_a_damaged_history_ends_the_command_before_it_measures(tmp_path):
    (tmp_path / history.FILE).write_text("half a li")
    command = [sys.executable, "-m", "benchmarks", "--quick", "--out", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert "history.jsonl, line 1" in line
    assert [each.name for each in tmp_path.iterdir()] == [history.FILE]


def test_a_measurement_that_fails_leaves_the_others(tmp_path, monkeypatch):
    def fail(module, options):
        raise program.Failed(f"{module}: exit code 1")

    monkeypatch.setattr(program, "run", fail)
    results = program.measure(tmp_path, 2, quick=True, plots=True)
    assert len(results["failed"]) == len(program.plan(quick=True)) + 7
    assert history.entry(results)["figures"] == {}
    text = report.page(results | {"regressions": []})
    assert "**Failed**: `search: exit code 1`" in text
    assert "## Search" not in text
