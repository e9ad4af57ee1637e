from pathlib import Path

import numpy as np
import pytest

from molspectra.errors import (
    DamagedError,
    FormatError,
    InputError,
    MissingExtraError,
    NotFoundError,
    SettingError,
    ValueRangeError,
)
from molspectra.spectra.files.calculation import line_spectrum
from molspectra.spectra.files.outputs import cclib_level, read_output
from molspectra.spectra.files.read import read_spectra, read_spectrum

SHARED = Path(__file__).resolve().parents[3] / "shared/data/spectra"

ORCA = """
                                 *****************
                                 * O   R   C   A *
                                 *****************
                         Program Version {version}  -  RELEASE   -
|  1> ! B3LYP def2-SVP TightSCF Opt Freq # a comment
|  2> * xyz 0 1
|  3>                         ****END OF INPUT****
----------------------------
CARTESIAN COORDINATES (ANGSTROEM)
---------------------------------
  O      9.000000    9.000000    9.000000
  H      9.960000    9.000000    9.000000

---------------------------------
CARTESIAN COORDINATES (ANGSTROEM)
---------------------------------
  O      0.000000    0.000000    0.117000
  H      0.000000    0.757000   -0.469000
  H      0.000000   -0.757000   -0.469000

 Total Charge           Charge          ....    {charge}
Total Energy       :          -76.35823146 Eh           -2077.81300 eV

-----------------------
VIBRATIONAL FREQUENCIES
-----------------------

Scaling factor for frequencies =  1.000000000  (already applied!)

     0:       0.00 cm**-1
     1:    -210.50 cm**-1 ***imaginary mode***
     2:    1654.30 cm**-1

-----------
IR SPECTRUM
-----------

 Mode   freq       eps      Int      T**2         TX        TY        TZ
       cm**-1   L/(mol*cm) km/mol    a.u.
----------------------------------------------------------------------------
  7:   3755.10   0.005000   25.30  0.000040  ( 0.000000 -0.000000 -0.006051)
{extra}  6:   1654.30   0.012000   60.70  0.000900  ( 0.000000  0.000000  0.000000)

* The epsilon (eps) is given for a Dirac delta lineshape.

The first frequency considered to be a vibration is 6
The total number of vibrations considered is 2

Tamm-Dancoff approximation     ... {tda}
----------------------------------------------------------------------------
                     ABSORPTION SPECTRUM VIA TRANSITION ELECTRIC DIPOLE MOMENTS    
----------------------------------------------------------------------------
     Transition      Energy     Energy  Wavelength fosc(D2)      D2        DX        DY        DZ   
                      (eV)      (cm-1)    (nm)                 (au**2)    (au)      (au)      (au)  
----------------------------------------------------------------------------
  0-1A  ->  1-1A    7.500000   60491.6   165.3   0.050000000   0.10000   0.30000   0.00000   0.00000
  0-1A  ->  2-1A    9.250000   74606.3   134.0  -0.000000001   0.00000   0.00000   0.00000   0.00000

                             ****{end}****
"""


def orca(tmp_path, version="6.0.1", charge="0", extra="", tda="operative", end="ORCA TERMINATED NORMALLY"):
    path = tmp_path / "water.out"
    path.write_text(ORCA.format(version=version, charge=charge, extra=extra, tda=tda, end=end))
    return path


def test_an_output_of_orca_6(tmp_path):
    output = read_output(orca(tmp_path))
    assert (output.molecule.formula, output.molecule.name, output.molecule.charge) == ("H2O", "water", 0)
    assert output.molecule.positions[1].tolist() == [0, 0.757, -0.469]
    assert output.level == "b3lyp def2-svp (ORCA 6)"
    assert output.scf_energy == -76.35823146
    assert output.imaginary == (-210.5,)
    assert output.spectra["ir"].position.tolist() == [1654.3, 3755.1]
    assert output.spectra["ir"].intensity.tolist() == [60.7, 25.3]
    assert output.spectra["uv_vis"].position.tolist() == [7.5, 9.25]
    assert output.spectra["uv_vis"].intensity.tolist() == [0.05, 0]
    assert output.spectra["uv_vis"].level == "TDA, b3lyp def2-svp (ORCA 6)"
    assert "raman" not in output.spectra
    deactivated = read_output(orca(tmp_path, tda="deactivated"))
    assert deactivated.spectra["uv_vis"].level == "TD-DFT, b3lyp def2-svp (ORCA 6)"


@pytest.mark.parametrize(
    ("changes", "message", "error"),
    [
        ({"end": "ORCA finished by error"}, "did not end normally, or the file is cut short", DamagedError),
        ({"charge": "many"}, "its total charge is 'many'", FormatError),
        ({"charge": "99"}, "fewer than zero electrons", InputError),
        ({"extra": "  ******\n"}, "2 vibrations, but 1 rows below IR SPECTRUM", DamagedError),
    ],
)
def test_damaged_outputs_of_orca(tmp_path, changes, message, error):
    with pytest.raises(error, match=message) as caught:
        read_output(orca(tmp_path, **changes))
    assert "water.out" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x7fELF\x02\x01\x01\x00\x00", b"Dear diary,\n" * 50])
