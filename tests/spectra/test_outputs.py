from pathlib import Path

import numpy as np
import pytest

from molspectra.chem.molecule import Molecule
from molspectra.errors import (
    DamagedError,
    ElementError,
    FormatError,
    InputError,
    MismatchError,
    MissingExtraError,
    NotFoundError,
    SettingError,
    ValueRangeError,
)
from molspectra.spectra.files.calculation import check_masses, check_modes, line_spectrum
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


GAUSSIAN = """ Entering Gaussian System, Link 0=g16
 Copyright (c) 1988-2019, Gaussian, Inc.  All Rights Reserved.
 ******************************************
 Gaussian 16:  ES64L-G16RevC.01  3-Jul-2019
                 1-Jan-2020
 ******************************************
{job}"""
JOB = """ ----------------------
 {route}
 ----------------------
 Symbolic Z-matrix:
 Charge =  0 Multiplicity = 1
 O                     0.        0.        0.12
 H                     0.        0.76     -0.47
 H                     0.       -0.76     -0.47
{input}
                         Standard orientation:
 ---------------------------------------------------------------------
 Center     Atomic      Atomic             Coordinates (Angstroms)
 Number     Number       Type             X           Y           Z
 ---------------------------------------------------------------------
{rows}      1          8           0        0.000000    0.000000    0.119000
      2          1           0        0.000000    0.761000   -0.476000
      3          1           0        0.000000   {y}   -0.476000
 ---------------------------------------------------------------------
 Standard basis: 6-31G(d) (6D, 7F)
 Alpha  occ. eigenvalues --   -19.1 -0.9 -0.5 -0.3 -0.2

 SCF Done:  E({method}) =  -76.4089533000     A.U. after    9 cycles
{results} {end} of Gaussian 16 at Wed Jan  1 00:00:00 2020.
"""
FREQUENCIES = """ Harmonic frequencies (cm**-1), IR intensities (KM/Mole)
                      1                      2                      3
                     A1                     A1                     B2
 Frequencies --   {0:9.4f}             3727.0000             3849.0000
 Red. masses --      1.0800                 1.0400                 1.0800
 Frc consts  --      1.7000                 8.4000                 9.0000
 IR Inten    --{1:>12}                3.0000               40.0000

 Atom     1 has atomic number  8 and mass  15.99491
 Atom     2 has atomic number  1 and mass  {2:8.5f}
 Atom     3 has atomic number  1 and mass   1.00783
"""
EXCITED = """ Excited State   1:      Singlet-A      7.5000 eV  165.31 nm  f=0.0500  <S**2>=0.000
       5 ->  6         0.70000

"""


def vibrations(first=1713.0, intensity="60.0000", mass=1.00783):
    return FREQUENCIES.format(first, intensity, mass)


def job(route="# B3LYP/6-31G(d) freq", method="RB3LYP", results=None, **other):
    facts = {"input": "", "rows": "", "y": "-0.761000", "end": "Normal termination"} | other
    lines = vibrations() if results is None else results
    return JOB.format(route=route, method=method, results=lines, **facts)


def gaussian(tmp_path, *jobs):
    pytest.importorskip("cclib")
    path = tmp_path / "water.log"
    path.write_text(GAUSSIAN.format(job="".join(jobs)))
    return path


def test_a_job_of_gaussian(tmp_path):
    output = read_output(gaussian(tmp_path, job(), "\nreal 0m3s\n"))
    assert (output.level, output.job) == ("B3LYP/6-31G(d) (Gaussian)", "")
    assert output.spectra["ir"].position.tolist() == [1713, 3727, 3849]
    anharmonic = read_output(gaussian(tmp_path, job("# B3LYP/6-31G(d) freq=anharm")))
    assert anharmonic.spectra["ir"].level == "harmonic, B3LYP/6-31G(d) (Gaussian)"


