"""A floor under searches against predicted spectra: kernel ridge regression on distances."""

import numpy as np
import pytest
import torch

from molspectra.chem.molecule import Molecule
from molspectra.evaluation import spectral_floor
from molspectra.evaluation.spectral_floor import distances, floor_spectra, kernel_ridge
from molspectra.training.data import Selection


def test_descriptors_depend_on_the_shape_alone(tiny):
    molecule = tiny.store.molecule(3)
    turned, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    order = np.random.default_rng(1).permutation(len(molecule))
    other = Molecule(molecule.numbers[order], molecule.positions[order] @ turned + 2.0)
    first, second = distances([molecule, other], [1, 6, 7, 8, 9, 16, 17])
    np.testing.assert_allclose(first, second, atol=1e-9)
    assert first[0] == (molecule.numbers == 1).sum()
    stretched = Molecule(molecule.numbers, 1.1 * molecule.positions)
    assert np.abs(distances([stretched], [1, 6, 7, 8, 9, 16, 17])[0] - first).max() > 0.1


def test_what_is_left_out_is_not_learnt_from(monkeypatch):
    monkeypatch.setattr(spectral_floor, "WIDTHS", (1.0,))
    monkeypatch.setattr(spectral_floor, "PENALTIES", (1e-2,))
    generator = np.random.default_rng(0)
    known, asked = generator.normal(size=(30, 4)), generator.normal(size=(5, 4))
    targets = generator.normal(size=(30, 2))
    _, without = kernel_ridge(known, targets, asked)
    changed = targets.copy()
    changed[7] += 100  # not of the tenth that tells the mean apart, so the mean moves too
    changed[8] -= 100
    _, again = kernel_ridge(known, changed, asked)
    apart = np.linalg.norm(known[:, None] - known, axis=-1)
    median = np.median(apart[apart > 0])
    rest = np.arange(30) != 7
    mean = targets[np.arange(30) % 10 != 0].mean(0)
    kernel = np.exp(-apart / median)
    weights = np.linalg.solve(kernel[np.ix_(rest, rest)] + 1e-2 * np.eye(29), targets[rest] - mean)
    np.testing.assert_allclose(without[7], mean + kernel[7, rest] @ weights, atol=1e-9)
    assert np.abs(again[7] - without[7]).max() > 1  # of the other one, by contrast


def test_a_smooth_function_is_learnt():
    generator = np.random.default_rng(0)
    known, asked = generator.uniform(-1, 1, (300, 2)), generator.uniform(-0.8, 0.8, (50, 2))
    values, without = kernel_ridge(known, np.sin(2 * known), asked)
    assert np.abs(values - np.sin(2 * asked)).mean() < 0.05
    assert np.abs(without - np.sin(2 * known)).mean() < 0.1


def test_spectra_of_a_store(tiny):
    parts = Selection.of(tiny.data)
    rows = np.arange(len(tiny.store))
    found = floor_spectra(tiny.store, parts.train, rows, ("ir", "raman"))
    for spectra in found.values():
        assert spectra.shape[0] == len(rows)
        torch.testing.assert_close(spectra.norm(dim=1), torch.ones(len(rows)).double())
    assert floor_spectra(tiny.store, parts.train[:5], rows, ("ir",)) == {}
    assert pytest.approx(0, abs=1e-12) == float(found["ir"].clamp(max=0).abs().max())
