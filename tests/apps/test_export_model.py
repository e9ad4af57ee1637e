"""Exported models: equal to the originals, for other sizes than their example's, without this package."""

import json
import subprocess
import sys

import pytest
import torch

import molspectra as ms
import molspectra.apps.loading
from molspectra.apps.cli import main
from molspectra.apps.export_model import ABOUT, Program, _compare, _inputs
from molspectra.data.batch import batch_of
from molspectra.errors import ExistsError, FormatError, MismatchError, MolspectraError, SettingError
from molspectra.models.model import HeadConfig, ModelConfig, MolSpectra
from molspectra.models.shared import EGNNConfig, EquivariantTransformerConfig

SETS = (("CC(=O)Nc1ccc(O)cc1", "O", "C#N", "CCCCCCCC", "N"), ("c1ccccc1",), ("C",) * 7)
"""Molecules of other numbers and sizes than those of the example."""

HEADS = (HeadConfig(), HeadConfig(readout="pooled"), HeadConfig(atom_references="fit"),
         HeadConfig("dipole"), HeadConfig("spatial_extent"))  # fmt: skip

ALONE = """
import sys, json, torch
sys.modules["molspectra"] = None  # cannot be imported
about = {"molspectra.json": ""}
program = torch.export.load(sys.argv[1], extra_files=about).module()
numbers, positions, atoms = torch.load(sys.argv[2], weights_only=True)
found = program(numbers, positions, atoms)
print(json.dumps([json.loads(about["molspectra.json"]), {name: one.tolist() for name, one in found.items()}]))
"""


def _model(encoder, **settings):
    torch.manual_seed(0)
    model = MolSpectra(ModelConfig(encoder, **settings)).eval()
    for head in model.property_heads:
        head.standardise(-3.0, 2.0)
        if head.pooled is not None:  # which begins with zeros
            torch.nn.init.normal_(head.pooled.perceptron[-1].weight)
        if head.references is not None:
            head.references.uniform_(-100.0, 0.0)
    return model


def _wanted(model, smiles, dtype=torch.float32):
    batch = batch_of([ms.from_smiles(one) for one in smiles], dtype)
    with torch.no_grad():
        encoded = model.encode(batch)
        return [model.molecule_features(encoded, batch), *model.predict(encoded, batch)]


@pytest.mark.parametrize(
    "encoder",
    [
        EquivariantTransformerConfig(channels=16, layers=1, heads=2, radial=8),
        EGNNConfig(channels=16, layers=1, cutoff=5.0, radial=4),
    ],
    ids=["et", "egnn"],
)
def test_equal_for_all_encoders_heads_and_sizes(encoder, tmp_path, monkeypatch):
    model = _model(encoder, heads=HEADS)
    names = tuple(f"p{number}" for number in range(len(HEADS)))
    facts = {"targets": {name: {"unit": "eV"} for name in names}}
    loaded = ms.apps.loading.LoadedModel("mine", tmp_path, model, facts, None)
    ms.export_model(loaded, tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    for smiles in SETS:
        found = program(*_inputs(smiles, "float32"))
        assert tuple(found) == ("embedding", *names)
        for value, right in zip(found.values(), _wanted(model, smiles), strict=True):
            assert value.dtype == right.dtype
            torch.testing.assert_close(value, right, rtol=1e-5, atol=1e-5 * float(right.abs().max()) + 1e-6)
    assert model.noise_head is not None  # the loaded model is as before


def test_a_run_as_the_command_exports_it_and_torch_alone_runs_it(use_runs, tmp_path, capsys):
    out, inputs = tmp_path / "gap.pt2", tmp_path / "inputs.pt"
    assert main(["export-model", str(use_runs["gap"]), "--out", str(out), "--dtype", "float64"]) == 0
    assert "embedding, gap in" in capsys.readouterr().out
    torch.save(_inputs(SETS[0], "float64"), inputs)
    command = [sys.executable, "-W", "ignore", "-c", ALONE, str(out), str(inputs)]
    about, found = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    model = ms.load(use_runs["gap"]).model.double()
    embedding, gap = _wanted(model, SETS[0], torch.float64)
    torch.testing.assert_close(torch.tensor(found["gap"], dtype=gap.dtype), gap, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        torch.tensor(found["embedding"], dtype=gap.dtype), embedding, rtol=1e-9, atol=1e-9
    )
    assert about["properties"] == {"gap": {"unit": "eV", "level": "made-up level"}}
    assert set(about["elements"]) == {"H", "C", "N", "O"}
    assert (about["dtype"], about["cutoff"]) == ("float64", 5.0)
    assert ABOUT == "molspectra.json"


def test_what_cannot_be_exported(use_runs, tmp_path):
    with pytest.raises(FormatError, match=r"\.pt2"):
        ms.export_model("small", tmp_path / "model.onnx")
    (tmp_path / "there.pt2").write_text("")
    with pytest.raises(ExistsError):
        ms.export_model("small", tmp_path / "there.pt2")
    with pytest.raises(SettingError, match="float16"):
        ms.export_model("small", tmp_path / "model.pt2", dtype="float16")
    pilot = ms.load(use_runs["stage2"])
    config = ModelConfig(
        pilot.model.config.encoder, pilot.model.config.spectrum_encoder, "scalar", spectrum_input=True
    )
    pilot = ms.apps.loading.LoadedModel("pilot", tmp_path, MolSpectra(config), {}, None)
    with pytest.raises(MismatchError, match=r"pilot.*uv_vis"):
        ms.export_model(pilot, tmp_path / "model.pt2")
    assert [path.name for path in tmp_path.iterdir()] == ["there.pt2"]


def test_a_program_that_differs_is_refused():
    model = _model(EquivariantTransformerConfig(channels=16, layers=1, heads=2, radial=8), property="scalar")
    program = Program(model, ("y",))
    with torch.no_grad():
        _compare("mine", program, model, "float32")
        with pytest.raises(MolspectraError, match="another y"):
            _compare("mine", lambda *inputs: program(*inputs) | {"y": torch.zeros(4)}, model, "float32")
