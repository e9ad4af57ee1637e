from dataclasses import replace

import pytest
import torch

from molspectra.chem.molecule import Molecule
from molspectra.data.batch import batch_of
from molspectra.errors import MismatchError, SettingError
from molspectra.models.equivariant_transformer import EquivariantTransformerConfig
from molspectra.models.model import ModelConfig, MolSpectra, energy_and_forces
from molspectra.models.specformer import SpecFormerConfig

SMALL = EquivariantTransformerConfig(channels=8, layers=1, heads=2, radial=4)
WATER = Molecule([8, 1, 1], [[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])


def linear(inputs, outputs, bias=True):
    return inputs * outputs + (outputs if bias else 0)


def encoder_parameters(c, layers, k, norms, elements=100):
    """Method, section 4, counted by hand."""
    embeddings = 2 * elements * c + linear(k, c) + linear(2 * c, c)
    layer_norm, whitening = 2 * c, c
    attention = layer_norm + 2 * linear(c, c) + 2 * linear(c, 3 * c) + linear(c, 3 * c, bias=False)
    attention += linear(k, c) + linear(k, 3 * c)
    between = layers * (layer_norm + whitening) if norms else 0
    return embeddings + layers * attention + between + layer_norm + whitening


def head_parameters(c):
    def block(width, out):
        update = linear(2 * width, width) + linear(width, 2 * out)
        return linear(width, width, bias=False) + linear(width, out, bias=False) + update

    return block(c, c // 2) + block(c // 2, 1)


def spectrum_parameters(d, layers, feed_forward, representation):
    """Method, section 3, counted by hand: 69, 139 and 139 patches of 20, 50 and 50 points."""
    patches, points = (69, 139, 139), (20, 50, 50)
    tokens = sum(linear(p, d) + n * d for p, n in zip(points, patches, strict=True))
    layer = 4 * linear(d, d) + linear(d, feed_forward) + linear(feed_forward, d) + 2 * 2 * d
    reconstruction = sum(linear(d, p) for p in points)
    return tokens + layers * layer + reconstruction + linear(347 * d, representation) + 2 * representation


def count(module):
    return sum(value.numel() for value in module.parameters())


def test_paper_size_has_the_parameters_of_the_method():
    config = ModelConfig(spectrum_encoder=SpecFormerConfig(), property="scalar")
    model = MolSpectra(config)
    assert count(model.encoder) == encoder_parameters(256, 8, 64, norms=True)
    assert count(model.encoder) + count(model.property_head) == 6_871_298  # published: 6.87 million
    assert count(model.noise_head) == count(model.property_head) == head_parameters(256)
    assert count(model.spectrum_encoder) == spectrum_parameters(128, 3, 256, 256)
    parts = (model.encoder, model.noise_head, model.property_head, model.spectrum_encoder)
    assert count(model) == sum(count(part) for part in parts) + 1  # the temperature


def test_md17_size_has_the_parameters_of_the_method():
    config = EquivariantTransformerConfig(channels=128, layers=6, radial=32, layer_norms=False)
    model = MolSpectra(ModelConfig(encoder=config, property="scalar"))
    assert count(model.encoder) == encoder_parameters(128, 6, 32, norms=False)
    assert count(model.encoder) + count(model.property_head) == 1_340_034  # published: 1.34 million


def test_paper_size_runs_forwards_and_backwards():
    torch.manual_seed(0)
    model = MolSpectra(ModelConfig(property="scalar"))
    result = energy_and_forces(model, batch_of([WATER]), create_graph=True)
    result.forces.square().sum().backward()
    assert torch.isfinite(result.energy).all()
    assert all(torch.isfinite(value.grad).all() for value in model.parameters() if value.grad is not None)


def test_edges_are_built_where_they_are_missing():
    model = MolSpectra(ModelConfig(encoder=SMALL))
    batch = batch_of([WATER, WATER])
    with_edges = batch.with_edges(5.0)
    assert torch.equal(model.encode(batch).scalars, model.encode(with_edges).scalars)
    with pytest.raises(ValueError, match="no edges"):
        model.encoder(batch)
    torch.testing.assert_close(model.embed(batch)[0], model.encode(batch).scalars[:3].sum(0))


def test_given_edges_are_kept_for_forces():
    model = MolSpectra(ModelConfig(encoder=SMALL, property="scalar"))
    far = batch_of([WATER]).with_edges(0.5)  # self-edges only
    assert not energy_and_forces(model, far).forces.any()
    assert energy_and_forces(model, batch_of([WATER])).forces.any()


def test_results_have_a_graph_only_on_demand():
    model, batch = MolSpectra(ModelConfig(encoder=SMALL, property="scalar")), batch_of([WATER])
    for create_graph in (False, True):
        result = energy_and_forces(model, batch, create_graph=create_graph)
        assert {value.requires_grad for value in (result.energy, result.forces, *result.encoded)} == {
            create_graph
        }
    with torch.no_grad():
        torch.testing.assert_close(energy_and_forces(model, batch).forces, result.forces)
    assert not batch.positions.requires_grad


def test_a_model_without_a_property_head_says_so():
    model = MolSpectra(ModelConfig(encoder=SMALL))
    for predict in (model, lambda batch: energy_and_forces(model, batch)):
        with pytest.raises(MismatchError, match="no property head"):
            predict(batch_of([WATER]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 3}, "3 heads.* 8 channels"),
        ({"heads": 0}, "positive"),
        ({"cutoff": -1.0}, "cutoff must lie in"),
    ],
)
def test_sizes_that_make_no_encoder_are_refused(changes, message):
    with pytest.raises(SettingError, match=message):
        replace(SMALL, **changes)


def test_temperature_starts_as_configured():
    config = ModelConfig(encoder=SMALL, spectrum_encoder=SpecFormerConfig(width=8, heads=2), temperature=0.2)
    assert MolSpectra(config).log_scale.exp().item() == pytest.approx(5.0)