def test_the_structure_of_a_job_with_displacements(tmp_path):
    shown = job(y="-0.861000").replace("-76.4089533", "-76.3999999")
    displaced = shown[shown.index("                         Standard") : shown.index(" Harmonic")]
    text = vibrations() + displaced
    fixed = read_output(gaussian(tmp_path, job("# B3LYP/6-31G(d) freq=anharm", results=text)))
    moved = read_output(gaussian(tmp_path, job("# B3LYP/6-31G(d) opt=calcall freq", results=text)))
    assert [output.molecule.positions[2, 1] for output in (fixed, moved)] == [-0.761, -0.861]
    assert [output.scf_energy for output in (fixed, moved)] == pytest.approx([-76.4089533, -76.3999999])


@pytest.mark.parametrize(
    ("route", "method", "level"),
    [
        ("# PBE1PBE/6-31G(d) freq", "RPBE1PBE", "PBE1PBE/6-31G(d)"),
        ("# b3lyp/6-31G(d) em=gd3bj freq", "UB3LYP", "B3LYP-GD3BJ/6-31G(d)"),
        ("# EmpiricalDispersion(GD3) b3lyp/6-31G(d) freq", "RB3LYP", "B3LYP-GD3/6-31G(d)"),
        ("# wB97XD/6-31G(d) freq scrf", "RwB97XD", "wB97XD/6-31G(d), IEFPCM water"),
        ("# b3lyp/6-31G(d) freq SCRF=(SMD,Solvent=Toluene)", "RB3LYP", "B3LYP/6-31G(d), SMD-IEFPCM toluene"),
        ("# lc-wpbe/6-31G(d) iop(3/107=02,9/40=2) freq", "RLC-wPBE", "LC-wPBE iop(3/107=02)/6-31G(d)"),
    ],
)
def test_levels_of_gaussian(tmp_path, route, method, level):
    assert read_output(gaussian(tmp_path, job(route, method))).level == f"{level} (Gaussian)"


def test_a_method_after_an_unrestricted_hartree_fock(tmp_path):
    energy = " E2 =    -0.9505918144D+00 EUMP2 =    -0.76670924198852D+02\n"
    output = read_output(gaussian(tmp_path, job("# UMP2/6-31G(d) freq", "UHF", energy + vibrations())))
    assert output.level == "MP2/6-31G(d) (Gaussian)"


def test_an_optimisation_and_its_frequencies(tmp_path):
    first = job("# opt freq B3LYP/6-31G(d) em=gd3bj scrf=(solvent=water)", results="", y="-0.861000")
    second = job("#N Geom=AllCheck SCRF=Check RB3LYP/6-31G(d) Freq")
    output = read_output(gaussian(tmp_path, first, second))
    assert output.job == "job 2 of 2 (#N Geom=AllCheck SCRF=Check RB3LYP/6-31G(d) Freq)"
    assert output.level == "B3LYP-GD3BJ/6-31G(d), IEFPCM water (Gaussian)"
    assert output.molecule.positions[2, 1] == -0.761
    with pytest.raises(DamagedError, match="asks for frequencies, but there are none"):
        read_output(gaussian(tmp_path, first))
    cut = second.rpartition(" Normal termination")[0]
    with pytest.raises(DamagedError, match=r"did not end normally.*cut short \(job 2 of 2, #N Geom=AllCheck"):
        read_output(gaussian(tmp_path, first, cut))


def test_lines_energy_and_level_are_of_one_job(tmp_path):
    second = job("# HF/6-31G(d) freq", "RHF", vibrations(1700)).replace("-76.4089533", "-76.0100000")
    path = gaussian(tmp_path, job(), GAUSSIAN.format(job=second))
    output = read_output(path)
    assert (output.level, output.scf_energy) == ("HF/6-31G(d) (Gaussian)", pytest.approx(-76.01))
    assert output.spectra["ir"].position.tolist() == [1700, 3727, 3849]
    assert output.spectra["ir"].level == output.level


