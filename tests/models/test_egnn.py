"""EGNN against its formulas written out atom by atom, its switch, and its place among the settings."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import silu

from molspectra.chem.molecule import Molecule
from molspectra.data.batch import batch_of
from molspectra.errors import InputError, SettingError
from molspectra.models.egnn import EGNN, FADE, switched
from molspectra.models.equivariant_transformer import EquivariantTransformer
from molspectra.models.model import ModelConfig, MolSpectra
from molspectra.models.shared import EGNNConfig, EquivariantTransformerConfig
from molspectra.training.config import FinetuneConfig, PretrainConfig
from molspectra.training.settings import from_dict, settings_of, to_dict

SMALL = EGNNConfig(channels=8, layers=2, cutoff=6.0, switch=2.0, max_number=20)
MOLECULE = Molecule(
    np.array([6, 8, 1, 7, 9]), np.array([[0, 0, 0], [1.2, 0, 0], [-0.6, 0.9, 0], [0, 0, 3.9], [0, 0, 5.5]])
)


def written_out(model, numbers, positions):
    """x_i and v_i as sums over all other atoms."""
    config, atoms = model.config, len(numbers)
    x = [model.embedding.weight[number] for number in numbers]
    v = [torch.zeros(3, config.channels, dtype=torch.float64) for _ in numbers]
    for layer in model.layers:
        received = [torch.zeros(config.channels, dtype=torch.float64) for _ in numbers]
        for i in range(atoms):
            for j in range(atoms):
                apart = positions[j] - positions[i]
                distance = apart.norm()
                if i == j or distance >= config.cutoff:
                    continue
                t = max(0.0, (float(distance) - config.cutoff + config.switch) / config.switch)
                weight = 1 - 10 * t**3 + 15 * t**4 - 6 * t**5
                pair = [x[i], x[j], (distance**2)[None]]
                if model.expansion is not None:
                    pair.append(model.expansion(distance[None])[0])
                message = silu(layer.second(silu(layer.first(torch.cat(pair)))))
                if layer.gate is not None:
                    message = message * torch.sigmoid(layer.gate(message))
                received[i] = received[i] + weight * message
                v[i] = v[i] + weight * torch.outer(apart / (distance + 1), layer.along(message))
        x = [own + layer.update(torch.cat([own, sums])) for own, sums in zip(x, received, strict=True)]
    squares = [rows.square().sum(0).mean() for rows in v]
    return torch.stack(x), torch.stack(
        [rows * square / (square + FADE) for rows, square in zip(v, squares, strict=True)]
    )


@pytest.mark.parametrize(("gate", "radial"), [(True, 0), (False, 0), (True, 5)])
def test_formulas(gate, radial):
    torch.manual_seed(0)
    model = EGNN(replace(SMALL, gate=gate, radial=radial)).double()
    batch = batch_of([MOLECULE], dtype=torch.float64).with_edges(model.cutoff)
    encoded = model(batch)
    scalars, vectors = written_out(model, MOLECULE.numbers, batch.positions)
    torch.testing.assert_close(encoded.scalars, scalars, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(encoded.vectors, vectors, rtol=1e-11, atol=1e-12)
    assert encoded.vectors.abs().max() > 1e-3


def test_the_switch_has_two_continuous_derivatives():
    distance = torch.tensor([0.0, 3.9, 4.0, 5.0, 6.0, 6.1], dtype=torch.float64, requires_grad=True)
    values = switched(distance, 6.0, 2.0)
    assert values.tolist() == [1.0, 1.0, 1.0, 0.5, 0.0, 0.0]
    (first,) = torch.autograd.grad(values.sum(), distance, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), distance)
    assert first.tolist() == pytest.approx([0, 0, 0, -0.9375, 0, 0])  # -15/8 of t in the middle
    assert second.tolist() == pytest.approx([0.0] * 6)


def test_the_defaults_are_the_published_sizes():
    config = EGNNConfig()
    assert (config.channels, config.layers, config.gate, config.radial) == (128, 7, True, 0)
    count = sum(weight.numel() for weight in EGNN(config).parameters())
    per_layer = (257 * 128 + 128) + 2 * (128 * 128 + 128) + 129 + (256 * 128 + 128) + 2 * 128 * 128 + 128
    assert count == 100 * 128 + 7 * per_layer


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"channels": 1}, "channels must be at least 2"),
        ({"layers": 0}, "sizes positive"),
        ({"radial": -1}, "sizes positive"),
        ({"switch": 0.0}, "switch must lie in"),
        ({"switch": 7.0}, "switch must lie in"),
    ],
)
def test_what_makes_no_network_is_refused(changes, said):
    with pytest.raises(SettingError, match=said):
        replace(SMALL, **changes)


def test_a_batch_without_edges_is_refused():
    with pytest.raises(ValueError, match="no edges"):
        EGNN(SMALL)(batch_of([MOLECULE]))


def test_the_kind_chooses_the_encoder():
    egnn = {"model": {"encoder": {"kind": "egnn", "layers": 3}}}
    config = from_dict(FinetuneConfig, egnn, "")
    assert config.model.encoder == EGNNConfig(layers=3)
    assert from_dict(FinetuneConfig, to_dict(config), "") == config
    assert isinstance(MolSpectra(config.model).encoder, EGNN)
    before = from_dict(FinetuneConfig, {"model": {"encoder": {"layers": 3, "radial": 8}}}, "")
    assert before.model.encoder == EquivariantTransformerConfig(layers=3, radial=8)
    assert isinstance(MolSpectra(ModelConfig()).encoder, EquivariantTransformer)
    assert to_dict(before)["model"]["encoder"]["kind"] == "et"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kind": "egnn", "heads": 8}, "unknown setting 'model.encoder.heads'"),
        ({"kind": "et", "switch": 2.0}, "unknown setting 'model.encoder.switch'"),
        ({"kind": "egn"}, "model.encoder.kind: expected one of et, egnn, not 'egn'; did you mean egnn?"),
        ({"kind": 3}, "model.encoder.kind: expected one of et, egnn, not 3"),
        ([1], "model.encoder: expected a mapping of settings"),
    ],
)
def test_settings_of_the_other_kind_are_refused(values, said):
    with pytest.raises(InputError, match=f"recipe.yaml: {said}".replace("?", r"\?")):
        from_dict(PretrainConfig, {"model": {"encoder": values}}, "recipe.yaml")


def test_every_setting_of_both_kinds_is_an_option():
    settings = {setting.name: setting for setting in settings_of(PretrainConfig, documented=True)}
    for name in ("channels", "heads", "radial", "switch", "gate", "kind"):
        assert settings[f"model.encoder.{name}"].help
    assert settings["model.encoder.kind"].parse("egnn") == "egnn"
    assert settings["model.encoder.kind"].default == "et"
    assert settings["model.encoder.channels"].default == 256
