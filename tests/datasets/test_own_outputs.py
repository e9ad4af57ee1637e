from pathlib import Path

import pytest

from molspectra.data.store.store import Store
from molspectra.datasets.own.outputs import OUTPUTS
from molspectra.datasets.prepare import prepare
from molspectra.errors import FormatError, MismatchError, NotFoundError, SettingError

SHARED = Path(__file__).resolve().parents[3] / "shared/data/spectra"

HEAD = """
                                 * O   R   C   A *
                         Program Version 6.0.1  -  RELEASE   -
|  1> ! {keywords} Freq
|  2>                         ****END OF INPUT****
CARTESIAN COORDINATES (ANGSTROEM)
---------------------------------
  O      0.000000    0.000000    0.117000
  H      0.000000    0.757000   -0.469000
  H      0.000000   {y}   -0.469000

Total Energy       :          -76.35823146 Eh           -2077.81300 eV
"""
IR = """
VIBRATIONAL FREQUENCIES
-----------------------
     6:    {first} cm**-1
     7:    3755.10 cm**-1
     8:    3850.20 cm**-1

IR SPECTRUM
-----------
  6:   {first}   0.012000   60.70  0.000900  ( 0.0  0.0  0.0)
  7:   3755.10   0.005000   25.30  0.000040  ( 0.0  0.0  0.0)
  8:   3850.20   0.009000   45.10  0.000080  ( 0.0  0.0  0.0)

The total number of vibrations considered is 3
"""
UV = """
ABSORPTION SPECTRUM VIA TRANSITION ELECTRIC DIPOLE MOMENTS
  0-1A  ->  1-1A    7.500000   60491.6   165.3   0.050000000   0.10000   0.30000
"""
END = "\n****ORCA TERMINATED NORMALLY****\n"


def output(path, *parts, keywords="B3LYP def2-SVP", y="-0.757000", first="1654.30"):
    path.parent.mkdir(exist_ok=True, parents=True)
    text = (HEAD + "".join(parts) + END).replace("{keywords}", keywords)
    path.write_text(text.replace("{y}", y).replace("{first}", first))


def made(tmp_path, options=None):
    out = tmp_path / "a.arrow"
    return prepare("outputs", tmp_path / "raw", out, options=options or {}, show=False), Store(out)


def test_one_molecule_per_file(tmp_path):
    output(tmp_path / "raw/water.out", IR, UV)
    output(tmp_path / "raw/bent.log", IR, y="-0.800000")
    (tmp_path / "raw/broken.out").write_text("nothing")
    (tmp_path / "raw/job.inp").write_text("not looked at")
    report, store = made(tmp_path, {"licence": "CC0"})
    assert [store.molecule(row).name for row in range(len(store))] == ["bent", "water"]
    assert store.metadata.level == "b3lyp def2-svp (ORCA 6)"
    assert store.metadata.lines == {
        "ir": "b3lyp def2-svp (ORCA 6)",
        "uv_vis": "TD-DFT, b3lyp def2-svp (ORCA 6)",
    }
    assert store.spectrum(1, "ir").position.tolist() == pytest.approx([1654.3, 3755.1, 3850.2])
    assert store.column("scf_energy")[0] == -76.35823146
    assert store.metadata.properties["scf_energy"].unit == "Hartree"
    assert [each["name"] for each in report.named] == ["broken"]


def test_several_files_of_one_molecule(tmp_path):
    output(tmp_path / "raw/water_ir.out", IR)
    output(tmp_path / "raw/water_td.out", UV)
    _, store = made(tmp_path, {"merge": "_"})
    assert len(store) == 1
    assert store.molecule(0).name == "water"
    assert (len(store.spectrum(0, "ir")), len(store.spectrum(0, "uv_vis"))) == (3, 1)


def test_of_several_files_that_of_the_level_of_the_store_is_taken(tmp_path):
    output(tmp_path / "raw/water_hf.out", IR, keywords="HF STO-3G", first="1800.00")
    output(tmp_path / "raw/water_ir.out", IR)
    output(tmp_path / "raw/bent_ir.out", IR, y="-0.800000")
    _, store = made(tmp_path, {"merge": "_"})
    assert [store.spectrum(row, "ir").position[0] for row in (0, 1)] == pytest.approx([1654.3, 1654.3])