def test_what_is_no_output(tmp_path, content):
    path = tmp_path / "a.out"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"a\.out(: not an output|: not a text file| is empty)"):
        read_output(path)


def test_without_cclib_the_extra_is_named(tmp_path, monkeypatch):
    path = tmp_path / "a.log"
    path.write_text(" Entering Gaussian System, Link 0=g16\n")

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr("molspectra.spectra.files.outputs.import_module", missing)
    with pytest.raises(
        MissingExtraError, match=r"a.log: needs the package cclib; pip install 'molspectra\[files\]'"
    ):
        read_output(path)


def test_an_output_that_cclib_cannot_read(tmp_path, capfd):
    pytest.importorskip("cclib")
    path = tmp_path / "a.log"
    path.write_text(" Entering Gaussian System, Link 0=g16\n" + "Standard orientation:\n" * 3)
    with pytest.raises(FormatError, match=r"a.log: (cclib cannot read|no structure|the calculation did not)"):
        read_output(path)
    assert capfd.readouterr() == ("", "")


def test_levels_and_lines():
    about = {"package": "Gaussian", "methods": ["HF", "MP2"], "legacy_package_version": "16revisionA.03"}
    assert cclib_level(about) == "MP2/unknown basis (Gaussian 16)"
    lines = line_spectrum("ir", [3, 1], [-1e-5, 2], "x")
    assert (lines.position.tolist(), lines.intensity.tolist()) == ([1, 3], [2, 0])
    with pytest.raises(ValueRangeError, match="negative intensity"):
        line_spectrum("ir", [3, 1], [-1, 2], "x")
    with pytest.raises(ValueRangeError, match="2 ir positions but 1 intensities"):
        line_spectrum("ir", [3, 1], [2], "x")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real outputs are not here")
class TestRealOutputs:
    """Divinylbenzene; the numbers were taken from the text of the files by hand."""

    def test_gaussian_vibrations(self):
        pytest.importorskip("cclib")
        output = read_output(SHARED / "gaussian16/dvb_raman.out")
        assert (output.molecule.formula, output.level) == ("C10H10", "B3LYP/STO-3G (Gaussian 16)")
        assert output.scf_energy == pytest.approx(-382.308266561, abs=1e-9)  # SCF Done
        ir, raman = output.spectra["ir"], output.spectra["raman"]
        assert (len(ir), len(raman), output.imaginary) == (54, 54, ())
        assert ir.position[:3].tolist() == [53.1117, 84.6059, 149.2231]
        assert ir.intensity[[0, 2, 8]].tolist() == [0.0340, 0.3732, 5.7995]
        assert raman.intensity[[1, 4, 5]].tolist() == [2.6793, 7.6213, 1.8622]

    def test_gaussian_excitations(self):
        pytest.importorskip("cclib")
        (spectrum,) = read_spectra(SHARED / "gaussian16/dvb_td.out")
        assert spectrum.position[:2] == pytest.approx([5.3351, 5.3746], abs=1e-9)  # eV as printed
        assert spectrum.intensity.tolist() == [0.1707, 0.6779, 0, 0.1793, 0]
        assert spectrum.level == "TD-DFT, B3LYP/STO-3G (Gaussian 16)"

    def test_orca(self):
        ir = read_spectrum(SHARED / "orca6/dvb_ir.out", "ir")
        assert (len(ir), ir.position[0], ir.intensity[20]) == (54, 43.87, 36.79)
        assert ir.position[20] == 980.51
        raman = read_spectrum(SHARED / "orca6/dvb_raman.out", "raman")
        assert (raman.position[1], raman.intensity[1], raman.intensity[-1]) == (70.06, 2.788888, 94.494836)
        uv_vis = read_spectrum(SHARED / "orca6/dvb_td.out", "uv_vis")
        assert (len(uv_vis), uv_vis.position[6], uv_vis.intensity[6]) == (10, 5.731321, 1.170940055)
        assert uv_vis.level == "TDA, b3lyp sto-3g (ORCA 6)"
        output = read_output(SHARED / "orca6/dvb_td.out")
        assert output.scf_energy == pytest.approx(-382.0551071, abs=1e-7)
        assert np.allclose(output.molecule.positions[0], [-1.415253, 0.230222, 0], atol=1e-6)

    def test_several_spectra_of_one_file(self):
        pytest.importorskip("cclib")
        path = SHARED / "gaussian16/dvb_raman.out"
        with pytest.raises(SettingError, match=r"holds 2 spectra \(ir, raman\); name the modality"):
            read_spectrum(path)
        with pytest.raises(NotFoundError, match="holds no uv_vis spectrum"):
            read_spectrum(path, "uv_vis")

    def test_cut_outputs(self, tmp_path):
        pytest.importorskip("cclib")
        for name, keep in (("gaussian16/dvb_td.out", 45_000), ("orca6/dvb_ir.out", 120_000)):
            path = tmp_path / "cut.out"
            path.write_bytes((SHARED / name).read_bytes()[:keep])
            with pytest.raises(DamagedError, match=r"cut.out: the calculation did not end normally"):
                read_output(path)
