"""Reference-layout checkpoints as run directories: golden outputs by the public functions, and refusals."""

import argparse
import collections
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import molspectra
from molspectra.apps.cli import main
from molspectra.apps.import_reference import import_reference
from molspectra.apps.reference import MODALITIES, SLICES, our_name, read_checkpoint, their_name
from molspectra.chem.molecule import Molecule
from molspectra.data.batch import Batch
from molspectra.data.neighbours import offsets_of
from molspectra.data.store.schema import Metadata, Quantity
from molspectra.data.store.writer import Row, write_store
from molspectra.errors import InputError, SettingError
from molspectra.models.model import MolSpectra, energy_and_forces
from molspectra.objectives.reconstruction import random_masks
from molspectra.spectra.spectrum import SampledSpectrum
from molspectra.training.checkpoint import find_checkpoint, initialise, read_resume
from molspectra.training.seen import seen_by

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = ("stage2_qm9", "stage2_md17", "ft_qm9", "ft_md17")
SHORT = dict(zip(("uv", "ir", "raman"), MODALITIES, strict=True))
CALLBACKS = GOLDEN / "official_small_md17_ft_with_callbacks.ckpt.gz"


def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / name) as file:
        return dict(file)


def content(case: str) -> dict[str, Any]:
    """A checkpoint as the reference writes it for that case."""
    whole = read_checkpoint(GOLDEN / "official_small.ckpt.gz")
    settings = json.loads((GOLDEN / f"args_{case}.json").read_text())
    state = {}
    for name, value in whole.state.items():
        if settings["use_dataset_md17"] and ("x_norms" in name or "vec_norms" in name):
            continue
        if settings["spectra_model"] is None and name.startswith("representation_spec_model"):
            continue
        state[f"model.{name}"] = value
    if settings["standardize"]:
        state |= {"model.mean": torch.tensor([0.25]), "model.std": torch.tensor([1.5])}
    return {
        "epoch": 3,
        "global_step": 1234,
        "pytorch-lightning_version": "1.3.8",
        "state_dict": state,
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}],
        "hyper_parameters": settings,
    }


def written(path: Path, case: str, change: Callable[[dict[str, Any]], object] = lambda content: None) -> Path:
    made = content(case)
    change(made)
    torch.save(made, path)
    return path


def golden_batch(model: MolSpectra) -> tuple[Batch, dict[str, Tensor]]:
    inputs = {
        name: torch.from_numpy(each) for name, each in arrays("inputs.npz").items() if each.dtype.kind in "if"
    }
    count = len(inputs["n_atoms"])
    batch = Batch(
        numbers=inputs["z"],
        positions=inputs["pos"],
        ptr=offsets_of(inputs["n_atoms"]),
        molecule=inputs["batch"],
        row=torch.arange(count),
        geometry_id=torch.arange(count),
        spectra={name: inputs[short] for short, name in SHORT.items()},
        present=dict.fromkeys(MODALITIES, torch.ones(count, dtype=torch.bool)),
    )
    return batch.with_edges(model.encoder.cutoff), inputs


def check(vectors: dict[str, np.ndarray], key: str, value: Tensor) -> None:
    """Within four times the difference between the reference's own float32 and float64 runs."""
    golden = vectors[key].astype(np.float64)
    seen = np.abs(golden - vectors[key.replace("f32", "f64", 1)]).max()
    found = value.detach().double().numpy().reshape(golden.shape)
    assert np.abs(found - golden).max() <= 4 * seen + 3e-5 * np.abs(golden).max(), key


