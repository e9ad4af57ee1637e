import io

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread

from molspectra.evaluation.ranking import RankFigures, SizedRecall
from molspectra.evaluation.reconstruct import ReconstructedSpectrum
from molspectra.evaluation.representation import GALLERIES, METHODS
from molspectra.reporting import canvas, figures
from molspectra.reporting.content import (
    AlignmentLine,
    Arm,
    Curve,
    Depicted,
    GalleryLine,
    ProbeLine,
    ReconstructedMolecule,
    Representation,
    ResultTable,
    RetrievalResult,
    Score,
)
from molspectra.reporting.drawing import draw
from molspectra.spectra import style
from molspectra.spectra.modality import IR, UV_VIS


def spectrum(kind, seed=0):
    generator = np.random.default_rng(seed)
    mask = generator.random(kind.patches) < 0.15
    values = generator.random(kind.points).astype(np.float32)
    return ReconstructedSpectrum(kind, values, mask, np.ones((int(mask.sum()), kind.patch), np.float32))


def arm(key, offset):
    generator = np.random.default_rng(1)
    scores = []
    for seed in (0, 1):
        target = generator.random(30)
        prediction = target + offset * generator.standard_normal(30)
        mae = float(np.abs(target - prediction).mean())
        scores.append(Score(seed, mae, mae, 0.5, tuple(target), tuple(prediction)))
    return Arm(key, f"from {key}", tuple(scores))


def curve(panel, key, part, seed):
    values = tuple(float(1 / (step + 1)) for step in range(20))
    return Curve("finetuning", panel, key, f"from {key}", part, seed, tuple(range(20)), values)


TABLE = ResultTable(
    "gap", "eV", "test", 30, 100, tuple(arm(key, 0.1) for key in ("scratch", "stage1", "x$y"))
)
TESTS = Representation(
    "run", "store", 9, 0, "",
    probes=(ProbeLine("gap", "eV", "sum", False, 20, 9, {"linear": (0.1, 0.9), "neighbours": (0.2, None)}),),
    galleries=tuple(
        GalleryLine("embedding", kind, "ir", SizedRecall(size, 9, 50.0, {1: 0.5, 10: 1.0}, {1: 0.1, 10: 1.0}))
        for kind in GALLERIES
        for size in (10, None)
    ),
    alignment=(AlignmentLine("ir", 9, 1.0, 2.0, -2.0, -3.0), AlignmentLine("raman", 9, 1.2, 2.0, -2.0, -3.0)),
)  # fmt: skip
FIGURES = {
    "curves": lambda: figures.learning_curves(
        [curve(p, k, part, 0) for p in ("a", "b") for k in ("stage1", "stage2") for part in ("train", "val")]
    ),
    "parity": lambda: figures.parity(TABLE),
    "errors": lambda: figures.errors_by_start(
        [(arm.key, arm.label, arm.mae) for arm in TABLE.arms], "gap", "eV"
    ),
    "reconstruction": lambda: figures.reconstruction(
        ReconstructedMolecule(
            Depicted("A"), "run", "why", {kind.name: spectrum(kind) for kind in (UV_VIS, IR)}
        )
    ),
    "probes": lambda: style.figure_of(figures.probes(TESTS)),
    "galleries": lambda: style.figure_of(figures.recall_by_size(TESTS, GALLERIES, METHODS)),
    "alignment": lambda: style.figure_of(figures.alignment(TESTS)),
    "recall": lambda: figures.recall_curve(
        RetrievalResult(
            "run $x$ 分子", "test", 60, ("test",), np.arange(1, 10),
            {"ir": (RankFigures(9, 60.0, {}, 0.1, 1.0, {}, 0.1), None)},
        )
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_figures_show_something(name):
    drawn = FIGURES[name]()
    pixels = imread(io.BytesIO(style.png(drawn, dpi=50)))[..., :3]
    inside = pixels[5:-5, 5:-5]
    assert (inside < 0.9).any(-1).mean() > 0.005  # ink
    assert np.ptp(inside.max(-1) - inside.min(-1)) > 0.2 or name == "recall"  # colour
    text = canvas.svg(drawn, "what it shows", "p1")
    assert text.startswith("<svg viewBox=")
    assert "<path" in text
    assert "currentColor" in text
    assert "http" not in text


def test_figures_leave_the_users_settings_alone_and_know_none():
    before = dict(mpl.rcParams)
    with mpl.rc_context({"font.size": 40, "axes.facecolor": "red"}):
        own = canvas.svg(FIGURES["errors"](), "x", "p")
        assert mpl.rcParams["font.size"] == 40
    assert dict(mpl.rcParams) == before
    assert own == canvas.svg(FIGURES["errors"](), "x", "p")


def test_colours_belong_to_starts_not_to_places():
    keys = ["stage2", "other", "scratch", "third"]
    assert style.colour_of("stage2", keys) == style.colour_of("stage2", ["stage2"])
    assert len({style.colour_of(key, keys) for key in keys}) == 4


def test_a_table_without_predictions_has_no_parity_plot():
    bare = ResultTable("gap", "eV", "test", 1, 1, (Arm("scratch", "x", (Score(0, 1.0, 1.0, None),)),))
    assert figures.parity(bare) is None


def test_many_points_are_drawn_as_pixels(monkeypatch):
    few = canvas.svg(figures.parity(TABLE), "x", "p")
    monkeypatch.setattr(figures, "MANY_POINTS", 10)
    many = canvas.svg(figures.parity(TABLE), "x", "p")
    assert "data:image/png;base64," in many
    assert many.count("<use") < few.count("<use") - 100


def test_error_points_are_the_scores():
    axes = FIGURES["errors"]().axes[0]
    points = [tuple(sorted(collection.get_offsets()[:, 0])) for collection in axes.collections]
    assert points == [tuple(sorted(arm.mae.values())) for arm in TABLE.arms]


def test_masked_windows_carry_the_predicted_patches():
    made = spectrum(IR)
    axes = figures.reconstruction(ReconstructedMolecule(Depicted("A"), "r", "w", {"ir": made})).axes[0]
    predicted = axes.lines[1:]
    assert len(predicted) == made.mask.sum()
    starts = [line.get_xdata()[0] for line in predicted]
    assert starts == [500.0 + 25 * patch for patch in np.flatnonzero(made.mask)]


def test_several_pictures_of_one_page_share_no_ids():
    drawn = FIGURES["errors"]()
    one, other = canvas.svg(drawn, "x", "p1"), canvas.svg(drawn, "x", "p2")
    assert one.replace('"p1-', '"p2-').replace("#p1-", "#p2-") == other
    assert 'id="p1-' in one


def test_molecules_are_drawn_with_their_name_escaped():
    text = draw("CC(=O)N", 'a"<b>', "p1")
    assert text is not None
    assert 'aria-label="a&quot;&lt;b&gt;"' in text
    assert "currentColor" in text
    assert "#FFFFFF" not in text


@pytest.mark.parametrize("smiles", [None, "", "not a molecule", "C1CC", "<script>"])
def test_what_cannot_be_drawn_is_left_out(smiles):
    assert draw(smiles, "x", "p1") is None


def test_more_rings_than_their_search_survives_are_not_drawn():
    assert draw("C1CC1" * 3, "x", "p1") is not None
    assert draw("C1CC1" * 301, "x", "p1") is None