def test_lines_of_several_jobs(tmp_path):
    excited = job("# PBE1PBE/6-31G(d) td", "RPBE1PBE", EXCITED)
    output = read_output(gaussian(tmp_path, job(), excited))
    assert (output.level, output.job[:10]) == ("B3LYP/6-31G(d) (Gaussian)", "job 1 of 2")
    assert output.spectra["uv_vis"].level == "TD-DFT, PBE1PBE/6-31G(d) (Gaussian)"
    approximate = job("# PBE1PBE/6-31G(d) tda(nstates=1)", "RPBE1PBE", EXCITED)
    (lines,) = read_output(gaussian(tmp_path, approximate)).spectra.values()
    assert lines.level == "TDA, PBE1PBE/6-31G(d) (Gaussian)"
    elsewhere = job("# PBE1PBE/6-31G(d) td", "RPBE1PBE", EXCITED, y="-0.861000")
    with pytest.raises(MismatchError, match=r"job 2 of 2 .*distance differs by 0.100"):
        read_output(gaussian(tmp_path, job(), elsewhere))
    masses = ("number  1 and mass   1.00783\n Atom     3", "number  9 and mass  18.99840\n Atom     3")
    fluoride = job().replace("      2          1  ", "      2          9  ").replace(*masses)
    with pytest.raises(MismatchError, match=r"job 1 of 2 .* is of H2O, job 2 of 2 .* of FHO: split the file"):
        read_output(gaussian(tmp_path, job(), fluoride))


@pytest.mark.parametrize(
    ("changes", "message", "error"),
    [
        (
            {"results": vibrations(mass=2.0141)},
            r"atom 2 \(H\) has the mass 2.0141, not 1.00783",
            ElementError,
        ),
        ({"results": vibrations(intensity="-0.5000")}, "ir line 1 has a negative intensity", ValueRangeError),
        ({"results": vibrations(intensity="*" * 12)}, "ir line 1 is not a number", ValueRangeError),
        ({"input": " H(Iso=2)   0.0   0.76  -0.47\n"}, r"atom 1 \(H\) has the mass 2", ElementError),
        ({"end": "Error termination"}, "did not end normally", DamagedError),
        (
            {"input": " AtmWgt= 15.9949100  1.0078300  2.0141000\n"},
            r"atom 3 \(H\) has the mass",
            ElementError,
        ),
        ({"input": " O-Bq   5.0   0.0   0.1\n"}, "O-Bq is a ghost atom", ElementError),
        ({"input": " TV     5.0   0.0   0.0\n"}, "a periodic structure is not a molecule", ValueRangeError),
        (
            {"rows": "      1         -2           0        5.0 0.0 0.0\n"},
            "a periodic structure",
            ValueRangeError,
        ),
        ({"rows": "      1          0           0        5.0 0.0 0.0\n"}, "atom 1 is a ghost", ElementError),
    ],
)
def test_jobs_of_gaussian_that_are_refused(tmp_path, changes, message, error):
    with pytest.raises(error, match=rf"water.log: {message}" if "end" not in changes else message):
        read_output(gaussian(tmp_path, job(**changes)))


def test_dummy_atoms_of_gaussian_are_left_out(tmp_path):
    row = "      1         -1           0        0.000000    0.000000    1.000000\n"
    assert read_output(gaussian(tmp_path, job(rows=row))).molecule.formula == "H2O"


def test_the_number_of_vibrations():
    water = Molecule([8, 1, 1], [[0, 0, 0.119], [0, 0.761, -0.476], [0, -0.761, -0.476]])
    dioxide = Molecule([8, 6, 8], [[0, 0, -1.16], [0, 0, 0], [0, 0, 1.16]])
    for molecule, right, wrong in ((water, (3, 9), (2, 4)), (dioxide, (4, 9), (3, 5))):
        for count in right:
            check_modes(molecule, count)
        for count in wrong:
            with pytest.raises(
                DamagedError, match=f"{count} vibrations, but {molecule.formula} has {right[0]}"
            ):
                check_modes(molecule, count)


