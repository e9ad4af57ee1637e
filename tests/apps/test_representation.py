"""`molspectra evaluate` with --probes, --galleries and --alignment, and their part of a report."""

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest

import molspectra as ms
from molspectra.apps.cli import main
from molspectra.data.store.store import Quantity, Row, write_store
from molspectra.evaluation.representation import RESULT, assess_representation
from molspectra.evaluation.retrieval import MASS_TOLERANCE, Gallery
from molspectra.reporting.collect import collect_report
from molspectra.training.checkpoint import load_model
from molspectra.training.data import Selection

pytest.importorskip("sklearn")

NAMES = ("ethanol", "dimethyl ether", "propane")


def test_all_of_a_run_is_tested_and_reported(runs, tiny, tmp_path, capfd):
    command = ["evaluate", str(runs["stage2"]), "--probes", "--galleries", "--alignment", "--disturbances"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    printed = capfd.readouterr().out
    result = json.loads((tmp_path / "out" / RESULT).read_text())
    parts = Selection.of(tiny.data)
    assert result["tested"] == len(parts.test)
    assert result["fitted"] == len(parts.train) + len(parts.val)

    gap = result["probes"]["gap"]
    labelled = tiny.store.has("gap")
    assert gap["tested"] == int(labelled[parts.test].sum())
    assert gap["fitted"] == int(labelled[[*parts.train, *parts.val]].sum())
    values = tiny.store.column("gap")
    median = np.nanmedian(values[[*parts.train, *parts.val]])
    known = values[parts.test][labelled[parts.test]]
    assert gap["constant"]["mae"] == pytest.approx(np.abs(known - median).mean())
    assert set(gap["probes"]) == {"sum", "pooled"}
    assert f"{gap['probes']['sum']['linear']['mae']:.4g}" in printed

    found = result["galleries"]["embedding"]
    assert len(found) == len(result["alignment"]) == 7
    everything = found["ir"]["all"]
    assert [each["size"] for each in everything] == [3, 10, 30, None]
    assert everything[-1]["candidates"] == result["galleries"]["size"] == len(set(tiny.store.identities))
    assert everything[0]["recall"]["1"] >= everything[-1]["recall"]["1"]
    for figures in result["alignment"].values():
        assert 0 <= figures["alignment"] <= 4
        assert figures["uniformity_of_spectra"] <= 1e-9
    assert "same formula" in printed
    floor = result["galleries"]["floor"]
    assert set(floor) == set(found)
    assert [each["size"] for each in floor["ir"]["all"]] == [3, 10, 30, None]
    assert "kernel ridge" in printed

    disturbed = result["disturbances"]
    assert set(disturbed) == {"uv_vis", "ir", "raman"}
    assert disturbed["ir"][0]["disturbance"] == "none"
    whole = everything[-1]["recall"]
    assert disturbed["ir"][0]["model"]["recall"]["1"] == pytest.approx(whole["1"])  # the same search
    assert disturbed["ir"][0]["similarity"]["recall"]["1"] == 1
    assert "scale × 0.95" in printed

    page = ms.report([tmp_path / "out"], tmp_path / "page.html").read_text()
    for text in ("Embeddings by themselves", "Probes of frozen embeddings", "Wang and Isola"):
        assert text in page
    assert page.count("<figure") == 3


def test_a_run_shows_its_own_and_the_probes_of_classes(runs, tiny, tmp_path):
    rows = []
    for number in range(len(tiny.store)):
        row = tiny.store.row(number)
        rows.append(Row(row.molecule, {}, {"oxygen": float(8 in row.molecule.numbers)}))
    metadata = tiny.store.metadata
    changed = {
        "lines": {},
        "samples": {},
        "properties": {"oxygen": Quantity("", "graph"), "few": Quantity("")},
    }
    write_store(tmp_path / "classes.arrow", rows, type(metadata)(**(asdict(metadata) | changed)))
    run = runs["gap-scratch-0"]
    result = assess_representation(run, tmp_path, ["probes"], store=str(tmp_path / "classes.arrow"))
    oxygen = result["probes"]["oxygen"]
    assert oxygen["class"]
    assert 0 <= oxygen["probes"]["sum"]["linear"]["auroc"] <= 1
    assert oxygen["constant"]["auroc"] == 0.5
    assert list(result["not_probed"]) == ["few"]
    (shown,) = collect_report([tmp_path]).representations
    assert [line.is_class for line in shown.probes] == [True, True]


def test_molecules_that_the_model_has_seen_are_not_tested(runs, tiny, tmp_path, capfd):
    """Another seed of the split puts molecules that the run has seen into the test part."""
    run = tmp_path / "run"
    shutil.copytree(runs["stage2"], run)
    config = json.loads((run / "config.json").read_text())
    config["data"]["split_seed"] = 7
    (run / "config.json").write_text(json.dumps(config))
    names, old = tiny.store.identities, Selection.of(tiny.data)
    seen = {names[row] for row in (*old.train, *old.val)}
    test = Selection.of(replace(tiny.data, split_seed=7)).test
    new = [row for row in test if names[row] not in seen]
    assert main(["evaluate", str(run), "--alignment"]) == 0
    result = json.loads((run / RESULT).read_text())
    assert 0 < result["tested"] == len(new) < len(test)
    assert result["left_out"] == len(test) - len(new)
    assert f"{result['left_out']} test rows" in capfd.readouterr().out
    assert set(result) & {"probes", "galleries", "alignment"} == {"alignment"}


def test_a_checkpoint_is_tested_on_a_store(runs, tiny, tmp_path):
    checkpoint = next((runs["stage2"] / "checkpoints").iterdir())
    result = assess_representation(checkpoint, tmp_path, ["alignment"], store=str(tiny.path))
    own = assess_representation(runs["stage2"], tmp_path, ["galleries"])
    assert result["checkpoint"] == checkpoint.name
    assert "galleries" in own
    assert "alignment" not in json.loads((tmp_path / RESULT).read_text())  # earlier results are replaced


def test_masses_group_isomers(runs, tiny):
    model, _ = load_model(runs["stage2"])
    gallery = Gallery.of(model, tiny.store, np.arange(len(tiny.store)))
    answers = {name: gallery.identities.index(tiny.store.identities[tiny.row(name)]) for name in NAMES}
    by_name = {name: float(gallery.masses[answer]) for name, answer in answers.items()}
    assert by_name["ethanol"] == pytest.approx(46.041865, abs=1e-4)
    assert by_name["ethanol"] == by_name["dimethyl ether"]
    assert abs(by_name["propane"] - by_name["ethanol"]) > MASS_TOLERANCE * 46


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["base", "--probes"], "--store"),
        (["base", "--probes", "--store", "bundled"], "--out"),
        (["{stage1}", "--alignment"], "no spectrum encoder"),
        (["{stage2}", "--galleries", "--part", "val"], "--part"),
        (["base", "--disturbances"], "--store"),
        (["{stage1}", "--probes", "--disturbances"], "no spectrum encoder"),
    ],
)
def test_what_does_not_fit_is_refused(runs, capfd, arguments, told):
    assert main(["evaluate", *(each.format_map(runs) for each in arguments)]) == 2
    assert told in capfd.readouterr().err
