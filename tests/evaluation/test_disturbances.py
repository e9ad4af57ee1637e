import json

import numpy as np
import pytest
import torch

from molspectra.apps.cli import main
from molspectra.errors import SettingError
from molspectra.evaluation.disturbances import (
    Disturbance,
    disturbances,
    disturbed,
    disturbed_retrieval,
    typical_preparation,
)
from molspectra.evaluation.evaluate import evaluate
from molspectra.evaluation.retrieval import Gallery, retrieve
from molspectra.models.model import MolSpectra
from molspectra.spectra.measured import prepare
from molspectra.spectra.modality import modality

NAMES = ("uv_vis", "ir", "raman")


@pytest.fixture(scope="module")
def model(tiny):
    torch.manual_seed(0)
    return MolSpectra(tiny.pretrain_model).eval()


def test_every_disturbance_is_repeatable_and_leaves_spectra(tiny):
    batch = tiny.store.batch(np.arange(20, 30), modalities=NAMES)
    part = tiny.store.batch(np.arange(22, 25), modalities=NAMES)
    assert len({(disturbance.name, disturbance.strength) for disturbance in disturbances()}) == len(
        disturbances()
    )
    for disturbance in disturbances():
        one, other = (disturbed(batch, tiny.store, disturbance) for _ in range(2))
        few = disturbed(part, tiny.store, disturbance)
        for name in NAMES:
            assert torch.equal(one.spectra[name], other.spectra[name])
            torch.testing.assert_close(few.spectra[name], one.spectra[name][2:5], rtol=1e-4, atol=1e-5)
            assert bool((one.spectra[name] >= 0).all())
            assert torch.equal(one.spectra[name].any(1), batch.present[name])
            assert torch.equal(one.spectra[name], batch.spectra[name]) == (disturbance.name == "none")


def test_lines_are_broadened_anew_for_a_smaller_width(tiny):
    batch = tiny.store.batch(np.arange(3), modalities=["ir"])
    narrow = next(disturbance for disturbance in disturbances() if disturbance.strength == "4 cm⁻¹")
    height = disturbed(batch, tiny.store, narrow).spectra["ir"].amax(1) / batch.spectra["ir"].amax(1)
    assert bool((height > 2.0).all())  # 3 for a single line at a point of the axis
    assert bool((height < 3.1).all())


def test_a_typical_preparation_gives_the_mean_area_of_the_training_spectra(tiny):
    rows = np.arange(0, 40)
    preparations = typical_preparation(tiny.store, rows, NAMES)
    batch = tiny.store.batch(rows, modalities=["raman"])
    present = batch.present["raman"]
    assert not bool(present.all())
    spectra = prepare(batch.spectra["raman"], modality("raman"), preparations["raman"])[present]
    areas = spectra.double().sum(1)
    torch.testing.assert_close(areas, torch.full_like(areas, preparations["raman"].level), rtol=1e-4, atol=0)
    assert preparations["uv_vis"].smoothing == pytest.approx(0.225)


def test_undisturbed_the_figures_are_those_of_the_plain_search(model, tiny):
    queries, gallery = np.arange(10, 30), Gallery.of(model, tiny.store, np.arange(40))
    settings = typical_preparation(tiny.store, np.arange(10), ["uv_vis"])
    table = disturbed_retrieval(model, tiny.store, queries, gallery, settings, ["uv_vis"], batch_size=7)
    assert [(entry["disturbance"], entry["strength"]) for entry in table] == [
        (disturbance.name, disturbance.strength) for disturbance in disturbances()
    ]
    plain = retrieve(model, tiny.store, queries, gallery, ["uv_vis"]).figures()
    assert table[0]["model"] == {"recall": plain.recall, "mrr": plain.mrr}
    assert table[0]["similarity"]["recall"][1] == 1.0  # its spectra are in the library
    by_name = {(entry["disturbance"], entry["strength"]): entry for entry in table}
    for factor in ("× 0.1", "× 10"):  # the pipeline takes intensities off
        assert by_name["intensity", factor]["similarity"] == table[0]["similarity"]
        assert by_name["intensity", factor]["prepared"] == table[0]["prepared"]
    scaled = by_name["scale", "× 0.95"]["similarity"]["recall"][1]
    assert scaled < table[0]["similarity"]["recall"][1]


def test_a_change_reaches_the_model(model, tiny):
    """Every query becomes another molecule's spectrum, and so finds that."""
    gallery = Gallery.of(model, tiny.store, np.arange(40))
    disturbance = Disturbance("turned", "", lambda spectra, *_: spectra.flip(0))
    plain = retrieve(model, tiny.store, np.arange(20, 24), gallery)
    turned = retrieve(
        model,
        tiny.store,
        np.arange(20, 24),
        gallery,
        change=lambda batch: disturbed(batch, tiny.store, disturbance),
    )
    np.testing.assert_array_equal(plain.best_rows[::-1], turned.best_rows)


def test_the_command_prints_a_table(runs, tmp_path, capsys):
    assert main(["evaluate", str(runs["stage2"]), "--disturbances", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "uv_vis + ir + raman" in said
    assert "isomers only" in said
    assert "scale × 0.95" in said
    assert str(tmp_path / "evaluation.json") in said.splitlines()[-1]
    # all else is in the file
    assert "versions" not in said
    losses = json.loads((tmp_path / "evaluation.json").read_text())["losses"]
    assert losses.keys() <= {line.split()[0] for line in said.splitlines() if line}


@pytest.mark.parametrize("name", ["stage1", "gap-scratch-0"])
def test_runs_without_spectra_have_no_disturbances(runs, name, tmp_path):
    with pytest.raises(SettingError, match=f"{name}.*disturbed"):
        evaluate(runs[name], tmp_path, disturbances=True)
