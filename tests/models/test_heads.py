import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from molspectra.chem.molecule import Molecule
from molspectra.chem.readers import from_smiles
from molspectra.data.batch import batch_of
from molspectra.errors import MismatchError, SettingError
from molspectra.models.equivariant_transformer import EquivariantTransformerConfig
from molspectra.models.heads import GatedEquivariantBlock, PooledHead, PropertyHead
from molspectra.models.model import ModelConfig, MolSpectra
from molspectra.models.shared import Encoded

HF = Molecule([1, 9], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.9]])
HE = Molecule([2], [[3.0, 0.0, 0.0]])


class Given(nn.Module):
    """Stands for an atom head whose outputs are known."""

    def __init__(self, scalars, vectors):
        super().__init__()
        self.out = torch.tensor(scalars).double(), torch.tensor(vectors).double()

    def forward(self, encoded):
        return self.out


def predictions(kind, scalars, vectors, mean=0.0, std=1.0):
    head = PropertyHead(4, kind).double()
    head.atoms = Given(scalars, vectors)
    head.standardise(mean, std)
    batch = batch_of([HF, HE], dtype=torch.float64)
    return head(Encoded(torch.zeros(3, 4), torch.zeros(3, 3, 4)), batch).tolist()


def test_scalar_by_hand():
    assert predictions("scalar", [1.0, 2.0, 5.0], [[0.0] * 3] * 3, 10.0, 2.0) == pytest.approx([16.0, 20.0])


def test_dipole_by_hand():
    """Charges about the centre of mass plus atomic dipoles; the mean of a length is not added."""
    centre = 0.9 * 18.998403163 / (18.998403163 + 1.008)
    along = 0.4 * (0 - centre) - 0.4 * (0.9 - centre) + 0.1
    vectors = [[0.0, 0.3, 0.0], [0.0, 0.0, 0.1], [0.0, 0.0, 0.0]]
    values = predictions("dipole", [0.4, -0.4, 7.0], vectors, mean=5.0, std=2.0)
    assert values == pytest.approx([2 * math.hypot(along, 0.3), 0.0], rel=1e-6)


def test_spatial_extent_by_hand():
    centre = 0.9 * 18.998403163 / (18.998403163 + 1.008)
    values = predictions("spatial_extent", [2.0, 3.0, 7.0], [[0.0] * 3] * 3, mean=1.0, std=4.0)
    assert values == pytest.approx([1 + 4 * (2 * centre**2 + 3 * (0.9 - centre) ** 2), 1.0], rel=1e-6)


def test_constant_targets_keep_their_unit():
    assert predictions("scalar", [1.0, 2.0, 5.0], [[0.0] * 3] * 3, mean=1.0, std=0.0) == [4.0, 6.0]


def test_gated_block_by_hand():
    """One channel: x' = silu(W₂ silu(W₁ [x, |a·v|] + b₁) + b₂), v' = gate·(u·v)."""
    block = GatedEquivariantBlock(1, 1, activate=True).double()
    weights = [0.5, 2.0, (1.0, -1.0), 0.3, (0.7, -0.4), (0.1, 0.2)]
    with torch.no_grad():
        for value, weight in zip(block.parameters(), weights, strict=True):
            value.copy_(torch.tensor(weight, dtype=torch.float64).view_as(value))
    scalar, vector = block(torch.tensor([[1.5]]).double(), torch.tensor([[[3.0], [0.0], [4.0]]]).double())

    def silu(x):
        return x / (1 + math.exp(-x))

    hidden = silu(1.0 * 1.5 - 1.0 * (0.5 * 5.0) + 0.3)
    assert scalar.item() == pytest.approx(silu(0.7 * hidden + 0.1))
    assert vector.flatten().tolist() == pytest.approx(
        [(-0.4 * hidden + 0.2) * 2 * x for x in (3.0, 0.0, 4.0)]
    )


def test_gradient_at_zero_vectors_is_zero():
    block = GatedEquivariantBlock(4, 2, activate=False)
    vectors = torch.zeros(2, 3, 4, requires_grad=True)
    scalars, _ = block(torch.randn(2, 4), vectors)
    (gradient,) = torch.autograd.grad(scalars.sum(), vectors)
    assert not gradient.any()


def test_a_dipole_as_a_vector_by_hand():
    """The vector whose length is the prediction; charges about the centre of mass plus atomic dipoles."""
    centre = 0.9 * 18.998403163 / (18.998403163 + 1.008)
    head = PropertyHead(4, "dipole").double()
    head.atoms = Given([0.4, -0.4, 7.0], [[0.0, 0.3, 0.0], [0.0, 0.0, 0.1], [0.2, 0.0, 0.0]])
    head.standardise(5.0, 2.0)
    atoms, encoded = batch_of([HF, HE], dtype=torch.float64), Encoded(torch.zeros(3, 4), torch.zeros(3, 3, 4))
    vectors = head.dipole(encoded, atoms)
    along = 0.4 * (0 - centre) - 0.4 * (0.9 - centre) + 0.1
    assert vectors.flatten().tolist() == pytest.approx([0, 0.6, 2 * along, 0.4, 0, 0], abs=1e-6)
    assert vectors.norm(dim=1).tolist() == pytest.approx(head(encoded, atoms).tolist())


