"""Spectra as an input of the property: a task of its own, told apart wherever its numbers appear."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from molspectra.data.store.store import Store
from molspectra.errors import InputError
from molspectra.evaluation.evaluate import evaluate
from molspectra.models.egnn import EGNNConfig
from molspectra.models.model import ModelConfig, MolSpectra, energy_and_forces
from molspectra.models.specformer import SpecFormerConfig
from molspectra.reporting.collect import collect_report
from molspectra.training.checkpoint import load_model
from molspectra.training.config import FinetuneConfig
from molspectra.training.run import finetune, pretrain
from molspectra.training.settings import from_dict

Make = Callable[..., Any]

ENCODER = EGNNConfig(channels=16, layers=1, cutoff=6.0, switch=1.0)
SPECTRA = SpecFormerConfig(
    modalities=("uv_vis", "raman"),
    width=16,
    heads=2,
    layers=1,
    feed_forward=16,
    patch=(100, 250),
    stride=(50, 125),
)
MODEL = ModelConfig(ENCODER, SPECTRA, property="scalar", spectrum_input=True)


@pytest.fixture(scope="module")
def run(gap: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = gap(model=MODEL, loop__batch_size=6, loop__validate_every=4)
    result = finetune(config, tmp_path_factory.mktemp("pilot") / "run", show=False)
    assert result.metrics["loss"] > 0
    return result.directory


def model_of(**changes: Any) -> MolSpectra:
    torch.manual_seed(0)
    return MolSpectra(replace(MODEL, **changes)).eval()


def batch_of(store: Store, rows: list[int]) -> Any:
    return store.batch(np.array(rows), modalities=("uv_vis", "raman"), targets=("gap", "forces"))


def test_the_prediction_depends_on_the_spectra_where_there_are_any(store: Store) -> None:
    model, batch = model_of(), batch_of(store, [0, 1, 3, 5])  # 3 has none, 0 and 5 no Raman
    with torch.no_grad():
        before = model(batch)
        other = replace(batch, spectra={name: 2 * each + 1 for name, each in batch.spectra.items()})
        after = model(other)
    assert (before != after).tolist() == [True, True, False, True]
    only = replace(batch, present=batch.present | {"raman": torch.zeros(4, dtype=torch.bool)})
    with torch.no_grad():
        assert (before != model(only)).tolist() == [False, True, False, False]


def test_a_molecule_does_not_depend_on_its_batch(store: Store) -> None:
    model = model_of()
    with torch.no_grad():
        together = model(batch_of(store, [0, 1, 3, 6]))
        alone = torch.cat([model(batch_of(store, [row])) for row in (0, 1, 3, 6)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_the_encoder_of_structures_sees_no_spectra(store: Store) -> None:
    model, batch = model_of(), batch_of(store, [0, 1])
    other = replace(batch, spectra={name: 0 * each for name, each in batch.spectra.items()})
    assert torch.equal(model.embed(batch), model.embed(other))


def test_forces_work_with_spectra_as_input(store: Store) -> None:
    model, batch = model_of(), batch_of(store, [0, 1])
    result = energy_and_forces(model, batch, create_graph=True)
    result.forces.square().sum().backward()
    assert model.spectrum_encoder is not None
    assert model.spectrum_input is not None
    assert model.spectrum_input.combine.weight.grad.abs().sum() > 0  # type: ignore[union-attr]


def test_batches_without_any_spectrum_can_be_trained_on(store: Store) -> None:
    model = model_of().train()
    model(batch_of(store, [3])).sum().backward()
    assert all(value.grad is None for value in model.spectrum_encoder.parameters())  # type: ignore[union-attr]


def test_a_batch_that_lacks_a_modality_is_refused(store: Store) -> None:
    batch = store.batch(np.array([0]), modalities=("uv_vis",))
    with pytest.raises(InputError, match="takes spectra as input, and the batch has no raman"):
        model_of()(batch)


def test_results_tell_that_spectra_were_an_input(run: Path, store: Store, tmp_path: Path) -> None:
    record = json.loads((run / "record.json").read_text())
    assert record["about"]["spectrum_input"] == ["uv_vis", "raman"]
    _, about = load_model(run)
    assert about["spectrum_input"] == ["uv_vis", "raman"]
    result = evaluate(run, tmp_path, "train")
    told = result["spectrum_input"]
    assert told["modalities"] == ["uv_vis", "raman"]
    assert "another task" in told["task"]
    counts = [told[name]["count"] for name in ("with_spectra", "without_spectra")]
    assert min(counts) > 0
    assert sum(counts) == result["count"]
    with (tmp_path / "predictions-train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    has = {name: store.has(name) for name in ("uv_vis", "raman")}
    for row in rows:
        names = [name for name in has if has[name][int(row["row"])]]
        assert row["input_spectra"] == "+".join(names)


def test_the_report_tells_it_too(run: Path) -> None:
    evaluate(run)
    content = collect_report([run], "pilot")
    assert any(
        "was given the uv_vis, raman spectra of the molecules as INPUT" in note for note in content.notes
    )


def test_other_runs_have_no_such_mark(gap: Make, tmp_path: Path) -> None:
    run = finetune(gap(), tmp_path / "run", show=False).directory
    assert "spectrum_input" not in json.loads((run / "record.json").read_text())["about"]
    assert "spectrum_input" not in evaluate(run, part="train")
    assert "input_spectra" not in (run / "predictions-train.csv").read_text()


def test_it_can_start_from_a_pretrained_pair(stage1: Make, gap: Make, tmp_path: Path) -> None:
    pretrained = pretrain(stage1(model=ModelConfig(ENCODER, SPECTRA)), tmp_path / "stage2", show=False)
    config = gap(model=MODEL, init=str(pretrained.directory), loop__steps=1)
    record = finetune(config, tmp_path / "run", show=False).directory / "record.json"
    about = json.loads(record.read_text())["about"]
    assert about["initialised"]["parts"] == ["encoder", "noise_head", "spectrum_encoder"]
    other = gap(init=str(pretrained.directory))
    with pytest.raises(InputError, match=r"encoder\.kind is egnn there and et in the run"):
        finetune(other, tmp_path / "other", show=False)


def test_spectra_as_input_need_an_encoder() -> None:
    with pytest.raises(InputError, match=r"run.yaml: model\.spectrum_input: spectra need an encoder"):
        from_dict(FinetuneConfig, {"model": {"spectrum_input": True}}, "run.yaml")