def test_masses_of_the_commonest_isotopes_and_averages():
    check_masses([1, 17, 17, 35, 50], [1.008, 35.453, 34.96885, 78.91834, 118.71])
    for number, mass in ((1, 3.016), (6, 13.00335), (17, 36.96590), (35, 80.91629)):
        with pytest.raises(ElementError, match="isotopes are not supported"):
            check_masses([number], [mass])


OTHER_ORCA = """* O   R   C   A *
Program Version {version}
|  1> ! PBE def2-SVP D3BJ PAL4 Freq
|  2> %cpcm smd true
|  3>   SMDsolvent "water"
|  4> end
|  5> %maxcore 500
|  6> * xyz 0 1
|  7>                          ****END OF INPUT****
CARTESIAN COORDINATES (ANGSTROEM)
---------------------------------
{row}  O      0.000000    0.000000    0.119000
  H      0.000000    0.761000   -0.476000
  H      0.000000   -0.761000   -0.476000

IR SPECTRUM
 Mode    freq (cm**-1)   T**2         TX         TY         TZ
-------------------------------------------------------------------
   6:      1600.00   60.000000  ( 0.000000  0.000000  0.030000)
   7:      3700.00    3.000000  ( 0.000000  0.000000  0.030000)
   8:      3800.00   40.000000  ( 0.000000  0.000000  0.030000)

         ABSORPTION SPECTRUM VIA TRANSITION ELECTRIC DIPOLE MOMENTS
---------------------------------------------------------------------
State   Energy    Wavelength  fosc         T2        TX        TY        TZ
        ({unit})      (nm)                 (au**2)    (au)      (au)      (au)
---------------------------------------------------------------------
   1   80655.4    124.0   0.005000000   0.04293  -0.15576  -0.13665  -0.00000
   2   80656.4    124.0   spin forbidden (mult=3)
   3   80657.4    123.9   0.220000000   1.26495  -0.26711  -1.09252  -0.00000

         ABSORPTION SPECTRUM VIA TRANSITION VELOCITY DIPOLE MOMENTS
---------------------------------------------------------------------
   1   80655.4    124.0   0.900000000   0.04293  -0.15576  -0.13665  -0.00000

          X-RAY ABSORPTION SPECTRUM VIA TRANSITION ELECTRIC DIPOLE MOMENTS
---------------------------------------------------------------------
    1   90a ->    0a      8748.824     0.000002678629     0.00004  -0.00001   0.00003

****ORCA TERMINATED NORMALLY****
"""


def other_orca(tmp_path, version="4.2.1", unit="cm-1", row="", text=OTHER_ORCA):
    path = tmp_path / "water.out"
    path.write_text(text.format(version=version, unit=unit, row=row))
    return path


def test_an_output_of_orca_4(tmp_path):
    output = read_output(other_orca(tmp_path))
    assert output.level == 'pbe def2-svp d3bj cpcm smd true smdsolvent "water" (ORCA 4)'
    assert output.spectra["ir"].intensity.tolist() == [60, 3, 40]
    uv_vis = output.spectra["uv_vis"]
    assert uv_vis.position == pytest.approx([10, 10.00012, 10.00025], abs=1e-4)
    assert uv_vis.intensity.tolist() == [0.005, 0, 0.22]  # electric dipoles, all states
    core = read_output(other_orca(tmp_path, version="5.0.4", unit="eV")).spectra["uv_vis"]
    assert core.position.tolist() == [80655.4, 80656.4, 80657.4]
    with pytest.raises(FormatError, match="the unit of the energies below ABSORPTION"):
        read_output(other_orca(tmp_path, unit="Ry"))