@pytest.mark.parametrize("case", CASES)
def test_golden_outputs_of_an_imported_run(
    tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "last.ckpt", case)
    assert main(["import-reference", str(path), str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert f"all {len(content(case)['state_dict'])} tensors of the file accounted for" in said
    assert "left behind: epoch, global_step, optimizer_states" in said
    model, about = molspectra.load_model(tmp_path / "run")
    vectors = arrays(f"{case}.npz")
    batch, inputs = golden_batch(model)
    run = "f32_forces" if case == "ft_qm9" else "f32"
    if f"{run}/eval/forces" in vectors:
        found = energy_and_forces(model, batch)
        check(vectors, f"{run}/eval/forces", found.forces)
        check(vectors, f"{run}/eval/out", found.energy)
    with torch.no_grad():
        check(vectors, f"{run}/eval/out", model(batch))
        check(vectors, f"{run}/eval/mol_feature", model.embed(batch))
        check(vectors, f"{run}/eval/noise_pred", model.noise_head(model.encode(batch)))
        if model.spectrum_encoder is not None:
            masks = {name: random_masks(inputs[f"mask_noise_{short}"], 0.1) for short, name in SHORT.items()}
            for mode in ("train", "eval"):
                model.train(mode == "train")
                output = model.spectrum_encoder.reference_forward(batch.spectra, masks)
                check(vectors, f"f32/{mode}/spec_feature", output.representation)
    assert about["stage"] == ("stage2" if "stage2" in case else "finetune")
    assert about["imported"]["global_step"] == 1234
    assert about["imported"]["hyper_parameters"]["num_heads"] == 4
    normaliser = read_resume(find_checkpoint(tmp_path / "run"))["stage"]
    assert {name.rpartition(".")[2] for name in normaliser} >= {"acc_sum", "acc_count"}


def test_file_with_callbacks_of_a_class(tmp_path: Path) -> None:
    done = import_reference(CALLBACKS, tmp_path / "run")
    assert done.stage == "finetune"
    assert "callbacks" in done.left_behind
    model, _ = molspectra.load_model(tmp_path / "run")
    batch, _ = golden_batch(model)
    with torch.no_grad():
        check(arrays("ft_md17.npz"), "f32/eval/out", model(batch))
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert (config["target"], config["forces"]) == ("energy", True)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The golden molecules as a store, each five times by other identities, to be split."""
    inputs, rows = arrays("inputs.npz"), []
    ends = np.cumsum([0, *inputs["n_atoms"]])
    for number in range(30):
        row = number % 6
        part = slice(ends[row], ends[row + 1])
        molecule = Molecule(inputs["z"][part], inputs["pos"][part], name=str(row))
        spectra = {name: SampledSpectrum(name, inputs[short][row]) for short, name in SHORT.items()}
        values = {"energy": float(inputs["y"][row, 0])}
        rows.append(Row(molecule, spectra, values, inputs["dy"][part], identity=f"number {number}"))
    metadata = Metadata(
        source="golden",
        licence="",
        samples=dict.fromkeys(MODALITIES, ""),
        properties={"energy": Quantity("kcal/mol")},
        forces=Quantity("kcal/mol/Å"),
    )
    write_store(tmp_path / "golden.arrow", rows, metadata)
    return tmp_path / "golden.arrow"


def test_evaluate_an_imported_run(tmp_path: Path, store: Path) -> None:
    import_reference(CALLBACKS, tmp_path / "run")
    with pytest.raises(InputError, match="was trained on"):
        molspectra.evaluate(tmp_path / "run", store=str(store), part="train")
    result = molspectra.evaluate(
        tmp_path / "run", tmp_path / "out", store=str(store), part="train", allow_other_data=True
    )
    assert result["data"]["trained_on"].startswith("not known")
    vectors = arrays("ft_md17.npz")
    with (tmp_path / "out/predictions-train.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) >= 4
    for line in table:
        golden = float(vectors["f32/eval/out"][int(line["row"]) % 6, 0])
        assert float(
            next(value for name, value in line.items() if name.startswith("predicted"))
        ) == pytest.approx(golden, abs=1e-4)


def test_evaluate_an_imported_second_stage(tmp_path: Path, store: Path) -> None:
    import_reference(written(tmp_path / "a.ckpt", "stage2_qm9"), tmp_path / "run")
    result = molspectra.evaluate(
        tmp_path / "run", tmp_path / "out", store=str(store), part="train", allow_other_data=True
    )
    assert result["losses"]["denoising"] > 0
    assert result["losses"]["alignment"] > 0


def test_training_starts_from_an_imported_run(tmp_path: Path) -> None:
    import_reference(written(tmp_path / "a.ckpt", "stage2_qm9"), tmp_path / "run")
    whole, _ = molspectra.load_model(tmp_path / "run")
    fresh = MolSpectra(whole.config)
    assert initialise(fresh, tmp_path / "run") == ["encoder", "noise_head", "spectrum_encoder"]
    for name, value in fresh.encoder.state_dict().items():
        assert torch.equal(value, whole.encoder.state_dict()[name])
    assert seen_by(tmp_path / "run").unknown == ("a.ckpt (imported)",)


def test_every_name_there_and_back() -> None:
    for theirs in read_checkpoint(GOLDEN / "official_small.ckpt.gz").state:
        ours = our_name(theirs)
        if ours is not None:
            assert their_name(ours) == theirs
    assert their_name("spectrum_encoder.slices.ir.weight") == SLICES
    assert their_name("log_scale") == "log_scale"


KEY = "model.representation_model.attention_layers.1.q_proj.weight"
STATE_CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "missing": (lambda state: state.pop(KEY), f"'{KEY}' is missing"),
    "left over": (
        lambda state: state.update({"model.extra.weight": torch.ones(2)}),
        "'model.extra.weight' is not part",
    ),
    "third layer": (
        lambda state: state.update({KEY.replace(".1.", ".2."): state[KEY]}),
        f"'{KEY.replace('.1.', '.2.')}' is left over",
    ),
    "shape": (
        lambda state: state.update({KEY: torch.ones(32, 31)}),
        rf"'{KEY}' has shape \[32, 31\], .* \[32, 32\]",
    ),
    "not finite": (lambda state: state[KEY].fill_(float("nan")), f"'{KEY}' holds a value that is not"),
    "slices": (
        lambda state: state.update({f"model.{SLICES}": torch.ones(32, 7)}),
        f"'model.{SLICES}' has shape",
    ),
    "no slices": (lambda state: state.pop(f"model.{SLICES}"), f"'model.{SLICES}' is missing"),
    "no embedding": (
        lambda state: state.pop("model.representation_model.embedding.weight"),
        "'model.representation_model.embedding.weight' is missing",
    ),
    "normaliser": (
        lambda state: state.pop("model.pos_normalizer.acc_sum"),
        "'model.pos_normalizer.acc_sum' is missing",
    ),
    "scale": (
        lambda state: state[
            "model.representation_spec_model.backbone.encoder.layers.1.self_attn.sdp_attn.scale"
        ].fill_(1.0),
        "sdp_attn.scale' is 1.0, not",
    ),
    "no tensor": (lambda state: state.update({KEY: 1.0}), f"'{KEY}' is no tensor"),
}
SETTING_CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "activation": ({"activation": "tanh"}, "'activation' is 'tanh'; supported: 'silu'"),
    "another network": ({"model": "tensornet"}, "'model' is 'tensornet'"),
    "references": ({"prior_model": "Atomref"}, "'prior_model' is 'Atomref'"),
    "lower cutoff": ({"cutoff_lower": 1.0}, "'cutoff_lower' is 1.0"),
    "input": ({"input_data_norm_type": "minmax"}, "'input_data_norm_type' is 'minmax'"),
    "head": ({"output_model": "Cheese"}, "output model 'Cheese'"),
    "no spectra": ({"spectra_model": None}, "left over"),
    "layers": ({"num_layers": 3}, "attention_layers.2.* is missing"),
}


@pytest.mark.parametrize(("change", "message"), STATE_CHANGES.values(), ids=STATE_CHANGES)
def test_keys_that_do_not_fit(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    path = written(tmp_path / "a.ckpt", "stage2_qm9", lambda content: change(content["state_dict"]))
    with pytest.raises(InputError, match=message) as caught:
        import_reference(path, tmp_path / "run")
    assert "a.ckpt" in str(caught.value)
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("change", "message"), SETTING_CHANGES.values(), ids=SETTING_CHANGES)
def test_settings_that_do_not_fit(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = written(
        tmp_path / "a.ckpt", "stage2_qm9", lambda content: content["hyper_parameters"].update(change)
    )
    with pytest.raises(InputError, match=message):
        import_reference(path, tmp_path / "run")
    assert sorted(tmp_path.iterdir()) == [path]


def test_settings_of_coordinate_denoising(tmp_path: Path) -> None:
    """Its files know nothing of spectra, and some keep their settings as a namespace."""

    def change(content: dict[str, Any]) -> None:
        new = (
            "spectra_model",
            "use_dataset_md17",
            "patch_len",
            "stride",
            "mask_ratios",
            "input_data_norm_type",
        )
        kept = {name: value for name, value in content["hyper_parameters"].items() if name not in new}
        content["hyper_parameters"] = argparse.Namespace(**kept | {"denoising_only": True})

    done = import_reference(written(tmp_path / "a.ckpt", "ft_qm9", change), tmp_path / "run")
    assert done.stage == "stage1"
    model, _ = molspectra.load_model(tmp_path / "run")
    assert model.config.encoder.layer_norms  # from the keys that are there
    batch, _ = golden_batch(model)
    with torch.no_grad():
        check(arrays("ft_qm9.npz"), "f32/eval/noise_pred", model.noise_head(model.encode(batch)))


def test_target_of_a_fine_tuned_model(tmp_path: Path) -> None:
    path = written(tmp_path / "a.ckpt", "ft_qm9", lambda c: c["hyper_parameters"].update(dataset_arg="homo"))
    import_reference(path, tmp_path / "homo")
    assert json.loads((tmp_path / "homo/config.json").read_text())["target"] == "homo"
    assert json.loads((tmp_path / "homo/record.json").read_text())["about"]["unit"] == "eV"
    path = written(tmp_path / "b.ckpt", "ft_qm9", lambda c: c["hyper_parameters"].update(dataset_arg="other"))
    with pytest.raises(SettingError, match=r"'other'.*--target"):
        import_reference(path, tmp_path / "run")
    import_reference(path, tmp_path / "run", target="alpha")
    assert json.loads((tmp_path / "run/config.json").read_text())["target"] == "alpha"


def test_attributes_that_hide_methods(tmp_path: Path) -> None:
    class Hiding(dict[str, Any]):
        def __reduce__(self) -> tuple[Any, ...]:
            return collections.OrderedDict, (list(self.items()),), {"items": 1, "keys": 1}

    def change(content: dict[str, Any]) -> None:
        content["state_dict"] = Hiding(content["state_dict"])

    import_reference(written(tmp_path / "a.ckpt", "ft_qm9", change), tmp_path / "run")
    assert (tmp_path / "run/config.json").is_file()


def test_command_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"weights": torch.ones(3)}, tmp_path / "a.ckpt")
    assert main(["import-reference", str(tmp_path / "a.ckpt"), str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.endswith("a.ckpt: not a training checkpoint (it has no state_dict)\n")
    torch.save({"state_dict": {}}, tmp_path / "b.ckpt")
    assert main(["import-reference", str(tmp_path / "b.ckpt"), str(tmp_path / "run")]) == 2
    assert "no hyper_parameters" in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    assert main(["import-reference", str(CALLBACKS), str(tmp_path / "run")]) == 2
    assert "exists already" in capsys.readouterr().err


ODD = {
    "heads": ("num_heads", None),
    "cutoff": ("cutoff_upper", "far"),
    "patches": ("patch_len", 7),
    "ratios": ("mask_ratios", 0.3),
}


@pytest.mark.parametrize(("name", "value"), ODD.values(), ids=ODD)
def test_hyper_parameters_of_other_forms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, value: object
) -> None:
    path = written(
        tmp_path / "f.ckpt", "stage2_qm9", lambda content: content["hyper_parameters"].update({name: value})
    )
    assert main(["import-reference", str(path), str(tmp_path / "run")]) == 2
    assert "not of the form" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_hyper_parameters_that_are_no_json(tmp_path: Path) -> None:
    odd = {"callbacks": [argparse.Namespace(a=1)], "keys": [b"bytes"], "kept": [1, "two", None]}
    path = written(tmp_path / "f.ckpt", "stage2_qm9", lambda content: content["hyper_parameters"].update(odd))
    import_reference(path, tmp_path / "run")
    said = json.loads((tmp_path / "run" / "record.json").read_text())["about"]["imported"]["hyper_parameters"]
    assert "kept" in said
    assert not {"callbacks", "keys"} & set(said)
