"""QM8 in its published forms; the files are made here in exactly the published layout."""

import tarfile
from pathlib import Path

import numpy as np
import pytest

from molspectra.chem.identity import identity_from_smiles
from molspectra.data.store.store import Store
from molspectra.datasets.prepare import prepare
from molspectra.datasets.published.qm8 import LEVELS, lines_of
from molspectra.datasets.report import Report
from molspectra.errors import InputError, NotFoundError, SettingError
from molspectra.simulation.units import HARTREE

ATOMS = {
    1: [
        ("C", -0.0127, 1.0858, 0.008),
        ("H", 0.0022, -0.006, 0.002),
        ("H", 1.0117, 1.4638, 0.0003),
        ("H", -0.5408, 1.4475, -0.8766),
        ("H", -0.5238, 1.4379, 0.9064),
    ],
    2: [
        ("N", -0.0404, 1.0241, 0.0626),
        ("H", 0.0173, 0.0125, -0.0274),
        ("H", 0.9158, 1.3587, -0.0288),
        ("H", -0.5203, 1.3435, -0.7755),
    ],
    7: [("O", -0.0344, 0.9775, 0.0076), ("H", 0.0648, 0.0206, 0.0015), ("H", 0.8718, 1.3008, 0.0007)],
}
LABELS = {
    1: "0.43295186 0.43295958 0.24972825 0.24973648 0.43021753 0.43023558 0.18143600 0.18150153 "
    "0.42021753 0.42023558 0.17143600 0.17150153 0.40993137 0.40993872 0.18320000 0.18320000",
    2: "0.26521952 0.35008064 0.06701544 0.03004918 0.26838581 0.34910570 0.04076087 0.03164115 "
    "0.25838581 0.33910570 0.03076087 0.02164115 0.25385331 0.33448133 0.05750000 0.02380000",
    7: "0.30000000 0.28000000 -0.00015304 0.05000000 0.28838581 0.34910570 0.04076087 0.03164115 "
    "0.27838581 0.33910570 0.03076087 0.02164115 0.27385331 0.33448133 0.05750000 0.02380000",
}
HEADER = "gdb9_index," + ",".join(
    f"{kind}-{level}" for level in ("CC2", "PBE0", "PBE0", "CAM") for kind in ("E1", "E2", "f1", "f2")
)


def sdf(atoms: dict[int, list[tuple[str, float, float, float]]] = ATOMS) -> str:
    """`qm8.sdf`."""
    lines = []
    for index, each in atoms.items():
        lines += [f"gdb_{index}", "  -OEChem-03231823243D", ""]
        lines.append(f"{len(each):3}{len(each) - 1:3}  0     0  0  0  0  0  0999 V2000")
        lines += [f"{x:10.4f}{y:10.4f}{z:10.4f} {s:<3} 0  0  0  0  0  0" for s, x, y, z in each]
        lines += [f"  1{other:3}  1  0  0  0  0" for other in range(2, len(each) + 1)]
        lines += ["M  END", "$$$$"]
    return "\n".join([*lines, ""])


def table(labels: dict[int, str] = LABELS) -> str:
    """`qm8.sdf.csv`, with its repeated names in the header."""
    return "\n".join([HEADER, *(f"{index},{','.join(text.split())}" for index, text in labels.items()), ""])


def as_moleculenet(text: str) -> str:
    """The labels with the second PBE0 block replaced by a copy of the first."""
    words = text.split()
    return " ".join([*words[:8], *words[4:8], *words[12:]])


def spectra_text(labels: dict[int, str] = LABELS) -> str:
    """`gdb8_22k_elec_spec.txt`."""
    head = ["# electronic spectra of 22k molecules", "#", "# 1 index in GDB-9", "#   2-5 RI-CC2/def2TZVP"]
    rows = [f"{index:8}" + "".join(f"{word:>15}" for word in text.split()) for index, text in labels.items()]
    return "\n".join([*head, *rows, ""])


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "qm8.sdf").write_text(sdf())
    (folder / "qm8.sdf.csv").write_text(table())
    return folder


