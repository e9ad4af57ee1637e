"""Molecules as people have them in Python, a model that works on them, and the rows of a store."""

import pickle
import threading

import ase.build
import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom

import molspectra as ms
from molspectra.apps.molecules import candidates_of
from molspectra.chem.readers import from_rdkit
from molspectra.errors import ElementError, FormatError, InputError, MismatchError, ValueRangeError
from molspectra.search.sources import groups_of

pd = pytest.importorskip("pandas")


@pytest.fixture(scope="module")
def embedded():
    """Ethanol of RDKit with hydrogens and a conformer."""
    mol = Chem.AddHs(Chem.MolFromSmiles("OCC"))
    rdDistGeom.EmbedMolecule(mol, randomSeed=1)
    mol.SetProp("_Name", "ethanol")
    return mol


def test_a_molecule_of_rdkit_keeps_its_coordinates_and_order(embedded):
    before = embedded.ToBinary()
    molecule = from_rdkit(embedded)
    assert embedded.ToBinary() == before
    assert molecule.symbols == [atom.GetSymbol() for atom in embedded.GetAtoms()]
    np.testing.assert_array_equal(molecule.positions, embedded.GetConformer().GetPositions())
    assert (molecule.smiles, molecule.name, molecule.charge) == ("CCO", "ethanol", 0)
    assert from_rdkit(Chem.MolFromSmiles("C[NH3+]"), "mine").charge == 1
    assert from_rdkit(Chem.MolFromSmiles("OCC")).identity == molecule.identity


@pytest.mark.parametrize("kind", ["embed", "index"])
def test_workers_get_a_molecule_of_rdkit_without_loss(embedded, kind):
    """RDKit's own pickles round the coordinates and lack the name."""
    items = candidates_of([embedded]).items if kind == "embed" else next(groups_of([embedded]).groups)
    ((where, read),) = pickle.loads(pickle.dumps(list(items)))
    found, expected = read(), from_rdkit(embedded)
    molecule = found if kind == "embed" else found.molecule
    np.testing.assert_array_equal(molecule.positions, expected.positions)
    assert (where, molecule.name, molecule.smiles) == ("item 1", "ethanol", expected.smiles)


def test_workers_get_atoms_without_their_calculator():
    water = ase.build.molecule("H2O")
    water.info["charge"] = 1
    water.calc = threading.Lock()  # stands for one that cannot be pickled
    ((_, read),) = pickle.loads(pickle.dumps(candidates_of(water).items))
    np.testing.assert_array_equal(read().positions, water.positions)
    assert read().charge == 1
    assert water.calc is not None


def test_a_molecule_of_rdkit_that_is_no_structure_is_refused(embedded):
    with pytest.raises(ValueRangeError, match="hydrogen"):
        from_rdkit(Chem.RemoveHs(embedded))
    with pytest.raises(ElementError, match="isotope"):
        from_rdkit(Chem.MolFromSmiles("[13CH4]"))
    with pytest.raises(FormatError, match="empty"):
        from_rdkit(Chem.Mol())


def test_a_loaded_model_embeds_molecules_of_every_kind(embedded):
    model = ms.load("small")
    assert "small" in repr(model)
    assert "stage2" in repr(model)
    water = ase.build.molecule("H2O")
    found = model.embed([embedded, "CCO", water, ms.from_ase(water), Chem.MolFromSmiles("CCO")])
    assert found.columns["formula"] == ["C2H6O", "C2H6O", "H2O", "H2O", "C2H6O"]
    np.testing.assert_allclose(found.vectors[2], found.vectors[3], atol=1e-6)
    np.testing.assert_allclose(found.vectors[1], found.vectors[4], atol=1e-6)
    np.testing.assert_allclose(model.embed(embedded).vectors[0], found.vectors[0], atol=1e-5)
    np.testing.assert_allclose(model.embed(water).vectors[0], found.vectors[2], atol=1e-5)
    series = model.embed(pd.Series(["CCO", "O"], index=[7, 9]), pooled=True)
    assert series.vectors.shape == (2, 4 * model.width)
    assert model.embed(pd.Series(["O", None]), on_error="skip").rejected[0].where == "item 2"
    with pytest.raises(MismatchError, match="small"):
        model.predict(["O"])


