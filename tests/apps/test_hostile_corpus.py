"""Hostile files at their commands, within limits: one line that says why, or a harmless result."""

import json
import subprocess
import sys
from pathlib import Path

import hostile_files
import pytest
from hypothesis import settings

HARMLESS = {
    "embed-xyz-count_separators", "index-xyz-quotes", "skip-xyz-backslashes", "embed-xyz-equals",
    "extxyz-xyz-braces", "predict-xyz-columns", "extxyz-xyz-fields", "index-csv-cells", "skip-csv-number",
    "embed-csv-underscore", "embed-arrow-message", "report-metrics.csv-keys",
    "report-metrics.csv-nul", "report-metrics.csv-number", "search-library-files",
}  # fmt: skip
"""Files that waste time at most: what is odd in them is not asked for, and the rest is read."""

FOUND = {
    "embed-smi-clique", "skip-xyz-atoms", "index-sdf-title", "search-txt-header", "read-txt-falling",
    "read-txt-fields", "settings-batch_size", "settings-steps", "report-metrics.csv-nested",
    "search-library-typical", "simulate-journal-nested", "pretrain-yaml-value_long",
}  # fmt: skip
"""Files that did harm once."""

SUITE = [*FOUND, *(name for number, name in enumerate(hostile_files.CASES) if number % 3 == 0)]
"""What there is time for on each run; the long profile (see CONTRIBUTING.md) takes every case."""

LONGEST = 2_000
"""Characters of a message."""


@pytest.fixture(scope="module")
def results(use_runs, tmp_path_factory):
    """What became of each case, by name."""
    script, folder = hostile_files.__file__, tmp_path_factory.mktemp("hostile")
    names = list(hostile_files.CASES if settings().max_examples > 100 else dict.fromkeys(SUITE))
    command = [sys.executable, script, str(folder), str(use_runs["gap"].parent), *names]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = {result["name"]: result for result in map(json.loads, done.stdout.splitlines())}
    assert found.keys() == set(names)
    return found


def fault(result):
    """Return what is wrong with a result, None where nothing is."""
    said = result["said"].splitlines()
    expected = 0 if result["name"] in HARMLESS else 2
    if result["code"] != expected:
        return f"code {result['code']} after {result['seconds']} s: {said[-1:]}"
    if result["outside"]:
        return f"wrote {result['outside']}"
    if any(not line.isprintable() for line in said):
        return "control characters"
    if expected == 2 and (not said or not all(line.startswith("molspectra: ") for line in said)):
        return f"{said[-3:]}"
    if expected == 2 and (len(said) > 2 or result["length"] > LONGEST or "error: " not in said[-1]):
        return f"{len(said)} lines, {result['length']} characters"
    return None


def test_every_file_ends_in_one_line_within_the_limits(results):
    assert len(results) >= 150
    faults = {name: fault(result) for name, result in results.items()}
    assert not {name: found for name, found in faults.items() if found is not None}


def test_what_was_refused_left_no_output(results):
    outputs = {"out.csv", "out.arrow", "page.html"}
    assert not {
        name: result["left"]
        for name, result in results.items()
        if result["code"] == 2 and outputs & set(result["left"])
    }


def test_the_limits_hold(tmp_path, monkeypatch):
    """Without them, the test above would say nothing."""
    code = (
        "import hostile_files, sys, pathlib\n"
        "hostile_files.run = lambda words: eval(words[0]) and 0\n"
        "hostile_files.limited([sys.argv[1]], pathlib.Path('output'))"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(hostile_files.__file__).parent), prepend=":")
    done = subprocess.run([sys.executable, "-c", code, "bytearray(1_200_000_000)"], check=False)
    assert done.returncode == 99
    assert "MemoryError" in (tmp_path / "output").read_text()