def prepared(raw: Path, **options: str) -> tuple[Store, Report]:
    out = raw.parent / "qm8.arrow"
    report = prepare("qm8", raw, out, options=options, show=False, overwrite=True)
    return Store(out), report


def test_lines_and_properties(raw: Path) -> None:
    store, report = prepared(raw)
    assert [store.molecule(row).name for row in range(3)] == ["gdb_1", "gdb_2", "gdb_7"]
    assert store.identities == [identity_from_smiles(each) for each in ("C", "N", "O")]
    assert dict(store.metadata.lines) == {"uv_vis": "RI-CC2/def2-TZVP"}
    lines = store.spectrum(1, "uv_vis")
    assert lines is not None
    np.testing.assert_allclose(lines.position, np.array([0.26521952, 0.35008064]) * HARTREE, rtol=1e-6)
    np.testing.assert_allclose(lines.intensity, [0.06701544, 0.03004918], rtol=1e-6)
    assert store.column("e2_cc2_tzvp")[1] == pytest.approx(0.35008064 * HARTREE, rel=1e-14)
    assert store.column("f1_cam_b3lyp_tzvp")[1] == 0.0575
    assert store.metadata.properties["e1_pbe0_svp"].unit == "eV"
    assert store.metadata.properties["e1_pbe0_svp"].level == "TDDFT PBE0/def2-SVP"
    assert len(store.metadata.properties) == 16
    assert report.differences[0] == "3 records read, 21,786 expected"


def test_negative_strengths_are_clipped_in_the_lines_and_counted(raw: Path) -> None:
    store, report = prepared(raw)
    lines = store.spectrum(2, "uv_vis")
    assert lines is not None
    np.testing.assert_allclose(
        lines.position, np.array([0.28, 0.3]) * HARTREE, rtol=1e-6
    )  # in ascending order
    np.testing.assert_allclose(lines.intensity, [0.05, 0.0], rtol=1e-6)
    assert store.column("f1_cc2_tzvp")[2] == -0.00015304
    assert report.tally.changes == {"an oscillator strength below 0 is 0 in the lines": 1}


@pytest.mark.parametrize(("level", "place"), list(zip(LEVELS, range(0, 16, 4), strict=True)))
def test_levels(raw: Path, level: str, place: int) -> None:
    store, _ = prepared(raw, level=level)
    lines = store.spectrum(1, "uv_vis")
    assert lines is not None
    words = [float(word) for word in LABELS[2].split()[place : place + 2]]
    np.testing.assert_allclose(lines.position, np.array(words) * HARTREE, rtol=1e-6)
    assert store.metadata.lines["uv_vis"] == LEVELS[level]


def test_the_copy_with_a_repeated_level(raw: Path) -> None:
    (raw / "qm8.sdf.csv").write_text(table({index: as_moleculenet(text) for index, text in LABELS.items()}))
    store, _ = prepared(raw)
    assert "e1_pbe0_tzvp" not in store.metadata.properties
    assert "in place of PBE0/def2-TZVP" in store.metadata.notes["left_out"]
    with pytest.raises(NotFoundError, match=r"repeats the PBE0/def2-SVP.*take gdb8_22k_elec_spec.txt"):
        prepared(raw, level="pbe0-tzvp")
    (raw / "gdb8_22k_elec_spec.txt").write_text(spectra_text())  # complete, so that it is preferred
    store, _ = prepared(raw, level="pbe0-tzvp")
    assert store.column("e1_pbe0_tzvp")[0] == pytest.approx(0.42021753 * HARTREE)


