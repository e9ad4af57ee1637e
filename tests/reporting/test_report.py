import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from molspectra.errors import FormatError, InputError, MismatchError, NotFoundError, WriteError
from molspectra.evaluation.evaluate import evaluate
from molspectra.evaluation.ranking import RankFigures
from molspectra.reporting.collect import collect_report
from molspectra.reporting.content import (
    Candidate,
    Depicted,
    ReportContent,
    RetrievalResult,
    RunFacts,
    Search,
    SimulatedMolecule,
)
from molspectra.reporting.report import write_report
from molspectra.training.record import read_json, write_json

VOID = {"meta", "br", "img", "hr", "link", "input"}
EVIL = '<script>alert("x")</script>\'"&$x^{$<img src=https://example.org/a.png onerror=alert(1)>'


class Outline(HTMLParser):
    """Checks that elements nest, and notes what a test wants to know of them."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.ids, self.links, self.texts = [], [], [], [], []
        self.pictures = []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        assert len(values) == len(attrs), f"an attribute of {tag} stands there twice"
        self.tags.append((tag, values))
        self.ids += [values["id"]] if "id" in values else []
        for key in ("src", "href", "xlink:href"):
            self.links += [values[key]] if key in values else []
        if tag == "svg":
            self.pictures.append(values)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))


def outline(path):
    text = path.read_text(encoding="utf-8")
    parser = Outline()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return text, parser


def check_self_contained(text, parser):
    assert all(link.startswith(("#", "data:")) for link in parser.links)
    assert not re.search(r"url\((?!#|data:)", text)
    assert "@import" not in text
    assert not {tag for tag, _ in parser.tags} & {
        "script",
        "iframe",
        "object",
        "embed",
        "link",
        "base",
        "form",
    }
    assert not [key for _, values in parser.tags for key in values if key.startswith("on")]
    assert len(set(parser.ids)) == len(parser.ids)
    assert {link[1:] for link in parser.links if link.startswith("#")} <= set(parser.ids)


@pytest.fixture(scope="module")
def evaluated(runs):
    for directory in runs.values():
        evaluate(directory)
    return runs


@pytest.fixture(scope="module")
def content(evaluated):
    return collect_report(list(evaluated.values()), "Tiny report")


@pytest.fixture(scope="module")
def written(content, tmp_path_factory):
    """The report of all tiny runs."""
    return write_report(tmp_path_factory.mktemp("page") / "new" / "report.html", content)


def test_runs_of_all_stages_become_one_report(content, written):
    text, parser = outline(written)
    check_self_contained(text, parser)
    headings = [data for tag, data in parser.texts if tag == "h2"]
    assert headings == [
        "What was run",
        "Results",
        "Learning curves",
        "Predicted against computed",
        "Pre-training losses",
        "Spectra with masked patches",
        "Finding molecules by spectra",
        "How to read this, and its limits",
    ]
    assert parser.pictures
    assert all(picture["role"] == "img" and picture["aria-label"] for picture in parser.pictures)
    captions = sum(tag == "caption" for tag, _ in parser.tags)
    assert captions == sum(tag == "table" for tag, _ in parser.tags) > 0
    assert content.runs[0].data_hash in text
    for mae in content.tables[0].arms[0].mae.values():
        assert f"{mae:.3f}" in text
    assert "one pre-training run (seed 0) served all 2 seeds" in text


def test_the_same_content_gives_the_same_bytes(content, tmp_path):
    tables = ReportContent(tables=content.tables, retrievals=content.retrievals)
    one, other = (write_report(tmp_path / name, tables).read_bytes() for name in ("a.html", "b.html"))
    assert one == other


def test_fine_tuning_runs_are_paired_in_one_table(content, evaluated):
    (table,) = content.tables
    assert [arm.key for arm in table.arms] == ["scratch", "stage1", "stage2"]
    assert (table.target, table.unit, table.part) == ("gap", "eV", "test")
    for arm in table.arms:
        for seed in (0, 1):
            evaluation = read_json(evaluated[f"gap-{arm.key}-{seed}"] / "evaluation.json")
            assert arm.mae[seed] == evaluation["mae"]
            score = next(score for score in arm.scores if score.seed == seed)
            assert np.abs(np.subtract(score.target, score.prediction)).mean() == pytest.approx(
                evaluation["mae"]
            )
    assert table.settings == ""


def test_everything_else_is_collected(content, evaluated):
    assert [run.start for run in content.runs[:3]] == ["scratch", "stage1", "scratch"]
    assert {curve.group for curve in content.curves} == {"pretraining", "finetuning"}
    assert {curve.key for curve in content.curves} == {"scratch", "stage1", "stage2"}
    assert {line.name for line in content.losses} >= {"denoising", "alignment"}
    (retrieval,) = content.retrievals
    main, isomers = retrieval.whole
    assert list(retrieval.subsets)[-1] == "uv_vis + ir + raman"
    assert retrieval.ranks.shape == (main.queries,)
    assert main.recall[1] == (retrieval.ranks == 1).mean()
    assert isomers.candidates < main.candidates
    assert len(content.reconstructions) == 3
    recorded = read_json(evaluated["stage2"] / "evaluation.json")["reconstructed"]
    assert recorded[0]["error"] <= recorded[2]["error"]
    shown = [spectrum.error for spectrum in content.reconstructions[0].spectra.values()]
    assert recorded[0]["error"] == pytest.approx(np.mean(shown), rel=1e-3)
    (note,) = content.notes
    assert note == (
        "No test molecule of stage2, gap-stage1-0, gap-stage2-0, gap-stage1-1, gap-stage2-1 was seen in "
        "pre-training."
    )
    assert content.levels["gap"] == "synthetic"


def test_ancestors_need_not_be_given(evaluated):
    collected = collect_report([evaluated["gap-stage2-0"], evaluated["gap-scratch-0"]])
    assert [arm.key for arm in collected.tables[0].arms] == ["scratch", "stage2"]
    assert collected.retrievals == ()


def copied(evaluated, name, target):
    """A copy of a run to be changed."""
    shutil.copytree(evaluated[name], target)
    return target


def edit(path, change):
    """Change a JSON file."""
    values = read_json(path)
    change(values)
    write_json(path, values)


def test_runs_with_other_settings_stand_in_a_table_of_their_own(evaluated, tmp_path):
    longer = copied(evaluated, "gap-scratch-0", tmp_path / "longer")
    edit(longer / "config.json", lambda values: values["loop"].update(steps=99))
    collected = collect_report([evaluated["gap-scratch-0"], longer, evaluated["gap-stage1-0"]])
    assert [table.settings for table in collected.tables] == ["loop.steps 4", "loop.steps 99"]
    assert [arm.key for arm in collected.tables[0].arms] == ["scratch", "stage1"]
    text = write_report(tmp_path / "r.html", ReportContent(tables=collected.tables)).read_text()
    assert "gap (loop.steps 99)" in text


def test_starts_by_different_recipes_are_told_apart(evaluated, tmp_path):
    other = copied(evaluated, "stage1", tmp_path / "longer")
    edit(other / "config.json", lambda values: values["loop"].update(steps=99))
    tuned = copied(evaluated, "gap-stage1-0", tmp_path / "tuned")
    edit(tuned / "config.json", lambda values: values.update(init=str(other)))
    collected = collect_report([evaluated["gap-stage1-0"], tuned])
    assert [arm.key for arm in collected.tables[0].arms] == ["stage1 (longer)", "stage1 (stage1)"]
    assert {curve.key for curve in collected.curves} == {"stage1 (longer)", "stage1 (stage1)"}


def test_pretraining_repeated_for_every_seed_is_one_arm(evaluated, tmp_path):
    second = copied(evaluated, "stage1", tmp_path / "stage1-seed1")
    edit(second / "config.json", lambda values: values["loop"].update(seed=1))
    tuned = copied(evaluated, "gap-stage1-1", tmp_path / "tuned")
    edit(tuned / "config.json", lambda values: values.update(init=str(second)))
    (arm,) = collect_report([evaluated["gap-stage1-0"], tuned]).tables[0].arms
    assert arm.key == "stage1"
    assert arm.pretraining == "pre-training was repeated for each of the 2 seeds."


def test_a_run_given_twice_is_refused(evaluated, tmp_path):
    twin = copied(evaluated, "gap-scratch-0", tmp_path / "twin")
    with pytest.raises(MismatchError, match=r"gap-scratch-0 and .*twin: .* seed"):
        collect_report([evaluated["gap-scratch-0"], twin])
    collected = collect_report([evaluated["gap-scratch-0"], evaluated["gap-scratch-0"]])
    assert len(collected.runs) == 1


def test_what_a_reader_must_know_is_noted(evaluated, tmp_path):
    moved = copied(evaluated, "gap-stage2-0", tmp_path / "moved")
    (moved / "evaluation.json").unlink()
    edit(moved / "record.json", lambda values: values.update(finished=False, commit="abc"))
    edit(moved / "config.json", lambda values: values["data"].update(split_seed=5))
    with (moved / "metrics.csv").open("a") as file:
        file.write("9,train/loss\n\n")
    collected = collect_report([moved, evaluated["stage1"]])
    notes = " ".join(collected.notes)
    assert "moved is not finished" in notes
    assert "moved, metrics.csv: 1 line cannot be read" in notes
    assert notes.count("metrics.csv") == 1
    assert f"molspectra evaluate {moved}" in notes
    assert "may have been seen in pre-training" in notes
    assert "different versions of the code" in notes
    assert collected.tables == ()


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("evaluation.json", "{}"),
        ("evaluation.json", "[1]"),
        ("evaluation.json", "nonsense"),
        ("evaluation.json", '{"data": {"hash": 1}}'),
        ("retrieval.csv", "row,identity\n"),
        ("reconstruction.safetensors", "x"),
        ("record.json", "{}"),
        ("config.json", '{"nonsense": 1}'),
    ],
)
def test_damaged_results_are_one_clear_line(evaluated, tmp_path, name, damage):
    run = copied(evaluated, "stage2", tmp_path / "run")
    (run / name).write_text(damage)
    with pytest.raises(InputError, match="run") as caught:
        collect_report([run])
    assert "\n" not in str(caught.value)


def test_damaged_predictions_are_one_clear_line(evaluated, tmp_path):
    run = copied(evaluated, "gap-scratch-0", tmp_path / "run")
    (run / "predictions.csv").write_text("row,computed\n1,2\n")
    with pytest.raises(FormatError, match=r"predictions\.csv"):
        collect_report([run])


def test_a_report_needs_runs(tmp_path):
    with pytest.raises(NotFoundError, match="at least one"):
        collect_report([])
    with pytest.raises(NotFoundError, match=r"no config\.json"):
        collect_report([tmp_path])


def evil_content():
    molecule = Depicted(EVIL, EVIL, EVIL, EVIL)
    drawn = Depicted("A", EVIL, "CCO", "C2H6O")
    figures = RankFigures(2, 9.0, {1: 0.5, 5: 1.0}, 0.7, 1.5, {1: 0.1, 5: 0.5}, 0.3)
    search = Search(molecule, 1, 0.5, (Candidate(molecule, 0.5, True), Candidate(drawn, 0.4, False)))
    retrieval = RetrievalResult(
        EVIL, "test", 9, ("test",), np.array([1, 2]), {EVIL: (figures, None)}, (search,), EVIL
    )
    run = RunFacts(
        EVIL, EVIL, EVIL, 0, 1, 2.0, True, {"train": 3}, EVIL, EVIL, EVIL, EVIL, {EVIL: EVIL}, EVIL
    )
    simulated = SimulatedMolecule(drawn, 1.0, {"ir": 3}, {"ir": (1715.2, 900.0)}, {"ir": EVIL})
    return ReportContent(
        title=EVIL,
        runs=(run,),
        retrievals=(retrieval,),
        simulated=(simulated,),
        levels={EVIL: EVIL},
        notes=(EVIL,),
    )


def test_text_from_data_stays_text(tmp_path):
    text, parser = outline(write_report(tmp_path / "evil.html", evil_content()))
    check_self_contained(text, parser)
    assert "<script" not in text
    assert "<img" not in text
    assert any(data == EVIL for tag, data in parser.texts if tag == "h1")
    assert any(values.get("aria-label") == f"structure of {EVIL}" for values in parser.pictures)


def test_characters_that_html_forbids_are_replaced(tmp_path):
    molecule = Depicted("A", "a\x00b\ud800", "CCO", "C2H6O")
    simulated = SimulatedMolecule(molecule, 1.0, {"ir": 3}, {"ir": ()}, {})
    text, _ = outline(write_report(tmp_path / "r.html", ReportContent(title="\x1b", simulated=(simulated,))))
    assert "a\ufffdb\ufffd" in text
    assert "\x00" not in text


def test_an_empty_report_is_a_page(tmp_path):
    text, parser = outline(write_report(tmp_path / "empty.html", ReportContent()))
    assert "molspectra report" in text
    assert [data for tag, data in parser.texts if tag == "h2"] == []


def test_simulated_molecules_are_listed_with_their_strongest_bands(tmp_path):
    simulated = SimulatedMolecule(
        Depicted("CSCPPACGZOOCGX", "acetone", "CC(C)=O", "C3H6O"),
        1.26,
        {"ir": 24, "uv_vis": 130},
        {"ir": (1745.4, 1217.0), "uv_vis": (9.123,)},
        {"geometry": "GFN2-xTB (tblite 0.8.0)", "ir": "GFN2-xTB (tblite 0.8.0)"},
    )
    text, _ = outline(
        write_report(tmp_path / "s.html", ReportContent(simulated=(simulated,), wall_seconds=125))
    )
    assert "24 lines" in text
    assert "1745, 1217" in text
    assert "9.12" in text
    assert "1.3 s" in text
    assert "All of it took 2 min 5 s." in text
    assert "polarisabilities are about half" in text  # GFN2-xTB's weak points stand wherever its numbers show


def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="file"):
        write_report(tmp_path / "file" / "report.html", ReportContent())


def test_sentences_follow_the_numbers_when_they_turn(content, tmp_path):
    (table,) = content.tables
    arms = []
    for arm in table.arms:
        scores = tuple(
            dataclasses.replace(score, mae=1.0 + 0.5 * (arm.key == "stage2") + 0.01 * score.seed)
            for score in arm.scores
        )
        arms.append(dataclasses.replace(arm, scores=scores))
    worse = ReportContent(tables=(dataclasses.replace(table, arms=tuple(arms)),))
    text = write_report(tmp_path / "worse.html", worse).read_text()
    assert "stage 2 minus scratch, eV: seed 0 +0.500, seed 1 +0.500" in text
    assert "The error is higher in all 2 seeds" in text
    assert "lower in all" not in text


def test_the_settings_of_every_run_are_there(content, written):
    _, parser = outline(written)
    settings = [json.loads(data) for tag, data in parser.texts if tag == "pre"]
    assert len(settings) == len(content.runs)
    assert settings[0]["loop"]["batch_size"] == 8