def test_outputs_that_do_not_belong_together(tmp_path):
    output(tmp_path / "raw/water_ir.out", IR)
    output(tmp_path / "raw/water_td.out", UV, y="-0.800000")
    with pytest.raises(MismatchError, match=r"water_td.out: a distance differs by 0.0.. Å"):
        prepare(
            "outputs",
            tmp_path / "raw",
            tmp_path / "a.arrow",
            options={"merge": "_"},
            on_error="raise",
            show=False,
        )


def test_imaginary_modes_are_named(tmp_path):
    output(tmp_path / "raw/a.out", IR, y="-0.800000")
    output(tmp_path / "raw/saddle.out", IR, first="-210.50")
    report, _ = made(tmp_path)
    assert "saddle.out: imaginary modes at -210.5 cm⁻¹: not a minimum" in report.named[0]["reason"]
    report = prepare(
        "outputs", tmp_path / "raw", tmp_path / "b.arrow", options={"imaginary": "keep"}, show=False
    )
    assert Store(tmp_path / "b.arrow").spectrum(1, "ir").position[0] == -210.5


def test_the_commonest_level_is_that_of_the_store(tmp_path):
    for number, keywords in enumerate(["HF STO-3G", "B3LYP def2-SVP", "B3LYP def2-SVP"]):
        output(tmp_path / f"raw/{number}.out", IR, keywords=keywords, y=f"-0.{75 + number}0000")
    report, store = made(tmp_path)
    assert store.metadata.lines["ir"] == "b3lyp def2-svp (ORCA 6)"
    assert store.has("ir").tolist() == [False, True, True]
    assert store.has("scf_energy").tolist() == [False, True, True]
    assert "its level is 'hf sto-3g (ORCA 6)'" in report.named[0]["reason"]


def test_an_output_of_a_rare_isotope_is_named_and_left_out(tmp_path):
    masses = "\nCARTESIAN COORDINATES (A.U.)\n   0 O 8.0 0 15.999 0.0 0.0 0.2\n"
    masses += "   1 H 1.0 0 2.014 0.0 1.4 -0.9\n   2 H 1.0 0 2.014 0.0 -1.4 -0.9\n"
    output(tmp_path / "raw/water.out", IR)
    output(tmp_path / "raw/heavy.out", masses, IR, y="-0.800000")
    report, store = made(tmp_path)
    assert [store.molecule(row).name for row in range(len(store))] == ["water"]
    assert "atom 2 (H) has the mass 2.014" in report.named[0]["reason"]


def test_folders_with_the_same_file_names(tmp_path):
    output(tmp_path / "raw/a/job.out", IR)
    output(tmp_path / "raw/b/job.out", IR, y="-0.800000")
    _, store = made(tmp_path)
    assert [store.molecule(row).name for row in (0, 1)] == ["a/job", "b/job"]


def test_folders_without_outputs(tmp_path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(NotFoundError, match=r"no files .out or .log in this folder"):
        OUTPUTS.open(tmp_path / "raw", {})
    (tmp_path / "raw/a.out").write_text("nothing")
    with pytest.raises(FormatError, match=r"none of the outputs can be read; the first: .*not an output"):
        OUTPUTS.open(tmp_path / "raw", {})
    with pytest.raises(SettingError, match="option merge must be a sign"):
        OUTPUTS.open(tmp_path / "raw", {"merge": ""})


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real outputs are not here")
@pytest.mark.parametrize(
    ("folder", "level"), [("gaussian16", "B3LYP/STO-3G (Gaussian 16)"), ("orca6", "b3lyp sto-3g (ORCA 6)")]
)
def test_divinylbenzene_with_all_three_spectra(tmp_path, folder, level):
    pytest.importorskip("cclib")
    report = prepare("outputs", SHARED / folder, tmp_path / "a.arrow", options={"merge": "_"}, show=False)
    store = Store(tmp_path / "a.arrow")
    assert (report.tally.rows, store.metadata.level) == (1, level)
    assert (store.molecule(0).name, store.molecule(0).formula) == ("dvb", "C10H10")
    assert [len(store.spectrum(0, name)) for name in ("ir", "raman")] == [54, 54]
    assert store.identities == ["WEERVPDNCOGWJF"]  # the InChIKey of p-divinylbenzene
