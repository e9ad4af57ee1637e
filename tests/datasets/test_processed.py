"""The paper's processed file, written as the graph library collates it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from qm9s_files import graph_classes, graphs, molecules, spectra_of

from molspectra.data.store.store import Store
from molspectra.datasets.prepare import prepare
from molspectra.datasets.published.processed import FILE, PROCESSED, TARGETS
from molspectra.datasets.published.qm9_targets import targets
from molspectra.errors import FormatError, InputError, UnitError

SHARED = Path(__file__).parents[3] / "shared/data/qm9/qm9_labelled_18568.npz"
ORDER = (
    *("mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "u0", "u298", "h298", "g298", "cv"),
    *("u0_atom", "u298_atom", "h298_atom", "g298_atom", "A", "B", "C"),
)


def published(z: np.ndarray, seed: int) -> list[float]:
    """Fifteen numbers as QM9 publishes them (Hartree), in the relations that they have there."""
    random = np.random.default_rng(seed)
    homo, gap = -random.uniform(0.2, 0.3), random.uniform(0.2, 0.35)
    u0 = sum({1: -0.6, 6: -38.1, 7: -54.8, 8: -75.3, 9: -99.9}[int(each)] for each in z)
    rotations = sorted(random.uniform(1, 9, 3), reverse=True)
    u298 = u0 + 0.006
    return [
        *rotations,
        random.uniform(0, 5),
        random.uniform(20, 90),
        homo,
        homo + gap,
        gap,
        *random.uniform(200, 1500, 1),
        random.uniform(0.05, 0.2),
        u0,
        u298,
        u298 + 0.000944,
        u0 - 0.03,
        random.uniform(10, 40),
    ]


def collated() -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields and slices of all molecules."""
    given = molecules()
    rows = [spectra_of(each, seed) for seed, each in enumerate(given)]
    values = [targets(published(each.z, seed), each.z) for seed, each in enumerate(given)]
    ends = np.cumsum([0, *(len(each.z) for each in given)])
    fields = {
        "pos": torch.tensor(np.concatenate([each.pos for each in given]), dtype=torch.float32),
        "z": torch.tensor(np.concatenate([each.z for each in given])),
        "name": [f"gdb_{each.number}" for each in given],
        "y": torch.tensor([[value[name] for name in ORDER] for value in values], dtype=torch.float32),
        "idx": torch.arange(len(given)),
        **{
            short: torch.tensor(np.array([row[name] for row in rows]), dtype=torch.float32)
            for name, short in (("uv_vis", "uv"), ("ir", "ir"), ("raman", "raman"))
        },
    }
    each = torch.arange(len(given) + 1)
    slices = {name: torch.tensor(ends) if name in ("pos", "z") else each for name in fields}
    return fields, slices


def write(folder: Path, form: str = "new", **changes: Any) -> Path:
    fields, slices = collated()
    for name, change in changes.items():
        fields[name] = change(fields[name])
    if form == "dict":
        torch.save((fields, slices, dict), folder / FILE)
    else:
        with graph_classes() as classes:
            torch.save((graphs([fields], *classes, old=form == "old")[0], slices), folder / FILE)
    return folder


@pytest.mark.parametrize("form", ["new", "old"])
def test_every_value(tmp_path: Path, form: str) -> None:
    raw = write(tmp_path, form)
    report = prepare("qm9s-processed", raw / FILE, tmp_path / "s.arrow", show=False)
    store, fields = Store(tmp_path / "s.arrow"), collated()[0]
    assert len(store) == len(molecules()) == report.tally.rows
    for row, expected in enumerate(molecules()):
        found = store.row(row)
        assert found.molecule.name == f"gdb_{expected.number}"
        np.testing.assert_array_equal(found.molecule.numbers, expected.z)
        np.testing.assert_array_equal(found.molecule.positions, expected.pos.astype(np.float32))
        np.testing.assert_array_equal([found.properties[name] for name in ORDER], fields["y"][row].double())
        for name, short in (("uv_vis", "uv"), ("ir", "ir"), ("raman", "raman")):
            np.testing.assert_array_equal(found.spectra[name].values, fields[short][row].double())
    assert store.metadata.properties["gap"].unit == "eV"
    assert store.metadata.properties["A"].unit == "GHz"
    assert "H - U = kT (100.0%)" in report.remarks["targets"]
    assert report.remarks["one row later"].startswith("the spectra side with row i = entry i")


