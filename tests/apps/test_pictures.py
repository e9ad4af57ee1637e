"""`--plot` of the commands, what notebooks show, and that all figures have one style and one writer."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.image import imread

import molspectra as ms
from molspectra.apps.cli import main
from molspectra.errors import NotFoundError
from molspectra.reporting.evaluation_figure import PANELS, evaluation_figure
from molspectra.search.hits import NOTEBOOK, Hits
from molspectra.search.mixture import Mixture
from molspectra.simulation.api import Simulation
from molspectra.spectra.plots import DRAWN, spectra_figure
from molspectra.spectra.spectrum import LineSpectrum

SOURCE = Path(ms.__file__).parent
LINES = {
    "ir": LineSpectrum("ir", [1000.0, 1700.0], [10.0, 40.0], "made up"),
    "raman": LineSpectrum("raman", [900.0], [5.0], "made up"),
}


def made(name="acetone", lines=LINES):
    return Simulation(ms.from_smiles("CC(C)=O", name=name), dict(lines))


def test_the_peak_stands_where_the_line_is():
    spectra = made().spectra
    drawn = spectra_figure([("acetone", spectra)], 1)
    infrared, raman = drawn.axes
    assert infrared.get_title("left") == "acetone"
    assert raman.get_title("right").startswith("Raman")
    for panel, peak in ((infrared, 1700.0), (raman, 900.0)):
        (curve,) = panel.lines
        assert curve.get_xdata()[np.argmax(curve.get_ydata())] == peak
    (sticks,) = (each for each in infrared.collections if isinstance(each, LineCollection))
    assert [segment[0, 0] for segment in sticks.get_segments()] == [1000.0, 1700.0]
    assert infrared.get_xlim() == (4000.0, 500.0)
    assert infrared.get_xlabel().endswith("cm⁻¹")


def test_the_first_molecules_are_drawn_and_the_figure_says_so():
    count = DRAWN + 3
    drawn = spectra_figure(((f"m{number}", made().spectra) for number in range(count)), count, "level $x$")
    assert len(drawn.axes) == 2 * DRAWN
    assert drawn.axes[-2].get_title("left") == f"m{DRAWN - 1}"
    assert f"the first {DRAWN} of {count} molecules" in drawn.get_suptitle()
    assert "level $x$" in drawn.get_suptitle()


def test_spectra_and_simulations_show_themselves():
    for one in (LINES["ir"], LINES["ir"].broadened()):
        assert imread(io.BytesIO(one._repr_png_())).ndim == 3
    text = made('<img src="x">')._repr_html_()
    assert text.count("<img") == 1
    assert "&lt;img" in text
    data = base64.b64decode(re.search(r"base64,([^\"]+)", text)[1])
    assert imread(io.BytesIO(data)).ndim == 3
    bare = made(lines={})._repr_html_()
    assert "<svg" in bare
    assert "<img" not in bare


def test_answers_show_themselves():
    import pyarrow as pa

    count = NOTEBOOK + 5
    columns = {
        "sample": ["<b>"] * count,
        "rank": list(range(1, count + 1)),
        "identity": ["x"] * count,
        "name": ["<script>"] * count,
        "smiles": ["CO", "no SMILES", None, *["C"] * (count - 3)],
        "formula": ["CH4O"] * count,
        "score": [0.5] * count,
        "confidence": [None] * count,
        "group": [1] * count,
    }
    text = Hits(pa.table(columns), {"cosine": 1.0}, count, count)._repr_html_()
    assert text.count("<tr>") == NOTEBOOK + 1
    assert text.count("<svg") == NOTEBOOK - 2
    assert "<script" not in text
    assert "<b>" not in text
    assert f"first {NOTEBOOK} of {count}" in text
    for name in ("sample", "score", "confidence", "group"):
        del columns[name]
    columns |= {"share": [0.25] * count, "uncertainty": [0.125] * count, "residual": [0.5] * count}
    text = Mixture(pa.table(columns), {"shape": 1.0}, count, count)._repr_html_()
    assert "0.250" in text
    assert "0.125" in text


@pytest.mark.parametrize(
    "command",
    [
        ["simulate", "--smiles", "[CH3]", "--out", "x.arrow"],
        ["evaluate", "nothing"],
        ["evaluate", "nothing", "--probes"],
        ["predict-spectrum", "--smiles", "C", "--model", "nothing"],
    ],
)
def test_a_figure_that_cannot_be_written_is_refused_first(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.png").write_bytes(b"mine")
    for name, told in (
        ("there.png", "exists already"),
        ("x.bmp", ".svg"),
        ("missing/x.png", "does not exist"),
    ):
        assert main([*command, "--plot", name]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert told in line
    assert (tmp_path / "there.png").read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["there.png"]


def test_simulate_draws_what_it_computes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["simulate", "--smiles", "O", "--modalities", "ir", "--processes", "1", "--quiet"]
    assert main([*command, "--out", "x.svg", "--plot", "x.svg"]) == 2
    assert "name the same file" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert main([*command, "--out", "x.arrow", "--plot", "x.svg"]) == 0
    assert "figure of 1 molecules in x.svg" in capsys.readouterr().out
    first = (tmp_path / "x.svg").read_bytes()
    assert b"Date" not in first
    assert main([*command, "--out", "x.arrow", "--plot", "x.svg", "--overwrite"]) == 0
    assert (tmp_path / "x.svg").read_bytes() == first


def test_predictions_of_a_run_are_drawn_against_the_computed(runs, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["evaluate", str(runs["gap-scratch-0"]), "--out", str(out), "--plot", str(out) + ".png"]
    assert main(command) == 0
    assert f"figure of the tables: {out}.png" in capsys.readouterr().out
    assert main(command) == 2
    assert main([*command, "--overwrite"]) == 0
    result = json.loads((out / "evaluation.json").read_text())
    parity, errors = evaluation_figure(result, out).axes
    points = parity.collections[0].get_offsets()
    assert len(points) == result["count"]
    assert np.abs(points[:, 1] - points[:, 0]).mean() == pytest.approx(result["mae"])
    assert "MAE" in parity.get_title("left")
    assert parity.get_xlabel() == "computed [eV]"
    (share,) = errors.lines[0].get_xdata()
    assert share == pytest.approx(result["mae"] / result["median_predictor_mae"])


def test_every_target_has_its_own_predictions(tmp_path):
    names = [f"t{number}" for number in range(PANELS + 1)]
    head = ",".join(f"computed {name},predicted {name}" for name in names)
    rows = "\n".join(
        ",".join(["0", "x", *(f"{number},{number + row}" for number in range(len(names)))]) for row in (1, 2)
    )
    (tmp_path / "predictions-val.csv").write_text(f"row,identity,{head}\n{rows}\n")
    one = {"unit": "eV", "mae": 1.5, "median_predictor_mae": None}
    result = {"target": "t0", **one, "targets": dict.fromkeys(names, one)}
    drawn = evaluation_figure(result, tmp_path, "val")
    assert len(drawn.axes) == PANELS
    assert drawn.axes[5].collections[0].get_offsets().tolist() == [[5, 6], [5, 7]]
    assert drawn.get_suptitle() == f"the first {PANELS} of {PANELS + 1} targets"


@pytest.mark.parametrize("name", ["stage1", "stage2"])
def test_losses_and_retrieval_of_a_pre_trained_run(name, runs, tmp_path):
    out = tmp_path / "out"
    assert main(["evaluate", str(runs[name]), "--out", str(out), "--plot", str(out) + ".svg"]) == 0
    result = json.loads((out / "evaluation.json").read_text())
    losses, *recalls = evaluation_figure(result, out).axes
    labels = [label.get_text() for label in losses.get_yticklabels()]
    shares = dict(zip(labels, losses.lines[0].get_xdata(), strict=True))
    for loss, share in shares.items():
        assert share == pytest.approx(result["losses"][loss] / result["no_skill"][loss])
    assert len(recalls) == (2 if name == "stage2" else 0)
    for axes, part in zip(recalls, (None, "isomers"), strict=False):
        *curves, chance = axes.lines
        assert len({line.get_marker() for line in curves}) == len({line.get_color() for line in curves}) == 7
        for line in curves:
            found = result["retrieval"]["subsets"][line.get_label()]
            wanted = found if part is None else found[part]
            assert line.get_ydata().tolist() == list(wanted["recall"].values())
        assert chance.get_linestyle() == "--"


def test_representations_are_drawn_as_they_are_printed(runs, tmp_path):
    pytest.importorskip("sklearn")
    command = ["evaluate", str(runs["stage2"]), "--alignment", "--out", str(tmp_path / "out")]
    assert main([*command, "--plot", str(tmp_path / "x.pdf")]) == 0
    assert (tmp_path / "x.pdf").read_bytes().startswith(b"%PDF")


def test_nothing_to_draw_is_told(tmp_path):
    with pytest.raises(NotFoundError, match="--plot"):
        evaluation_figure({"losses": {}, "no_skill": {}}, tmp_path)


def test_there_is_one_style_and_one_writer_of_figures():
    texts = {path.relative_to(SOURCE).as_posix(): path.read_text("utf-8") for path in SOURCE.rglob("*.py")}
    assert [name for name, text in texts.items() if "rcParams" in text] == ["spectra/style.py"]
    savers = {name for name, text in texts.items() if ".savefig(" in text}
    assert savers == {"spectra/style.py", "reporting/canvas.py"}
    assert not [
        name for name, text in texts.items() if "pyplot" in text and "import matplotlib.pyplot" in text
    ]
