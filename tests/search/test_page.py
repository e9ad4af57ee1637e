"""The page and the figure that show why each answer, from explanations made by hand."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest

from molspectra.apps.cli import main
from molspectra.chem.molecule import Molecule
from molspectra.chem.smiles import from_smiles
from molspectra.errors import ExistsError, FormatError, ValueRangeError
from molspectra.search.bands import Band
from molspectra.search.explain import Explanation, GroupEvidence
from molspectra.search.figure import MOST, figure, spread, write_figure
from molspectra.search.hits import Hits
from molspectra.search.page import drawn_atoms, write_page
from molspectra.spectra.modality import IR, UV_VIS
from molspectra.spectra.spectrum import LineSpectrum

HOSTILE = '<script>alert("1")</script> & $x^2$ \u202e--> \x1b[2J'
ACETONE = from_smiles("CC(C)=O", name="acetone")
BANDS = (
    Band("matched", 2970.0, 0.13, 2960.0, 0.2, "C-H stretch 99 %", (0, 4)),
    Band("matched", 1738.0, 1.0, 1731.0, 1.0, "C=O stretch 82 %, C-C stretch 9 %", (1, 3)),
    Band("extra", 1435.0, 0.2, None, None, "", ()),
    Band("missing", None, None, 1400.0, 0.15, "H-C-H scissor 50 %", (0, 4, 5)),
)


def spectrum(places):
    values = LineSpectrum("ir", np.sort(places), np.ones(len(places))).broadened().values
    return values / values.max()


def explained(molecule=ACETONE, **changes):
    each = Explanation(
        1, molecule.name, molecule.smiles, molecule.formula, 0.91, 0.4, "ir", 0.98, molecule,
        IR.axis(), spectrum([2970.0, 1738, 1435]), spectrum([2960.0, 1731, 1400]), IR.axis() >= 600,
        BANDS, ((600.0, 1500.0, 0.42), (1500.0, 4000.0, 0.97)),
        (GroupEvidence("carbonyl", True, 1650, 1800, "supported", "a strong band at 1738"),
         GroupEvidence("hydroxyl", False, 3200, 3650, "contradicted", "no band")),
        ("a remark about acetone",),
    )  # fmt: skip
    return replace(each, **changes)


def answers(*names, smiles="CC(C)=O", **columns):
    count = len(names)
    plain = {"formula": "C3H6O", "mass": 58.04, "charge": 0, "score": 0.91, "confidence": None}
    table = {
        "rank": range(1, count + 1), "name": names, "smiles": [smiles] * count,
        **{key: [value] * count for key, value in plain.items()},
        "identity": ["CSCPPACGZOOCGX"] * count, "row": range(count), **columns,
    }  # fmt: skip
    return Hits(pa.table({key: pa.array(list(each)) for key, each in table.items()}), {"shape": 1.0}, 9, 9)


class Page(HTMLParser):
    """Tags, attributes and text of a page; checks that elements are closed in order."""

    def __init__(self, path):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_tells_why(tmp_path):
    path = tmp_path / "page.html"
    assert write_page(path, answers("acetone", "propanal"), [explained()], {"ir": "unknown.csv"}) == path
    page = Page(path)
    for told in ("unknown.csv", "propanal", "C=O stretch 82 %", "1738", "−7", "0.42", "carbonyl", "a remark",
                 "1500 to 600", "✓ supported", "✗ contradicted", "in the library"):  # fmt: skip
        assert told in page.text, told
    assert page.text.count("● matched") == 2
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    first = path.read_bytes()
    write_page(path, answers("acetone", "propanal"), [explained()], {"ir": "unknown.csv"}, overwrite=True)
    assert path.read_bytes() == first


def test_nothing_is_loaded_and_no_name_is_markup(tmp_path):
    path = tmp_path / "page.html"
    each = explained(
        name=HOSTILE,
        smiles=HOSTILE,
        formula=HOSTILE,
        remarks=(HOSTILE,),
        groups=(GroupEvidence(HOSTILE, True, 1, 2, "open", HOSTILE),),
        bands=(replace(BANDS[0], motion=HOSTILE),),
    )
    hits = answers(HOSTILE, smiles=HOSTILE, group=[HOSTILE])
    write_page(path, replace(hits, remarks=(HOSTILE,)), [each], {"ir": HOSTILE + ".csv"})
    page = Page(path)
    assert "script" not in page.tags
    assert page.text.count("alert(") >= 9
    assert "\x1b" not in page.text
    assert "\u202e" not in page.text
    linked = [value for name, value in page.attributes if name in ("src", "href", "xlink:href")]
    assert all(value.startswith("#") for value in linked)
    assert not any(name.startswith("on") for name, _ in page.attributes)
    write_figure(tmp_path / "figure.svg", [each])
    assert "script" not in {tag.tag for tag in ElementTree.parse(tmp_path / "figure.svg").iter()}


def test_moving_atoms_are_marked(tmp_path):
    path = tmp_path / "page.html"
    write_page(path, answers("acetone"), [explained()], {})
    cards = re.findall(r'<li class="card">.*?</li>', path.read_text(encoding="utf-8"), re.DOTALL)
    assert len(cards) == 3  # the extra band has no motion
    assert ["C=O" in card for card in cards] == [True, False, False]
    marks = [set(re.findall(r"<ellipse[^>]*class=.(atom-\d)", card)) for card in cards]
    assert marks == [{"atom-1", "atom-3"}, {"atom-0"}, {"atom-0"}]  # of hydrogens, the carbon
    styles = re.findall(r"style='([^']*fill:#E08A00[^']*)'", cards[0])
    assert len(styles) == 3  # two atoms and their bond
    assert all(style.count("fill-opacity:0.45") == style.count("fill-opacity") == 1 for style in styles)
    write_page(path, answers("acetone"), [explained(smiles="CCC")], {}, overwrite=True)
    assert "<ellipse" not in path.read_text(encoding="utf-8")
    assert "not marked" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("smiles", ["CC(C)=O", "c1ccccc1O", "C[N+](=O)[O-]", "[H][H]", "OC#CC1CC1"])
def test_a_structure_in_any_order_is_laid_over_its_drawing(smiles):
    molecule = from_smiles(smiles)
    expected = drawn_atoms(molecule, smiles)
    assert expected is not None
    order = np.random.default_rng(1).permutation(len(molecule))
    shuffled = Molecule(molecule.numbers[order], molecule.positions[order], smiles)
    found = drawn_atoms(shuffled, smiles)
    assert found is not None
    heavy = np.flatnonzero(shuffled.numbers > 1)
    names = [str(molecule.numbers[place]) for place in range(len(molecule))]
    assert [names[found[atom]] for atom in heavy] == [str(shuffled.numbers[atom]) for atom in heavy]
    distance = np.linalg.norm(shuffled.positions[:, None] - shuffled.positions, axis=-1)
    for atom in np.flatnonzero(shuffled.numbers == 1) if len(heavy) else ():
        assert found[atom] == found[heavy[distance[atom, heavy].argmin()]]
    assert drawn_atoms(molecule, "CCCCCC") is None
    assert drawn_atoms(molecule, "C(") is None


def test_without_answers_motions_or_structures(tmp_path):
    hits = answers()
    write_page(tmp_path / "none.html", hits, [], {"ir": "a.csv"})
    assert "No molecule" in Page(tmp_path / "none.html").text
    plain = tuple(replace(band, motion="", atoms=()) for band in BANDS)
    for number, each in enumerate(
        (
            explained(bands=plain),
            explained(bands=(), regions=(), groups=()),
            explained(name=None, smiles=None),
        )
    ):
        write_page(tmp_path / f"{number}.html", answers("acetone", smiles=None), [each], {"ir": "a.csv"})
        assert 'class="card"' not in (tmp_path / f"{number}.html").read_text(encoding="utf-8")
    assert not figure([]).axes
    with pytest.raises(ValueRangeError, match=str(MOST)):
        figure([explained()] * (MOST + 1))


def test_the_group_of_answers_has_a_column(tmp_path):
    write_page(tmp_path / "page.html", answers("a", "b", group=["ketones", None]), [], {})
    assert "ketones" in Page(tmp_path / "page.html").text


def test_labels_do_not_overlap():
    many = tuple(
        Band("matched", 1700.0 + 3 * n, 0.3 + 0.01 * n, 1690.0 + 3 * n, 0.5, f"C{n}-H stretch 40 %", ())
        for n in range(30)
    )
    few = tuple(Band("missing", None, None, 610.0 + 2 * n, 0.5, "bend", ()) for n in range(6))
    drawn = figure([explained(bands=many + few)])
    drawn.canvas.draw()
    axes = drawn.axes[0]
    boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
    assert len(boxes) == 9 + 6
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])
    frame = axes.get_window_extent().padded(2)
    assert all(frame.y0 <= box.y0 and box.y1 <= frame.y1 for box in boxes)
    assert axes.get_xlim()[0] > axes.get_xlim()[1]


def test_other_spectra_have_their_own_axis(tmp_path):
    axis = UV_VIS.axis()
    values = np.exp(-((axis - 4.5) ** 2))
    band = Band("matched", 4.5, 1.0, 4.75, 1.0, "", ())
    each = explained(
        modality="uv_vis", axis=axis, query=values, candidate=values, known=axis > 2,
        bands=(band,), groups=(), regions=((2.0, 8.0, 0.5),),
    )  # fmt: skip
    axes = figure([each]).axes[0]
    assert axes.get_xlim()[0] < axes.get_xlim()[1]
    assert UV_VIS.unit in axes.get_xlabel()
    write_page(tmp_path / "page.html", answers("acetone"), [explained(), each], {"ir": "a", "uv_vis": "b"})
    text = Page(tmp_path / "page.html").text
    assert "+0.25" in text
    assert f"1. acetone, {UV_VIS.title}" in text


def test_labels_move_no_further_than_they_must():
    np.testing.assert_allclose(spread([10, 20, 30], 5, 0, 100), [10, 20, 30])
    np.testing.assert_allclose(spread([50, 50, 50], 10, 0, 100), [40, 50, 60])
    np.testing.assert_allclose(spread([1, 2, 99], 10, 5, 95), [5, 15, 95])
    assert spread([], 10, 0, 1).size == 0


@pytest.mark.parametrize(("suffix", "begins"), [("png", b"\x89PNG"), ("SVG", b"<?xml"), ("pdf", b"%PDF")])
def test_figures_of_every_kind(tmp_path, suffix, begins):
    path = tmp_path / f"figure.{suffix}"
    write_figure(path, [explained()])
    first = path.read_bytes()
    assert first.startswith(begins)
    write_figure(path, [explained()], overwrite=True)
    assert path.read_bytes() == first
    with pytest.raises(ExistsError):
        write_figure(path, [explained()])
    with pytest.raises(FormatError, match=r"\.png"):
        write_figure(tmp_path / "figure.bmp", [explained()])
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


REFUSED = {
    "exists": (["--report", "there.html"], "exists already"),
    "suffix": (["--report", "page.txt"], ".html"),
    "plot": (["--plot", "figure.bmp"], ".svg"),
    "bands": (["--bands", "bands.json"], ".csv"),
    "folder": (["--plot", "none/figure.png"], "does not exist"),
    "same": (["--out", "a.csv", "--bands", "a.csv"], "same file"),
    "zero": (["--report", "page.html", "--explain", "0"], "--explain"),
    "alone": (["--explain", "2"], "--report"),
    "level": (["--level", "dft"], "--rerank"),
    "top": (["--rerank", "2", "--top", "0"], "--top"),
    "ways": (["--rerank", "2", "--by", "embedding"], "embedding"),
    "many": (["--plot", "figure.png", "--explain", "26"], "at most 25"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_files_are_refused_before_anything_is_read(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.html").write_text("mine")
    arguments, said = REFUSED[case]
    assert main(["search", "no-index", "--ir", "no-file.csv", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert [path.name for path in tmp_path.iterdir()] == ["there.html"]
    assert (tmp_path / "there.html").read_text() == "mine"


FILES = ["--report", "page.html", "--plot", "figure.png", "--bands", "bands.csv"]


def test_a_bad_spectrum_leaves_no_file(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.csv").write_text("cm-1,absorbance\n500,1\n600,nan\n")
    assert main(["search", str(made), "--ir", "bad.csv", *FILES]) == 2
    assert "line 3" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]


def test_the_command_writes_page_figure_and_bands(made, small, columns_of, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    columns_of("sample.csv", small.spectrum(4, "ir").broadened())
    command = ["search", str(made), "--ir", "sample.csv", "--explain", "1"]
    assert main([*command, *FILES]) == 0, capsys.readouterr().err
    page = Page(tmp_path / "page.html")
    assert "sample.csv" in page.text
    assert page.text.count("● matched") >= 1
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "bands.csv").read_text(encoding="utf-8").count("\n") > 1
    assert main([*command, *FILES]) == 2
    assert main([*command, *FILES, "--overwrite", "--contains", "U"]) == 0
    assert "No molecule" in Page(tmp_path / "page.html").text
