"""PCQM4Mv2's two published archives, made here in their layout."""

import io
import tarfile
import zipfile

import numpy as np
import pytest

from molspectra.chem.identity import GEOMETRY_PATTERN, identity_from_smiles
from molspectra.chem.readers import from_smiles
from molspectra.data.store.store import Store
from molspectra.datasets.prepare import prepare
from molspectra.datasets.published.pcqm4mv2 import PCQM4MV2
from molspectra.errors import InputError, NotFoundError, SettingError

SMILES = [
    "CCO",
    "c1ccncc1",
    "C[NH2+]CC(=O)[O-]",
    "C[N+](C)(C)C",
    "O=C1NC(=O)NC=C1",
    "C[N+](=O)[O-]",
    "FC(F)(F)Cl",
]


@pytest.fixture(scope="module")
def molecules():
    return [from_smiles(each) for each in SMILES]


@pytest.fixture(scope="module")
def blocks(molecules):
    """MOL blocks as RDKit writes them, hydrogens explicit."""
    from rdkit import Chem
    from rdkit.Geometry import Point3D

    made = []
    for smiles, molecule in zip(SMILES, molecules, strict=True):
        mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
        conformer = Chem.Conformer(len(molecule))
        for index, place in enumerate(molecule.positions.tolist()):
            conformer.SetAtomPosition(index, Point3D(*place))
        mol.AddConformer(conformer)
        made.append(Chem.MolToMolBlock(mol))
    return made


def sdf_tar(path, blocks):
    text = "".join(f"{block}>  <id>  (1)\n{number}\n\n$$$$\n" for number, block in enumerate(blocks)).encode()
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("pcqm4m-v2-train.sdf")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    return path


def xyz_text(molecule):
    rows = zip(molecule.symbols, molecule.positions, strict=True)
    return f"{len(molecule)}\n\n" + "".join(f"{s} {x:.6f} {y:.6f} {z:.6f}\n" for s, (x, y, z) in rows)


def xyz_zip(path, texts):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("pcqm4m-v2_xyz")
        for number, text in enumerate(texts):
            archive.writestr(f"pcqm4m-v2_xyz/0000000_0009999/{number}.xyz", text)
    return path


def made_store(raw, tmp_path, limit=None, **options):
    report = prepare(
        PCQM4MV2, raw, tmp_path / "out.arrow", options=options, limit=limit, show=False, overwrite=True
    )
    return Store(tmp_path / "out.arrow"), report


def test_sdf(tmp_path, blocks, molecules):
    sdf_tar(tmp_path / "pcqm4m-v2-train.sdf.tar.gz", blocks)
    store, report = made_store(tmp_path, tmp_path)
    assert store.identities == [identity_from_smiles(each) for each in SMILES]
    assert [store.molecule(row).name for row in range(7)] == [f"pcqm4m-v2 {row}" for row in range(7)]
    for row, molecule in enumerate(molecules):
        assert store.molecule(row).numbers.tolist() == molecule.numbers.tolist()
        assert store.molecule(row).positions == pytest.approx(molecule.positions, abs=1e-4)
        assert store.molecule(row).charge == molecule.charge
    assert store.metadata.level == "B3LYP/6-31G* (PubChemQC)"
    assert store.metadata.licence == "CC BY 4.0"
    assert report.expected == 3_378_606


def test_the_tar_itself_and_the_unpacked_sdf(tmp_path, blocks):
    tar = sdf_tar(tmp_path / "pcqm4m-v2-train.sdf.tar.gz", blocks)
    hashes = {made_store(tar, tmp_path)[0].identities[0]}
    with tarfile.open(tar) as archive:
        (tmp_path / "pcqm4m-v2-train.sdf").write_bytes(
            archive.extractfile(archive.getmember("pcqm4m-v2-train.sdf")).read()
        )
    hashes.add(made_store(tmp_path / "pcqm4m-v2-train.sdf", tmp_path)[0].identities[0])
    assert hashes == {"LFQSCWFLJHTTHZ"}


def test_xyz(tmp_path, molecules):
    neutral = [molecule for molecule in molecules if not molecule.charge]
    path = xyz_zip(tmp_path / "pcqm4m-v2_xyz.zip", map(xyz_text, neutral))
    store, report = made_store(tmp_path, tmp_path)
    assert report.total == len(neutral) == len(store)
    assert store.identities == [molecule.identity for molecule in neutral]
    assert store.molecule(1).name == "pcqm4m-v2 1"
    assert store.molecule(1).positions == pytest.approx(neutral[1].positions, abs=1e-6)
    assert [each.name for each in PCQM4MV2.open(path, {}).candidates(4)] == ["pcqm4m-v2 4", "pcqm4m-v2 5"]


@pytest.mark.parametrize("form", ["sdf", "xyz"])
def test_identity_by_geometry_is_the_same_in_both_forms(tmp_path, molecules, blocks, form):
    if form == "sdf":
        sdf_tar(tmp_path / "pcqm4m-v2-train.sdf.tar.gz", blocks)
    else:
        xyz_zip(tmp_path / "pcqm4m-v2_xyz.zip", map(xyz_text, molecules))
    store, _ = made_store(tmp_path, tmp_path, identity="geometry")
    assert all(map(GEOMETRY_PATTERN.fullmatch, store.identities))
    assert len(set(store.identities)) == len(SMILES)
    from molspectra.chem.identity import geometry_hash

    assert store.identities[0] == geometry_hash(molecules[0].numbers, molecules[0].positions)


