import re
from importlib.resources import files

import pytest
from rdkit import Chem

from molspectra.chem.forcefield import directed, patterns, stiffness, with_force_field_aromaticity


def molecule(smiles):
    return with_force_field_aromaticity(Chem.AddHs(Chem.MolFromSmiles(smiles)))


def of(smiles, kind, *term):
    return stiffness(molecule(smiles), kind, {directed(term)}).get(directed(term))


def test_every_line_of_the_table_is_a_pattern():
    table = files("molspectra.chem") / "parameters" / "sage.tsv"
    text = table.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert "CC BY 4.0" in text
    assert "Open Forcefield Group" in text
    assert {kind: len(each) for kind, each in patterns().items()} == {"bond": 88, "angle": 40, "torsion": 167}
    names = [each.name for kind in ("bond", "angle", "torsion") for each in patterns()[kind]]
    assert names == [line.split("\t")[0] for line in lines]
    for kind, atoms in (("bond", 2), ("angle", 3), ("torsion", 4)):
        for each in patterns()[kind]:
            assert len(each.tagged) == atoms, each.name
            assert each.stiffness > 0 or each.name in ("t165", "t166", "t167")


# Atoms of a SMILES count from 0, its hydrogens follow; the constants stand in the published force field.
CASES = [
    ("CC", "bond", (0, 1), 529.24),  # b1
    ("CC", "bond", (0, 2), 740.09),  # b84
    ("CC=O", "bond", (0, 1), 658.88),  # b3 overrules b2
    ("C#N", "bond", (0, 1), 1622.2),  # b27
    ("c1ccccc1", "bond", (0, 1), 721.57),  # b5, aromatic
    ("c1ccc[nH]1", "bond", (3, 4), 780.07),  # b8: pyrrole is not aromatic in the MDL model
    ("CO", "angle", (2, 0, 1), 106.41),  # a1
    ("C", "angle", (1, 0, 2), 97.553),  # a2 overrules a1
    ("CC(=O)O", "angle", (2, 1, 3), 402.82),  # a15
    ("O", "angle", (1, 0, 2), 130.18),  # a28
    ("CC", "torsion", (2, 0, 1, 5), 9 * 0.19119),  # t3
    ("CCCC", "torsion", (0, 1, 2, 3), 9 * 0.092239 + 4 * 0.31599 + 0.32478),  # t2
    ("CO", "torsion", (2, 0, 1, 5), 9 * 0.90792 / 3),  # t93, divided by 3
    ("OCCO", "torsion", (0, 1, 2, 3), 9 * 0.030967 + 4 * 0.45982),  # t5, one constant is negative
    ("C=C", "torsion", (2, 0, 1, 4), 4 * 5.2948),  # t45
]


@pytest.mark.parametrize(("smiles", "kind", "term", "expected"), CASES)
def test_constants_by_hand(smiles, kind, term, expected):
    assert of(smiles, kind, *term) == pytest.approx(expected)
    assert of(smiles, kind, *term[::-1]) == of(smiles, kind, *term)


def test_a_term_without_a_pattern_has_no_constant():
    assert of("[SiH4]", "bond", 0, 1) is None
    assert stiffness(molecule("CC"), "angle", set()) == {}


def test_ruling_out_by_elements_loses_nothing():
    """Patterns skipped because of the elements are those that would not match."""
    for smiles in ("CCO", "CC(=O)N", "CS(=O)(=O)N", "ClC=C", "c1ccncc1"):
        mol = molecule(smiles)
        present = {atom.GetAtomicNum() for atom in mol.GetAtoms()}
        for each in patterns()["torsion"]:
            if not all(elements & present for elements in each.elements):
                assert not mol.HasSubstructMatch(each.query), each.name


def test_the_elements_of_a_pattern_are_read_off_its_smirks():
    by_name = {each.name: each for each in patterns()["bond"] + patterns()["torsion"]}
    assert by_name["b12"].elements in {(frozenset({6}), frozenset({7})), (frozenset({7}), frozenset({6}))}
    assert set(by_name["b55"].elements) == {frozenset({16}), frozenset({8, 7})}
    assert by_name["t165"].elements == ()
    assert re.search(r"\$\(", Chem.MolToSmarts(by_name["t26"].query))
