"""Splits by scaffold and by a column of the user's own."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from molspectra.apps.audit import audit
from molspectra.chem.molecule import Molecule
from molspectra.chem.scaffold import scaffold_of
from molspectra.data.splits import SPLITS, scaffolds
from molspectra.data.store.export import export_parquet
from molspectra.data.store.schema import SPLIT, Metadata, Quantity
from molspectra.data.store.store import Row, Store, write_store
from molspectra.datasets.prepare import prepare
from molspectra.datasets.registry import importer
from molspectra.errors import FormatError, InputError, NotFoundError, SettingError, ValueRangeError
from molspectra.training.config import DataConfig
from molspectra.training.data import Selection, split_store

RINGS = ("c1ccccc1", "C1CCCCC1", "c1ccoc1", "c1ccncc1", "C1CC1", "C1CCNCC1", "c1ccsc1", "C1CCOC1")
SMILES = [f"{'C' * chain}{ring}" for ring in RINGS for chain in range(6)] + ["C" * n for n in range(1, 25)]
SCAFFOLD = DataConfig(split="scaffold", fractions=(0.5, 0.2, 0.3))


def stored(path: Path, smiles: list[str | None], properties: dict[str, list[float]] | None = None) -> str:
    """A store of rows with these SMILES whose structures are made up."""
    properties = properties or {}
    rows = [
        Row(
            Molecule([8, 1], [[0, 0, 0], [0, 0, 0.9 + 0.001 * number]], smiles=text),
            properties={name: values[number] for name, values in properties.items() if values[number] >= 0},
            identity=None if text else f"ID{number}",
        )
        for number, text in enumerate(smiles)
    ]
    names = {name: SPLIT if name == "set" else Quantity("eV") for name in properties}
    write_store(path, rows, Metadata("made up", "CC0", properties=names))
    return str(path)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Cc1ccccc1", "OC(=O)c1ccc(N)cc1"),
        ("C[C@H]1CC1/C=C/c1ccco1", "C1CC1\\C=C/c1ccco1"),
        ("c1ccccc1CCC2CC2", "C1CC1CCC2=CC=CC=C2"),
    ],
)
def test_molecules_of_one_scaffold(one: str, other: str) -> None:
    assert scaffold_of(one) == scaffold_of(other) != scaffold_of("C1CC1c1ccccc1")


def test_chains_have_no_scaffold() -> None:
    assert scaffold_of("CC(=O)OCC") == ""
    with pytest.raises(FormatError, match="c1ccc"):
        scaffold_of("c1ccc")


def test_all_molecules_of_a_scaffold_are_in_one_part_in_every_store(tmp_path: Path) -> None:
    whole = Store(stored(tmp_path / "a.arrow", SMILES))
    half = Store(stored(tmp_path / "b.arrow", SMILES[::-2]))

    def part_by_smiles(store: Store) -> dict[str | None, str]:
        parts = split_store(store, SCAFFOLD)
        assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(store)))
        return {store.smiles[row]: part for part, rows in parts.items() for row in rows}

    found, again = part_by_smiles(whole), part_by_smiles(half)
    assert again == {smiles: found[smiles] for smiles in again}
    by_ring: dict[str, set[str]] = {}
    for smiles in SMILES[:48]:
        by_ring.setdefault(scaffold_of(smiles), set()).add(found[smiles])
    assert len(by_ring) == len(RINGS)
    assert all(len(parts) == 1 for parts in by_ring.values())
    assert len(set.union(*by_ring.values())) > 1
    assert min(Counter(found[smiles] for smiles in SMILES[48:]).values()) > 2  # chains go by themselves
    by_identity = split_store(whole, DataConfig(fractions=SCAFFOLD.fractions))
    chains = {smiles: found[smiles] for smiles in SMILES[48:]}
    assert chains == {whole.smiles[row]: part for part in SPLITS for row in by_identity[part] if row >= 48}


def test_an_identity_has_one_scaffold() -> None:
    tautomers = ["Oc1ccccn1", "O=c1cccc[nH]1", None]
    assert scaffold_of("Oc1ccccn1") != scaffold_of("O=c1cccc[nH]1")
    keys = scaffolds(["UBQKCCHYAOITMY"] * 3, tautomers)
    assert len(set(keys)) == 1
    assert keys == scaffolds(["UBQKCCHYAOITMY"] * 3, tautomers[::-1])


def test_rows_without_smiles_are_refused(tmp_path: Path) -> None:
    path = stored(tmp_path / "a.arrow", [*SMILES[:4], None, None])
    with pytest.raises(NotFoundError, match=r"a\.arrow: 2 of its 6 rows have no SMILES.*row 4, ID4"):
        Selection.of(DataConfig(path, split="scaffold"))


def test_a_single_scaffold_cannot_be_split(tmp_path: Path) -> None:
    path = stored(tmp_path / "a.arrow", SMILES[:6])
    with pytest.raises(SettingError, match="all 6 rows have one scaffold"):
        Selection.of(DataConfig(path, split="scaffold"))


def test_an_audit_by_scaffold(tmp_path: Path) -> None:
    path = stored(tmp_path / "a.arrow", SMILES)
    same = audit(path, [path], SCAFFOLD, SCAFFOLD)
    assert same.together.structures == 0 < same.together.tested
    assert audit(path, [path], SCAFFOLD, DataConfig(fractions=SCAFFOLD.fractions)).together.structures > 0


TABLE = "smiles,gap [eV],Set\nCCO,1,train\nCCC,2,Train\nCO,3,VALID\nCN,4,validation\nCCN,5,test\nC,6,\n"


def test_a_column_of_a_table_gives_the_parts(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(TABLE)
    out = tmp_path / "a.arrow"
    prepare(importer("csv"), tmp_path / "a.csv", out, options={"split": "Set"}, show=False)
    column = DataConfig(str(out), split="column", split_column="Set")
    selection = Selection.of(column, ("gap",))
    parts = [rows.tolist() for rows in (selection.train, selection.val, selection.test)]
    assert parts == [[0, 1], [2, 3], [4]]
    assert selection.unassigned == 1
    assert "1 of its 6 rows are in no part" in selection.remarks(("gap",))[0]
    assert Selection.of(DataConfig(str(out), fractions=(0.4, 0.3, 0.3))).unassigned == 0
    with pytest.raises(SettingError, match="Set tells the parts"):
        Selection.of(column, ("Set",))
    with pytest.raises(NotFoundError, match=r"no split column 'set' in it \(it has: Set\)"):
        Selection.of(DataConfig(str(out), split="column", split_column="set"))
    with pytest.raises(SettingError, match=r"gap is a property.*\(it has: Set\).*train, val and test"):
        Selection.of(DataConfig(str(out), split="column", split_column="gap"))


@pytest.mark.parametrize(
    ("table", "name", "said"),
    [
        (TABLE.replace("VALID", "vaild"), "Set", r"line 4: Set: 'vaild' is no part of a split"),
        (TABLE, "Sets", "did you mean 'Set'"),
        (TABLE.replace("gap [eV]", "Set [eV]"), "Set", "a property has the name of the split"),
    ],
)
def test_another_word_or_column_is_refused(tmp_path: Path, table: str, name: str, said: str) -> None:
    (tmp_path / "a.csv").write_text(table)
    with pytest.raises(InputError, match=said):
        prepare(
            importer("csv"), tmp_path / "a.csv", tmp_path / "a.arrow", options={"split": name}, show=False
        )


def test_a_column_of_a_parquet_file_gives_the_parts(tmp_path: Path) -> None:
    words = ["train", "Train", None, "val", "test"]
    columns = {"smiles": ["CCO", "CCC", "CO", "CN", "CCN"], "gap [eV]": [1.0, 2.0, 3.0, 4.0, 5.0]}

    def prepared(words: list[str | None]) -> Path:
        pq.write_table(pa.table({**columns, "my set": pa.array(words)}), tmp_path / "a.parquet")
        raw, out = tmp_path / "a.parquet", tmp_path / "a.arrow"
        prepare(importer("parquet"), raw, out, options={"split": "my set"}, show=False)
        return out

    with pytest.raises(ValueRangeError, match=r"a\.parquet, row 3: my set: 'vla'"):
        prepared([*words[:3], "vla", "test"])
    config = DataConfig(str(prepared(words)), split="column", split_column="my_set")
    selection = Selection.of(config, ("gap",))
    parts = [rows.tolist() for rows in (selection.train, selection.val, selection.test)]
    assert (parts, selection.unassigned) == ([[0, 1], [3], [4]], 1)
    export_parquet(Store(config.store), tmp_path / "again.parquet")
    prepare(
        importer("parquet"),
        tmp_path / "again.parquet",
        tmp_path / "b.arrow",
        options={"level": "mine"},
        show=False,
    )
    assert Store(tmp_path / "b.arrow").metadata.properties["my_set"] == SPLIT


def test_another_number_and_an_empty_training_part_are_refused(tmp_path: Path) -> None:
    wrong = stored(tmp_path / "a.arrow", SMILES[:4], {"set": [0.0, 1.0, 3.0, 2.0]})
    with pytest.raises(ValueRangeError, match=r"a\.arrow, row 2: set is 3, not 0"):
        Selection.of(DataConfig(wrong, split="column", split_column="set"))
    empty = stored(tmp_path / "b.arrow", SMILES[:4], {"set": [1.0, 1.0, -1, 2.0]})
    with pytest.raises(ValueRangeError, match="the train part of the split is empty"):
        Selection.of(DataConfig(empty, split="column", split_column="set"))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"split": "column"}, r"--data\.split_column"),
        ({"split_column": "set"}, r"data\.split_column: 'set' .*identity split.*data\.split: column"),
        ({"split": "scaffold", "sizes": (3, 2)}, r"data\.sizes"),
    ],
)
def test_settings_that_contradict_each_other(values: dict[str, object], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        DataConfig(**values)  # type: ignore[arg-type]