def test_records_span_reads(tmp_path, blocks, monkeypatch):
    path = sdf_tar(tmp_path / "pcqm4m-v2-train.sdf.tar.gz", blocks)
    whole = [each.make().molecule.geometry_id for each in PCQM4MV2.open(path, {}).candidates(0)]
    for size in (17, 1000):
        monkeypatch.setattr("molspectra.datasets.formats.sdf_table._READ", size)
        again = [each.make().molecule.geometry_id for each in PCQM4MV2.open(path, {}).candidates(2)]
        assert again == whole[2:]


def test_bad_records_are_named(tmp_path, blocks):
    without = blocks[0].replace(" H  ", " Q  ", 1)
    bare = "\n".join(line for line in blocks[1].split("\n"))
    from rdkit import Chem

    few = Chem.MolToMolBlock(Chem.RemoveHs(Chem.MolFromMolBlock(blocks[1], removeHs=False)))
    broken = blocks[3].replace("0.", "x.", 1)
    cut = "\n".join(blocks[4].split("\n")[:9])
    sdf_tar(tmp_path / "pcqm4m-v2-train.sdf.tar.gz", [blocks[0], without, few, broken, cut, bare])
    store, report = made_store(tmp_path, tmp_path)
    reasons = {each["name"]: each["reason"] for each in report.named}
    assert len(store) == 2
    assert list(reasons) == [f"pcqm4m-v2 {number}" for number in (1, 2, 3, 4)]
    assert "not the symbol of a chemical element" in reasons["pcqm4m-v2 1"]
    assert "5 hydrogen atoms have no coordinates" in reasons["pcqm4m-v2 2"]
    assert "three coordinates" in reasons["pcqm4m-v2 3"]
    assert "cut short" in reasons["pcqm4m-v2 4"]


def test_a_carbene_gets_its_identity_from_its_geometry(tmp_path):
    block = (
        "\n     RDKit          3D\n\n  3  2  0  0  0  0  0  0  0  0999 V2000\n"
        "    0.0000    0.0000    0.0000 C   0  0\n    1.1080    0.0000    0.0000 H   0  0\n"
        "   -0.2300    1.0840    0.0000 H   0  0\n  1  2  1  0\n  1  3  1  0\nM  END\n"
    )
    sdf_tar(tmp_path / "pcqm4m-v2-train.sdf.tar.gz", [block])
    store, _ = made_store(tmp_path, tmp_path)
    assert store.identities != [identity_from_smiles("C")]
    assert store.identities == [store.molecule(0).identity]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("3\n\nC 0 0 0\nH 0 0 1.1\n", "not have the 3 atoms"),
        ("1\n\nC 0 0 0\nH 0 0 1.1\n", "not have the 1 atoms"),
        ("two\n\nC 0 0 0\n", "not an XYZ file"),
        ("2\n\nC 0 0 0\nH 0 1.1\n", "not an XYZ file"),
        ("2\n\nC 0 0 0\nXx 0 0 1.1\n", "not the symbol"),
        ("2\n\nC 0 0 0\nH 0 0 nan\n", "finite"),
        ("", "not an XYZ file"),
    ],
)
def test_bad_xyz_files_are_named(tmp_path, molecules, text, words):
    xyz_zip(tmp_path / "pcqm4m-v2_xyz.zip", [xyz_text(molecules[0]), text])
    store, report = made_store(tmp_path, tmp_path)
    assert len(store) == 1
    assert report.named[0]["name"] == "pcqm4m-v2 1"
    assert words in report.named[0]["reason"]


def test_names_that_are_no_numbers(tmp_path, molecules):
    with zipfile.ZipFile(tmp_path / "pcqm4m-v2_xyz.zip", "w") as archive:
        archive.writestr("pcqm4m-v2_xyz/0/0.xyz", xyz_text(molecules[0]))
        archive.writestr("../../evil.xyz", xyz_text(molecules[1]))
    _, report = made_store(tmp_path, tmp_path)
    assert report.named[0] == {
        "record": 1,
        "name": "../../evil.xyz",
        "reason": "it is not called <number>.xyz, as the structures of PCQM4Mv2 are",
    }
    assert not (tmp_path.parent / "evil.xyz").exists()


def test_what_is_not_there(tmp_path):
    with pytest.raises(NotFoundError, match="neither"):
        PCQM4MV2.open(tmp_path, {})
    (tmp_path / "a.txt").write_text("x", encoding="utf-8")
    with pytest.raises(NotFoundError, match="neither"):
        PCQM4MV2.open(tmp_path / "a.txt", {})
    with pytest.raises(SettingError, match="identity='inchi' is not known"):
        PCQM4MV2.open(tmp_path, {"identity": "inchi"})


def test_a_cut_archive_is_refused(tmp_path, blocks):
    rng = np.random.default_rng(0)
    noise = ["".join(map(chr, rng.integers(33, 126, 3000))) + "\n" for _ in range(30)]
    path = sdf_tar(tmp_path / "pcqm4m-v2-train.sdf.tar.gz", [*blocks, *noise])
    path.write_bytes(path.read_bytes()[:-20_000])
    with pytest.raises(InputError, match="cut short"):
        made_store(path, tmp_path)
    assert not (tmp_path / "out.arrow").exists()