def test_text_and_xyz_frames(raw: Path) -> None:
    (raw / "qm8.sdf").unlink()
    (raw / "gdb8_22k_elec_spec.txt").write_text(spectra_text())
    frames = []
    for index, atoms in ATOMS.items():
        frames += [str(len(atoms)), f"gdb {index}", *(" ".join(map(str, atom)) for atom in atoms)]
    (raw / "XYZ_B3LYP_631G2dfp.xyz").write_text("\n".join(frames) + "\n")
    store, report = prepared(raw)
    assert [store.molecule(row).name for row in range(3)] == ["gdb_1", "gdb_2", "gdb_7"]
    assert store.identities == [identity_from_smiles(each) for each in ("C", "N", "O")]
    (raw / "XYZ_B3LYP_631G2dfp.xyz").write_text("\n".join(frames).replace("gdb 7", "gdb 8") + "\n")
    store, report = prepared(raw)
    assert report.named[0]["reason"] == "the structure is molecule 8, the labels are of 7"


def test_the_archive(raw: Path) -> None:
    path = raw.parent / "gdb8.tar.gz"
    with tarfile.open(path, "w:gz") as packed:
        for name in ("qm8.sdf", "qm8.sdf.csv"):
            packed.add(raw / name, name)
    assert prepare("qm8", path, raw.parent / "b.arrow", show=False).tally.rows == 3
    frames = raw.parent / "frames.tar.gz"
    with tarfile.open(frames, "w:gz") as packed:
        packed.add(raw / "qm8.sdf.csv", "qm8.sdf.csv")
        packed.add(raw / "qm8.sdf", "XYZ_B3LYP_631G2dfp.xyz")
    with pytest.raises(NotFoundError, match="does not hold QM8"):  # frames are read in folders alone
        prepare("qm8", frames, raw.parent / "c.arrow", show=False)


BAD = {
    "a label is not a number": "x" + LABELS[7][1:],
    "the row has 15 labels": LABELS[7].rpartition(" ")[0],
    "not both positive": LABELS[7].replace("0.30000000", "-0.3"),
    "property 'f2_cam_b3lyp_tzvp' is nan": LABELS[7].rpartition(" ")[0] + " nan",
}


@pytest.mark.parametrize("reason", BAD)
def test_bad_labels_are_named(raw: Path, reason: str) -> None:
    (raw / "qm8.sdf.csv").write_text(table({**LABELS, 7: BAD[reason]}))
    store, report = prepared(raw)
    assert len(store) == 2
    assert report.named[0]["name"] == "gdb_7"
    assert reason in str(report.named[0]["reason"])


def test_files_that_do_not_belong_together(raw: Path) -> None:
    (raw / "qm8.sdf.csv").write_text(table({index: LABELS[index] for index in (1, 7, 2)}))
    with pytest.raises(InputError, match="the files do not belong together"):
        prepared(raw)
    (raw / "qm8.sdf.csv").write_text(table({1: LABELS[1]}))
    with pytest.raises(InputError, match="ends after 1 rows"):
        prepared(raw)
    (raw / "qm8.sdf.csv").unlink()
    with pytest.raises(NotFoundError, match=r"does not hold QM8; it must be a folder"):
        prepared(raw)


def test_unknown_level(raw: Path) -> None:
    with pytest.raises(SettingError, match="did you mean 'cc2-tzvp'"):
        prepared(raw, level="cc2-tzpv")


def test_real_values() -> None:
    """Those of the first molecules agree with what the made-up files above hold, and all become lines."""
    path = Path(__file__).parents[2] / "../shared/data/qm8/qm8_uv_lines.npz"
    if not path.is_file():
        pytest.skip("the QM8 subset is not here")
    arrays = np.load(path)
    targets = arrays["targets"]
    words = np.array(LABELS[1].split(), float)
    np.testing.assert_allclose(targets[0], words[[*range(8), *range(12, 16)]], rtol=1e-6)
    clipped = 0
    for values in targets[::10, :4].tolist():
        lines, negative = lines_of(values, "")
        clipped += negative
        assert lines.position[0] > 1.5
    assert clipped == sum((targets[::10, 2:4] < 0).any(axis=1))