def test_a_loaded_model_predicts(use_runs):
    model = ms.load(use_runs["gap"])
    found = model.predict([ase.build.molecule("H2O"), "CCO"])
    assert "predicts gap" in repr(model)
    np.testing.assert_array_equal(
        found.values, ms.predict([ase.build.molecule("H2O"), "CCO"], use_runs["gap"]).values
    )


def test_simulate_takes_one_molecule_or_several_of_every_kind(embedded):
    pytest.importorskip("tblite")
    water = ase.build.molecule("H2O")
    one = ms.simulate("O", ["ir"])
    assert "H2O, 3 ir lines" in repr(one)
    several = ms.simulate(["O", Chem.MolFromSmiles("O"), water], ["ir"])
    for each in several:
        np.testing.assert_allclose(each.lines["ir"].position, one.lines["ir"].position, rtol=1e-3)
    (given,) = ms.simulate([embedded], ["dos"], geometry="given")
    assert given.molecule.name == "ethanol"
    assert [each.molecule.formula for each in ms.simulate(pd.Series(["[H][H]"]), ["ir"])] == ["H2"]
    assert ms.simulate(water, ["ir"]).molecule.formula == "H2O"
    assert ms.simulate([], ["ir"]) == []


@pytest.mark.parametrize(
    ("given", "facts"),
    [
        (["O", "C(("], ("item 2", "C((")),
        (["O", 3], ("item 2", "int")),
        (["O", "[CH3]"], ("item 2", "electrons")),
        (3, ("int",)),
        ("xyzzy", ("xyzzy",)),
    ],
)
def test_simulate_names_what_it_cannot_take(given, facts):
    pytest.importorskip("tblite")
    with pytest.raises(InputError) as caught:
        ms.simulate(given, ["ir"])
    assert all(fact in str(caught.value) for fact in facts)


def test_a_store_is_a_sequence_of_rows(use_store):
    store = ms.Store(use_store)
    rows = list(store)
    names = [f"molecule {number}" for number in range(len(store))]
    assert [row.molecule.name for row in rows] == names
    assert [row.molecule.name for row in store[-3:]] == names[-3:]
    assert [row.molecule.name for row in store[::-7]] == names[::-7]
    assert store[100:] == []
    assert store[-1].molecule.name == store[np.int64(len(store) - 1)].molecule.name == names[-1]
    assert store[2].properties == store.row(2).properties
    assert "C3H8" in repr(store[2])
    assert "gap" in repr(store[2])
    assert len(repr(store[2])) < 200
    for wrong in (len(store), -len(store) - 1):
        with pytest.raises(IndexError):
            store[wrong]
    with pytest.raises(TypeError):
        store["gap"]


def test_a_store_as_a_frame(use_store):
    store = ms.Store(use_store)
    frame = store.to_pandas()
    assert len(frame) == len(store)
    assert list(frame["identity"]) == store.identities
    np.testing.assert_array_equal(frame["gap"], store.column("gap"))
    np.testing.assert_array_equal(frame["has_raman"], store.has("raman"))
    assert frame.loc[0, ["smiles", "name", "atoms", "charge"]].tolist() == ["C", "molecule 0", 5, 0]
    assert frame.attrs == {"units": {"gap": "eV"}, "levels": {"gap": "made-up level"}}
    assert len(ms.load("small").embed(frame.head(3))) == 3


def test_prepare_makes_a_store_of_a_table(tmp_path):
    table = tmp_path / "mine.csv"
    table.write_text("smiles,gap [eV]\nCCO,7.1\nO,8.2\n")
    report = ms.prepare("csv", table, tmp_path / "mine.arrow", show=False)
    assert report.tally.rows == len(ms.Store(report.out)) == 2
