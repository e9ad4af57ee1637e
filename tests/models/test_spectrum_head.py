"""Spectra predicted from a structure: profiles by hand, symmetries, extensivity, and a head made last."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from molspectra.chem.molecule import Molecule
from molspectra.data.batch import batch_of
from molspectra.errors import MismatchError, SettingError
from molspectra.models.model import ModelConfig, MolSpectra
from molspectra.models.shared import EquivariantTransformerConfig
from molspectra.models.specformer import SpecFormerConfig
from molspectra.models.spectrum_head import MAX_LINES, SpectrumHead, line_basis
from molspectra.spectra.modality import IR, MODALITIES

WATER = Molecule([8, 1, 1], [[0.0, 0.0, 0.1], [0.0, 0.76, -0.49], [0.0, -0.76, -0.49]])
HCN = Molecule([1, 6, 7], [[0.0, 0.0, -1.6], [0.0, 0.0, -0.5], [0.0, 0.0, 0.65]])
ENCODER = EquivariantTransformerConfig(channels=16, layers=1, heads=2, radial=8)
SPECFORMER = SpecFormerConfig(width=16, heads=2, layers=1, feed_forward=16)


def model(**changes):
    torch.manual_seed(0)
    config = ModelConfig(ENCODER, SPECFORMER, spectrum_head=True)
    return MolSpectra(replace(config, **changes)).double().eval()


def spectra_of(net, molecules):
    batch = batch_of(molecules, dtype=torch.float64)
    with torch.no_grad():
        return net.predict_spectra(net.encode(batch), batch)


def test_profiles_are_lorentzians_half_a_width_apart():
    basis = line_basis(IR)
    assert basis.shape == (math.ceil(3500 / 6) + 1, IR.points)
    centre = 500 + 100 * 3500 / 584
    wanted = 1 / (1 + 4 * ((IR.axis() - centre) / 12) ** 2)
    np.testing.assert_allclose(basis[100], wanted, rtol=0, atol=1e-6)


def test_profiles_of_a_density_of_states_are_gaussians():
    basis = line_basis(MODALITIES["dos_virtual"])
    axis = MODALITIES["dos_virtual"].axis()
    wanted = np.exp(-4 * math.log(2) * ((axis - (-30 + 80 * 0.25)) / 0.5) ** 2)
    np.testing.assert_allclose(basis[80], wanted, rtol=0, atol=1e-6)


def test_a_long_axis_gets_wider_lines():
    basis = line_basis(replace(IR, stop=40500.0, step=10.0))
    assert basis.shape == (MAX_LINES, 4001)
    assert float(basis.sum(0).min()) > 1.0  # no gap between them


def test_spectra_have_their_axes_and_are_not_negative():
    spectra = spectra_of(model(), [WATER, HCN])
    assert tuple(spectra) == SPECFORMER.modalities
    for name, values in spectra.items():
        assert values.shape == (2, MODALITIES[name].points)
        assert float(values.min()) >= 0
        assert not torch.allclose(values[0], values[1])


def test_orientation_and_order_of_the_atoms_do_not_matter():
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    order = [2, 0, 1]
    other = Molecule(WATER.numbers[order], WATER.positions[order] @ turn.T + 3.0)
    for spectra in spectra_of(model(), [WATER, other, HCN]).values():
        torch.testing.assert_close(spectra[0], spectra[1], rtol=1e-9, atol=1e-12)


def test_spectra_are_sums_over_atoms():
    """Two copies out of reach: twice the spectrum, where nothing comes from the whole molecule."""
    net = model()
    for parameter in net.spectrum_head.whole[-1].parameters():
        torch.nn.init.zeros_(parameter)
    positions = np.concatenate([WATER.positions, WATER.positions + 100.0])
    pair = Molecule(np.tile(WATER.numbers, 2), positions)
    for spectra in spectra_of(net, [WATER, pair]).values():
        torch.testing.assert_close(spectra[1], 2 * spectra[0])


def test_the_head_is_made_last_and_keeps_only_weights():
    plain, more = model(spectrum_head=False).state_dict(), model().state_dict()
    assert all(torch.equal(value, more[name]) for name, value in plain.items())
    added = more.keys() - plain.keys()
    assert {name.partition(".")[0] for name in added} == {"spectrum_head"}
    assert not any("basis" in name for name in added)


def test_the_head_of_the_shipped_size_is_small():
    assert sum(weight.numel() for weight in SpectrumHead(64, SPECFORMER.kinds()).parameters()) < 300_000


def test_what_is_missing_is_said():
    with pytest.raises(SettingError, match=r"model\.spectrum_encoder"):
        ModelConfig(spectrum_head=True)
    with pytest.raises(MismatchError, match=r"weights\.spectrum"):
        spectra_of(model(spectrum_head=False), [WATER])