def test_rows_of_orca_that_are_no_atoms(tmp_path):
    for symbol in ("-", "DA"):
        row = f"  {symbol}      0.000000    0.000000    1.000000\n"
        assert read_output(other_orca(tmp_path, row=row)).molecule.formula == "H2O"
    for row, message in (
        ("  O :    5.000000    0.000000    0.119000\n", r"row 1 of the structure \(O\) is a ghost atom"),
        ("  Q      0.000000    0.000000    1.000000\n", r"row 1 of the structure \(Q\) is a point charge"),
        (
            "  O      0.000000    0.000000    1.000000\n  O    **********    0.0  1.0\n",
            "row 2 below CARTESIAN",
        ),
    ):
        with pytest.raises(InputError, match=message):
            read_output(other_orca(tmp_path, row=row))


def test_masses_of_orca(tmp_path):
    table = (
        "CARTESIAN COORDINATES (A.U.)\n  NO LB      ZA    FRAG     MASS         X           Y           Z\n"
    )
    for number, (symbol, mass) in enumerate((("O", 15.999), ("H", 1.008), ("H", 2.014))):
        table += f"   {number} {symbol}     1.0000    0    {mass}    0.000000    0.000000    0.2\n"
    printed = OTHER_ORCA.replace("IR SPECTRUM", f"{table}\nIR SPECTRUM")
    asked = OTHER_ORCA.replace("|  7>", "|  6>   H  0.0  0.761  -0.476 M = 2.014\n|  7>")
    for text in (printed, asked):
        with pytest.raises(ElementError, match=r"\(H\) has the mass 2.014, not 1.00783"):
            read_output(other_orca(tmp_path, text=text))
    usual = read_output(other_orca(tmp_path, text=printed.replace("2.014", "1.008")))
    assert usual.molecule.formula == "H2O"


def test_several_jobs_of_orca(tmp_path):
    head, _, rest = OTHER_ORCA.partition("|  7>")
    end, start = "****ORCA TERMINATED NORMALLY****\n", rest.index("CARTESIAN")
    second = rest[start:].replace("3800.00", "3900.00")
    text = f"{head}|  7> $new_job\n|  8> ! HF STO-3G Freq\n|  9>{rest}".replace(
        end, f"   $$$$$$$$$$$$$$$$  JOB NUMBER  2 $$$$$$$$$$$$$$\n\n{second}"
    )
    output = read_output(other_orca(tmp_path, text=text))
    assert (output.level, output.job) == ("hf sto-3g (ORCA 4)", "job 2 of 2 (hf sto-3g (ORCA 4))")
    assert output.spectra["ir"].position[-1] == 3900
    cut = OTHER_ORCA + OTHER_ORCA.replace("PBE", "HF").replace(end, "")
    with pytest.raises(DamagedError, match=r"did not end normally.* \(number 2 of 2\)"):
        read_output(other_orca(tmp_path, text=cut))


def test_facts_of_the_frequencies_of_orca(tmp_path):
    scaled = OTHER_ORCA.replace("IR SPEC", "Scaling factor for frequencies =  0.960000000\n\nIR SPEC")
    output = read_output(other_orca(tmp_path, text=scaled))
    assert output.spectra["ir"].level.startswith("scaled by 0.96, pbe def2-svp")
    later = (
        "CARTESIAN COORDINATES (ANGSTROEM)\n  O 0.0 0.0 0.1\n  H 0.0 0.9 -0.5\n  H 0.0 -0.9 -0.5\n\n****ORCA"
    )
    output = read_output(other_orca(tmp_path, text=OTHER_ORCA.replace("****ORCA", later)))
    assert output.molecule.positions[1, 1] == 0.761  # the structure of the lines
    cut = OTHER_ORCA.replace("   8:      3800.00   40.000000  ( 0.000000  0.000000  0.030000)\n", "")
    with pytest.raises(DamagedError, match="2 vibrations, but H2O has 3"):
        read_output(other_orca(tmp_path, text=cut))


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
    solvent = {"functional": "PBE", "solvent_model": "CPCM", "solvent_params": {"epsilon": 9.0}}
    assert cclib_level({**about, **solvent}) == "PBE/unknown basis, CPCM ε = 9 (Gaussian 16)"
    with pytest.raises(FormatError, match="the density functional is not found"):
        cclib_level({**about, "methods": ["DFT"]})
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