def test_the_usual_order() -> None:
    assert TARGETS == ORDER


def test_without_targets_and_classes(tmp_path: Path) -> None:
    fields, slices = collated()
    del fields["y"], fields["raman"]
    torch.save((fields, slices), tmp_path / FILE)
    opened = PROCESSED.open(tmp_path, {})
    assert not opened.metadata.properties
    assert set(opened.metadata.samples) == {"uv_vis", "ir"}
    row = next(opened.candidates(5)).make()
    assert row.molecule.name == f"gdb_{molecules()[5].number}"


def hartree(y: torch.Tensor) -> torch.Tensor:
    y = y.clone()
    y[:, [2, 3, 4, 6, 7, 8, 9, 10]] /= 27.211386
    return y


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (hartree, "H - U = kT holds for 0%"),
        (lambda y: y[:, [*range(16, 19), *range(16)]], "gap = LUMO - HOMO holds for"),
        (lambda y: y.flip(0), "atomisation energy = U0 - free atoms holds for"),
    ],
    ids=["hartree", "rotated", "other molecules"],
)
def test_other_units_or_order_of_targets(tmp_path: Path, change: Any, text: str) -> None:
    write(tmp_path, y=change)
    with pytest.raises(UnitError, match=f"y is not in the usual order and units: {text}"):
        PROCESSED.open(tmp_path, {})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"ir": lambda ir: ir[:, :700]}, r"ir is \(65, 700\), not of shape \(65, 3501\)"),
        ({"z": lambda z: z[:-1]}, r"z is \(\d+,\), not of shape"),
        ({"name": lambda name: "gdb_1"}, "no list of names"),
        ({"ir": lambda ir: ir.roll(1, 0), "raman": lambda raman: raman.roll(1, 0)}, "do not belong together"),
    ],
    ids=["axis", "atoms", "names", "rolled"],
)
def test_files_that_do_not_fit(tmp_path: Path, changes: Any, text: str) -> None:
    write(tmp_path, **changes)
    with pytest.raises(InputError, match=text):
        PROCESSED.open(tmp_path, {})


def test_other_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        PROCESSED.open(tmp_path, {})
    torch.save([1, 2, 3], tmp_path / FILE)
    with pytest.raises(FormatError, match="holds no"):
        PROCESSED.open(tmp_path, {})


@pytest.mark.skipif(not SHARED.is_file(), reason="needs the labelled QM9 subset")
def test_targets_of_real_molecules(tmp_path: Path) -> None:
    with np.load(SHARED) as file:
        names, count = [str(name) for name in file["prop_names"]], 400
        begins = np.concatenate([np.zeros(1, np.int64), np.cumsum(file["n_atoms"].astype(np.int64))])[
            : count + 1
        ]
        z, pos = file["z"][: begins[-1]], file["pos"][: begins[-1]]
        props = file["props"][:count]
    assert names[:3] == ["A", "B", "C"]
    assert names[-1] == "Cv"
    values = [targets(row.tolist(), z[begins[k] : begins[k + 1]]) for k, row in enumerate(props)]
    fields = {
        "pos": torch.tensor(pos),
        "z": torch.tensor(z.astype(np.int64)),
        "name": [f"gdb_{k}" for k in range(count)],
        "y": torch.tensor([[value[name] for name in ORDER] for value in values], dtype=torch.float32),
        "uv": torch.rand(count, 701),
    }
    slices = {name: torch.tensor(begins) for name in ("pos", "z")}
    torch.save((fields, slices), tmp_path / FILE)
    notes = PROCESSED.open(tmp_path, {}).notes
    assert notes["targets"].startswith("order and units of y checked on 400 molecules")
    assert "not made" in notes["check of the join"]