def test_other_heads_have_no_dipole():
    head = PropertyHead(4, "scalar")
    with pytest.raises(MismatchError, match=r"scalar head.*dipole"):
        head.dipole(Encoded(torch.zeros(3, 4), torch.zeros(3, 3, 4)), batch_of([HF, HE]))


def test_pooled_scalar_by_hand():
    """One channel: LayerNorm of the means and deviations of x and ‖v‖, weights that pick one of them."""
    head = PooledHead(1).double()
    first, last = head.perceptron[1], head.perceptron[3]
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[0.0, 0.0, 1.0, 0.0]]))  # the deviation of x
        first.bias.zero_()
        last.weight.fill_(2.0)
        last.bias.fill_(0.5)
    encoded = Encoded(torch.tensor([[1.0], [3.0], [7.0]]).double(), torch.zeros(3, 3, 1).double())
    values = head(encoded, batch_of([HF, HE], dtype=torch.float64)).tolist()
    pooled = [2.0, 0.0, math.sqrt(1 + 1e-6), 1e-3], [7.0, 0.0, 1e-3, 1e-3]
    for value, row in zip(values, pooled, strict=True):
        mean = sum(row) / 4
        deviation = math.sqrt(sum((x - mean) ** 2 for x in row) / 4 + 1e-5)
        normal = (row[2] - mean) / deviation
        assert value == pytest.approx(2 * normal / (1 + math.exp(-normal)) + 0.5)


@pytest.mark.parametrize(("kind", "has_references"), [("dipole", False), ("scalar", True)])
def test_what_is_a_sum_cannot_be_pooled(kind, has_references):
    with pytest.raises(SettingError, match=r"readout.*pooled"):
        PropertyHead(4, kind, has_references, "pooled")


def test_a_vector_and_a_tensor_by_hand():
    """HF along x, one helium apart: charges about the centre of mass, and what atomic vectors add."""
    centre = 0.9 * 18.998403163 / (18.998403163 + 1.008)
    first, second = -centre, 0.9 - centre
    scalars, vectors = [0.4, -0.4, 7.0], [[0.0, 0.3, 0.0], [0.1, 0.0, 0.0], [0.2, 0.0, 0.0]]
    along = HF.positions[1] - HF.positions[0]
    axis = int(abs(along).argmax())
    assert along[axis] == 0.9
    found = predictions("vector", scalars, vectors, mean=5.0, std=2.0)
    expected = [[0.1, 0.3, 0.0], [0.2, 0.0, 0.0]]
    expected[0][axis] += 0.4 * first - 0.4 * second
    assert found == [pytest.approx([2 * value for value in one], abs=1e-6) for one in expected]

    found = predictions("tensor", scalars, vectors, mean=5.0, std=2.0)
    tensor = [[0.0] * 3 for _ in range(3)]
    for vector, offset in zip(vectors, (first, second), strict=False):
        for k in range(3):
            tensor[k][axis] += vector[k] * offset
            tensor[axis][k] += vector[k] * offset
    six = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]
    first_molecule = [2 * tensor[i][j] + (5.0 if i == j else 0.0) for i, j in six]
    assert found == [pytest.approx(first_molecule, abs=1e-6), pytest.approx([19.0] * 3 + [0.0] * 3)]


@pytest.mark.parametrize("kind", ["vector", "tensor"])
def test_vectors_and_tensors_turn_with_the_molecule(kind):
    torch.manual_seed(0)
    config = ModelConfig(EquivariantTransformerConfig(channels=8, layers=1, heads=2, radial=8), property=kind)
    model = MolSpectra(config).double().eval()
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))  # perhaps with a reflection
    ethanol = from_smiles("CCO")
    turned = replace(ethanol, positions=ethanol.positions @ turn.numpy().T + 7.0)
    with torch.no_grad():
        one, other = (
            torch.stack(model.predict(model.encode(batch), batch), dim=1)[0]
            for batch in (batch_of([each], dtype=torch.float64) for each in (ethanol, turned))
        )
    if kind == "vector":
        torch.testing.assert_close(other, turn @ one)
        return
    matrices = [value[[0, 3, 4, 3, 1, 5, 4, 5, 2]].view(3, 3) for value in (one, other)]
    torch.testing.assert_close(matrices[1], turn @ matrices[0] @ turn.T)
