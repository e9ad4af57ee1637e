"""The list of molecules that the bundled dataset is made from, and the rules of the script that grows it."""

import csv
import importlib.util
import re
from collections import Counter
from pathlib import Path

import pytest
from rdkit import Chem
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

ROOT = Path(__file__).resolve().parent.parent
ELEMENTS = {"C", "N", "O", "F", "S", "Cl"}


@pytest.fixture(scope="module")
def rows():
    with (ROOT / "datasets" / "bundled" / "molecules.csv").open(newline="", encoding="utf-8") as file:
        return [(Chem.MolFromSmiles(row["smiles"]), row["name"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def script():
    path = ROOT / "scripts" / "make_molecule_list.py"
    spec = importlib.util.spec_from_file_location("make_molecule_list", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_molecules_are_small_neutral_closed_shell_and_whole(rows):
    for mol, _ in rows:
        smiles = Chem.MolToSmiles(mol)
        assert 1 <= mol.GetNumHeavyAtoms() == mol.GetNumAtoms() <= 7, smiles
        assert {a.GetSymbol() for a in mol.GetAtoms()} <= ELEMENTS, smiles
        assert Chem.GetFormalCharge(mol) == 0, smiles
        assert sum(a.GetNumRadicalElectrons() for a in mol.GetAtoms()) == 0, smiles
        assert len(Chem.GetMolFrags(mol)) == 1, smiles


def test_identities_are_unique(rows):
    keys = Counter(Chem.MolToInchiKey(mol)[:14] for mol, _ in rows)
    assert [key for key, n in keys.items() if n > 1] == []
    assert len(keys) >= 2400


def test_named_molecules_come_first_and_names_are_unique(rows):
    names = [name for _, name in rows]
    named = sum(map(bool, names))
    assert named >= 350
    assert all(names[:named])
    assert len(set(names[:named])) == named


def test_any_prefix_is_diverse_and_isomers_abound(rows):
    sizes = [mol.GetNumAtoms() for mol, _ in rows]
    for start in range(0, len(rows) - 200, 200):
        assert len(set(sizes[start : start + 200])) >= 4
    formulas = Counter(CalcMolFormula(mol) for mol, _ in rows)
    assert sum(n for n in formulas.values() if n >= 5) > len(rows) / 2


# Formulas known by heart, so that a name on the wrong SMILES shows.
FORMULAS = {
    "water": "H2O", "acetone": "C3H6O", "benzene": "C6H6", "toluene": "C7H8", "phenol": "C6H6O",
    "aniline": "C6H7N", "pyridine": "C5H5N", "furan": "C4H4O", "thiophene": "C4H4S",
    "imidazole": "C3H4N2", "glycine": "C2H5NO2", "alanine": "C3H7NO2", "dimethyl sulfoxide": "C2H6OS",
    "acetic acid": "C2H4O2", "urea": "CH4N2O", "glycerol": "C3H8O3", "tetrahydrofuran": "C4H8O",
    "1,4-dioxane": "C4H8O2", "chloroform": "CHCl3", "N,N-dimethylformamide": "C3H7NO",
    "fluorobenzene": "C6H5F", "cysteine": "C3H7NO2S", "chlorobenzene": "C6H5Cl", "nitromethane": "CH3NO2",
    "furfural": "C5H4O2", "norbornadiene": "C7H8", "taurine": "C2H7NO3S", "hydantoin": "C3H4N2O2",
    "maleic anhydride": "C4H2O3", "sulfolane": "C4H8O2S", "triethylamine": "C6H15N",
    "trifluoroacetic acid": "C2HF3O2", "lactic acid": "C3H6O3", "biuret": "C2H5N3O2",
}  # fmt: skip


def test_names_fit_their_formulas(rows):
    found = {name: CalcMolFormula(mol) for mol, name in rows if name in FORMULAS}
    assert found == FORMULAS


@pytest.mark.parametrize(
    "smiles",
    [
        "C1#CC1",  # cyclopropyne
        "C1=C2CC1C2",  # double bond at a bridgehead
        "C1=CC=C1",  # cyclobutadiene
        "NNN",
        "OOO",
        "OC(O)C",  # geminal diol
        "C=C(O)C",  # enol
        "C1=C=CCC1",  # allene in a ring
        "CCOF",
    ],
)
def test_odd_molecules_are_refused(script, smiles):
    mol = Chem.MolFromSmiles(smiles)
    assert not script.sane(mol, script.surroundings(mol))


@pytest.mark.parametrize(
    "smiles", ["CC1CO1", "CC1CN1", "C1CC2OC2C1", "CC(=O)CF", "Cc1ccco1", "CCC[N+](=O)[O-]"]
)
def test_ordinary_molecules_are_kept(script, smiles):
    mol = Chem.MolFromSmiles(smiles)
    assert script.sane(mol, script.surroundings(mol))
    assert not script.sane(mol, set())


def test_edits_of_water_are_its_neighbours(script):
    mols = filter(None, map(script.finish, script.edits(Chem.MolFromSmiles("O"))))
    assert {Chem.MolToSmiles(mol) for mol in mols} == {
        "CO", "NO", "OO", "OF", "OS", "OCl",  # one more atom
        "C", "N", "F", "S", "Cl",  # another atom
    }  # fmt: skip


def test_list_starts_with_every_known_molecule(rows, script):
    known = {name for _, name in script.read_known()}
    assert {name for _, name in rows if name} == known
    assert not any(re.search(r"\d{3,}|SKIP|\?", name) for name in known)
