"""The commands as a user types them; slow ones on the smallest input that means something."""

import json
from pathlib import Path

import pytest

from molspectra.apps.cli import main
from molspectra.apps.demo import LIVE, SCALES, STARTS, table
from molspectra.apps.doctor import checks
from molspectra.data.store.store import Store


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a refused command prints."""
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("molspectra: error: ")]
    assert len(lines) == 1
    assert "Traceback" not in captured.err
    return lines[0]


def test_simulate_writes_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "water.arrow"
    arguments = [
        "--smiles",
        "O",
        "--modalities",
        "ir",
        "raman",
        "--out",
        str(out),
        "--processes",
        "1",
        "--quiet",
    ]
    assert main(["simulate", *arguments]) == 0
    store = Store(out)
    lines = store.spectrum(0, "ir")
    assert len(lines.position) == 3
    assert 1400 < lines.position[0] < 1700
    assert "GFN2-xTB" in lines.level
    assert store.metadata.properties["zpve"].unit == "eV"
    assert [path.name for path in tmp_path.iterdir()] == ["water.arrow"]
    printed = capsys.readouterr().out
    assert "km/mol" in printed
    assert "cm⁻¹" in printed

    assert "exists already" in refused(capsys, "simulate", *arguments)


def test_simulate_the_density_of_states_of_a_structure_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    structure = tmp_path / "hydrogen.xyz"
    structure.write_text("2\nhydrogen\nH 0 0 0\nH 0 0 0.9\n")
    out = tmp_path / "dos.arrow"
    options = ("--modalities", "dos", "--geometry", "given", "--processes", "1", "--quiet")
    assert main(["simulate", "--input", str(structure), "--out", str(out), *options]) == 0
    assert "dos_occupied: 1 lines, next to the gap -" in capsys.readouterr().out
    store = Store(out)
    assert store.metadata.modalities == ("dos_occupied", "dos_virtual")
    assert store.metadata.level == "as given"
    assert store.molecule(0).positions[1, 2] == pytest.approx(0.9, abs=1e-6)
    refusal = refused(
        capsys, "simulate", "--smiles", "C", "--out", str(tmp_path / "b"), "--geometry", "given"
    )
    assert "ir" in refusal
    assert not (tmp_path / "b").exists()


def test_simulate_lists_failures_and_keeps_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "some.arrow"
    arguments = [
        "--smiles",
        "O",
        "[CH3]",
        "--modalities",
        "ir",
        "--out",
        str(out),
        "--processes",
        "1",
        "--quiet",
    ]
    assert main(["simulate", *arguments]) == 1
    assert len(Store(out)) == 1
    assert "9 electrons" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--smiles", "C(", "--out", "x.arrow"], "C("),
        (["--smiles", "O", "--out", "missing/x.arrow"], "does not exist"),
        (["--smiles", "O", "--modalities", "raaman", "--out", "x.arrow"], "did you mean 'raman'"),
        (["--input", "nothing.sdf", "--out", "x.arrow"], "no such file"),
        (["--smiles", "O"], "--out"),
        (["--smiles", "O", "--ouput", "x.arrow", "--out", "y.arrow"], "did you mean --out"),
        (
            ["--smiles", "[CH3]", "--modalities", "ir", "--processes", "1", "--quiet", "--out", "x.arrow"],
            "none of the 1",
        ),
    ],
)
def test_simulate_refuses(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, "simulate", *arguments)
    assert not list(tmp_path.iterdir())


def test_report_and_evaluate_refuse_what_is_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert str(tmp_path) in refused(capsys, "evaluate", str(tmp_path))
    assert str(tmp_path) in refused(capsys, "report", str(tmp_path), "--out", str(tmp_path / "page.html"))
    assert not list(tmp_path.iterdir())


def test_demo_refuses_a_directory_with_other_things(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for extra in ([], ["--overwrite"]):
        assert "holds no demo" in refused(capsys, "demo", "--out", str(tmp_path), *extra)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_demo_refuses_another_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "demo.json").write_text(json.dumps({"scale": "full"}))
    assert "another scale" in refused(capsys, "demo", "--out", str(tmp_path), "--scale", "smoke")


def test_demo_scales_are_paired() -> None:
    for scale in SCALES.values():
        assert len(scale.seeds) >= 2
        assert 1 <= scale.molecules <= len(LIVE)


def test_demo_table_shows_every_seed_and_chance() -> None:
    summary = {
        "gap_mae_ev": {start: [0.5, 0.25] for start in STARTS},
        "retrieval_top1": 0.5,
        "retrieval_top5": 1.0,
        "gallery_size": 200,
        "wall_seconds": 61.4,
        "out": "runs/demo",
    }
    text = table(summary)
    assert text.count("mean 0.375   by seed 0.500  0.250") == 3
    assert "top 1 50.0%, top 5 100.0% (chance 0.5%, 2.5%)" in text


def test_doctor_finds_this_installation_sound() -> None:
    found = {check.name: check for check in checks()}
    assert not [check for check in found.values() if check.state == "failed"]
    assert "content hash agrees" in found["bundled data"].detail
