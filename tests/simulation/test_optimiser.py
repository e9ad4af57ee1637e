import numpy as np
import pytest

from molspectra.chem.readers import from_smiles
from molspectra.errors import SimulationError
from molspectra.simulation import geometry
from molspectra.simulation.units import BOHR


def quartic(positions):
    """Smooth bowl with its minimum at 1, 2, 3, ... and curvatures from 0.01 to 1."""
    scale = np.geomspace(0.01, 1.0, positions.size)
    offset = positions.ravel() - np.arange(1, positions.size + 1)
    energy = (scale * (offset**2 / 2 + offset**4 / 40)).sum()
    return float(energy), (scale * (offset + offset**3 / 10)).reshape(positions.shape)


def test_finds_the_minimum_of_a_bowl():
    start = np.zeros((2, 3))
    found = geometry.minimise(quartic, start, np.eye(6) * 0.2, 1e-8)
    assert np.allclose(found.ravel(), np.arange(1, 7), atol=1e-5)
    assert not start.any()


def test_a_slope_without_end_is_refused():
    with pytest.raises(SimulationError, match="did not converge"):
        geometry.minimise(lambda x: (-float(x.sum()), -np.ones_like(x)), np.zeros((1, 3)), np.eye(3))


@pytest.mark.parametrize("smiles", ["CCO", "O=C=O", "C#N", "OO", "[He]"])
def test_model_hessian_is_positive_and_blind_to_translation(smiles):
    molecule = from_smiles(smiles) if smiles != "[He]" else None
    numbers = molecule.numbers if molecule else np.array([2])
    positions = molecule.positions / BOHR if molecule else np.zeros((1, 3))
    matrix = geometry.model_hessian(numbers, positions)
    assert np.array_equal(matrix, matrix.T)
    values = np.linalg.eigvalsh(matrix)
    assert values[0] == pytest.approx(0.003)
    shift = np.tile([1.0, 0, 0], len(numbers))
    assert np.allclose(matrix @ shift, 0.003 * shift, atol=1e-12)


def test_model_hessian_is_stiff_along_bonds_and_soft_about_them():
    molecule = from_smiles("OO")
    positions = molecule.positions / BOHR
    matrix = geometry.model_hessian(molecule.numbers, positions)
    bond = positions[1] - positions[0]
    along = np.zeros((4, 3))
    along[0], along[1] = -bond, bond
    along = along.ravel() / np.linalg.norm(along)
    across = np.zeros((4, 3))
    across[2] = np.cross(positions[2] - positions[0], bond)
    across = across.ravel() / np.linalg.norm(across)
    assert along @ matrix @ along > 20 * (across @ matrix @ across)


def test_internal_coordinate_derivatives_against_differences():
    rng = np.random.default_rng(3)
    points = rng.normal(size=(4, 3)) * 2

    def angle(x):
        a, b = x[0] - x[1], x[2] - x[1]
        return np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    def dihedral(x):
        b = x[2] - x[1]
        first, second = np.cross(x[0] - x[1], b), np.cross(x[3] - x[2], b)
        return np.arctan2(np.cross(first, second) @ b / np.linalg.norm(b), first @ second)

    def gradient(function):
        result = np.zeros((4, 3))
        for k in np.ndindex(4, 3):
            step = np.zeros((4, 3))
            step[k] = 1e-6
            result[k] = (function(points + step) - function(points - step)) / 2e-6
        return result

    (bend,) = geometry.bend_vectors(points[0] - points[1], points[2] - points[1])
    assert np.allclose(gradient(angle)[:3], np.array(bend), atol=1e-6)
    torsion = geometry.torsion_vector(points[0] - points[1], points[2] - points[1], points[3] - points[2])
    expected = gradient(dihedral)
    sign = np.sign((expected * np.array(torsion)).sum())
    assert np.allclose(expected, sign * np.array(torsion), atol=1e-6)
    assert (
        geometry.torsion_vector(np.array([0, 0, 1.0]), np.array([0, 0, -1.0]), np.array([1.0, 0, 0])) is None
    )


def test_positive_keeps_the_size_of_curvatures():
    matrix = np.diag([-2.0, 1e-9, 3.0])
    assert np.allclose(geometry.positive(matrix), np.diag([2.0, 1e-5, 3.0]))
