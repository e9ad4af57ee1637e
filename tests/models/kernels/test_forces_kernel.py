"""Energy and forces without an automatic graph, against plain torch with one."""

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from molspectra.chem.molecule import Molecule
from molspectra.compiled import use
from molspectra.data.batch import batch_of
from molspectra.models import model as models
from molspectra.models.config import EquivariantTransformerConfig, HeadConfig, ModelConfig
from molspectra.models.model import MolSpectra, energy_and_forces


def molecules():
    """Atoms beyond the cutoff of others, an atom alone, and one whose pair is just within it."""
    generator = np.random.default_rng(0)
    sizes = [7, 1, 2, 12]
    found = [
        Molecule(generator.choice([1, 6, 7, 8], size), generator.normal(0, 1.6, (size, 3))) for size in sizes
    ]
    found[2] = Molecule(np.array([6, 8]), np.array([[0, 0, 0], [0, 2.999, 0]]))
    return found


def model_of(dtype=torch.float64, heads=(("scalar", "none"),), **settings):
    torch.manual_seed(0)
    encoder = EquivariantTransformerConfig(channels=32, heads=4, layers=3, radial=12, cutoff=3.0, **settings)
    kinds = tuple(HeadConfig(kind, "sum", references) for kind, references in heads)
    model = MolSpectra(ModelConfig(encoder=encoder, heads=kinds)).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        for head in model.property_heads:
            head.mean.fill_(2.0)
            head.std.fill_(3.0)
            if head.references is not None:
                head.references.copy_(torch.arange(119.0))
    return model


def both(model, batch):
    """Results by the kernel, which is used, and by plain torch."""
    with use("compiled"):
        ours = models._without_graph(model, batch)
        assert ours is not None
    with use("plain"):
        assert models._without_graph(model, batch) is None
        return ours, energy_and_forces(model, batch)


@pytest.mark.parametrize("vector_cutoff", [True, False])
@pytest.mark.parametrize("layer_norms", [True, False])
@pytest.mark.parametrize("whitening", ["isotropic", "reference"])
def test_same_as_with_a_graph(vector_cutoff, layer_norms, whitening):
    model = model_of(vector_cutoff=vector_cutoff, layer_norms=layer_norms, whitening=whitening)
    ours, plain = both(model, batch_of(molecules(), torch.float64))
    for mine, theirs in ((ours, plain), (ours.encoded, plain.encoded)):
        torch.testing.assert_close(mine[0], theirs[0], rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(mine[1], theirs[1], rtol=1e-7, atol=1e-8)
    assert ours.energy.shape == (4,)
    assert ours.forces[7].abs().max() == 0  # of an atom alone
    assert not ours.forces.requires_grad


def test_single_precision_loses_no_more_than_with_a_graph():
    _, exact = both(model_of(), batch_of(molecules(), torch.float64))
    ours, plain = both(model_of().float(), batch_of(molecules()))
    errors = [float((each.forces.double() - exact.forces).abs().max()) for each in (ours, plain)]
    assert ours.forces.dtype == torch.float32
    assert errors[0] < 3 * errors[1] < 1e-3 * float(exact.forces.abs().max())


def test_references_and_further_heads():
    model = model_of(heads=(("scalar", "published"), ("dipole", "none")))
    ours, plain = both(model, batch_of(molecules(), torch.float64))
    torch.testing.assert_close(ours.energy, plain.energy)
    assert float(ours.energy.abs().max()) > 20
    torch.testing.assert_close(ours.further[0], plain.further[0])


def test_other_heads_keep_the_graph():
    batch = batch_of(molecules(), torch.float64)
    with use("compiled"):
        assert models._without_graph(model_of(heads=(("dipole", "none"),)), batch) is None
        with torch.autocast("cpu", torch.bfloat16):
            assert models._without_graph(model_of(), batch) is None


def test_vectors_of_zero_have_no_slope():
    """On a line through all atoms the other two components are zero, and so are their forces."""
    line = Molecule(np.array([6, 8, 1]), np.array([[0.0, 0, 0], [0, 0, 1.1], [0, 0, -1.2]]))
    ours, plain = both(model_of(), batch_of([line, line], torch.float64))
    torch.testing.assert_close(ours.forces, plain.forces, rtol=1e-7, atol=1e-8)
    assert ours.forces[:, :2].abs().max() < 1e-9


def test_what_is_not_finite_stays_with_its_molecule():
    batch = batch_of(molecules(), torch.float64)
    positions = batch.positions.clone()
    positions[0, 0] = torch.nan
    ours, _ = both(model_of(), batch.with_positions(positions))
    assert torch.isnan(ours.energy).tolist() == [True, False, False, False]
    assert not torch.isfinite(ours.forces[:7]).any()
    assert torch.isfinite(ours.forces[7:]).all()


def test_edges_of_another_batch_are_refused():
    model, batch = model_of(), batch_of(molecules(), torch.float64)
    other = model.with_edges(batch_of(molecules()[::-1], torch.float64)).edges
    with use("compiled"), pytest.raises(ValueError, match="do not fit"):
        energy_and_forces(model, batch.with_edge_list(other))
