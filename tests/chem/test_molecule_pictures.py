"""Molecules show themselves in notebooks."""

import re

import numpy as np
import pytest
from rdkit import Chem

from molspectra.chem.drawing import svg_of
from molspectra.chem.identity import MAX_ATOMS
from molspectra.chem.molecule import Molecule
from molspectra.chem.readers import from_smiles


def atoms_in(picture):
    """Indices of the atoms that the bonds and labels of an SVG belong to."""
    return {int(index) for index in re.findall(r"atom-(\d+)", picture)}


def test_a_picture_holds_every_heavy_atom_and_bond():
    picture = from_smiles("CC(=O)N")._repr_html_()
    assert atoms_in(picture) == {0, 1, 2, 3}
    assert set(re.findall(r"bond-(\d+)", picture)) == {"0", "1", "2"}
    assert picture.count("<svg") == picture.count("</svg>") == 1
    assert "<?xml" not in picture
    assert picture.endswith("<div>CC(=O)N, C2H5NO</div></div>")


def test_bonds_of_a_bare_structure_are_perceived_and_drawn_flat():
    known = from_smiles("c1ccccc1O")
    bare = Molecule(known.numbers, known.positions)
    picture = svg_of(bare)
    assert atoms_in(picture) == set(range(7))  # hydrogens are not drawn
    turned = svg_of(bare.with_positions(bare.positions @ np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0.0]])))
    assert turned == picture
    ion = from_smiles("C[NH3+]")
    assert "charge +1" in Molecule(ion.numbers, ion.positions, charge=1)._repr_html_()


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", 'a" onload="x', "&lt;b", "line\n\x1b[31mfeed\u202e"]
)
def test_hostile_names_are_escaped(name):
    for molecule in (
        from_smiles("CO", name=name),
        Molecule([92, 92, 1], [[0, 0, 0], [0, 0, 3.0], [0, 0, 4.2]], name=name),
    ):
        text = molecule._repr_html_()
        assert "<script" not in text
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "&lt;b" not in text.replace("&amp;lt;b", "")


@pytest.mark.parametrize(
    "molecule",
    [
        Molecule([92, 92, 1], [[0, 0, 0], [0, 0, 3.0], [0, 0, 4.2]]),
        Molecule(np.full(MAX_ATOMS + 1, 6), np.arange(3.0 * (MAX_ATOMS + 1)).reshape(-1, 3)),
        Molecule([6], [[0, 0, 0]], smiles="no SMILES <b>"),
    ],
)
def test_what_cannot_be_drawn_is_a_line(molecule):
    text = molecule._repr_html_()
    assert "<svg" not in text
    assert text.startswith("<code>Molecule(")
    assert "<b>" not in text
    assert repr(molecule).startswith("Molecule(")


def test_any_heap_of_atoms_has_a_picture_or_a_line():
    generator = np.random.default_rng(0)
    for _ in range(20):
        count = int(generator.integers(1, 12))
        positions = np.arange(count)[:, None] * np.array([0.9, 0.3, 0.1]) + generator.random((count, 3)) * 0.3
        text = Molecule(generator.integers(1, 118, count), positions)._repr_html_()
        assert text.startswith(("<div", "<code>"))


def test_what_breaks_in_rdkit_is_a_line(monkeypatch):
    def broken(mol):
        raise RuntimeError("Invariant Violation")

    monkeypatch.setattr(Chem, "RemoveHs", broken)
    known = from_smiles("CO")
    assert Molecule(known.numbers, known.positions)._repr_html_().startswith("<code>Molecule(CH4O")
