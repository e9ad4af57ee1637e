"""Files of Turbomole, written by hand in the form of the program."""

import pytest

from molspectra.errors import (
    DamagedError,
    ElementError,
    FormatError,
    InputError,
    MismatchError,
    UnitError,
    ValueRangeError,
)
from molspectra.search.query import read_query
from molspectra.spectra.files.outputs import read_output
from molspectra.spectra.files.read import read_measured, read_spectrum

TABLE = """$vibrational spectrum
#  mode     symmetry     wave number   IR intensity    selection rules
#                         cm**(-1)        km/mol         IR     RAMAN
     1                       -0.00         0.00000        -       -
     2                        0.00         0.00000        -       -
     3                        0.00         0.00000        -       -
     4                        0.00         0.00000        -       -
     5                        0.00         0.00000        -       -
     6                        0.00         0.00000        -       -
     7        a1           1713.00        60.12500       YES     YES
     8        a1           3727.00         3.00000       YES     YES
     9        b2           3849.00        40.00000       YES     YES
$end
"""
HEAD = """
 {module} (node) : TURBOMOLE rev. V7.4.1 (2bfdd732) compiled 4 Nov 2019 at 15:11:00
 Copyright (C) 2019 TURBOMOLE GmbH, Karlsruhe

              +--------------------------------------------------+
              | Atomic coordinate, charge and isotop information |
              +--------------------------------------------------+

                    atomic coordinates            atom    charge  isotop
          0.00000000    0.00000000    0.22490000    o      8.000     0
          0.00000000    1.43810000   -0.89950000    h      1.000     0
          0.00000000   -1.43810000   -0.89950000    h      1.000     0
 
       center of nuclear mass  :    0.00000000    0.00000000    0.09900000

   type   atoms  prim   cont   basis
   ---------------------------------------------------------------------------
    o        1     24     13   def2-SVP   [3s2p1d|7s4p1d]
    h        2      7      5   def2-SVP   [2s1p|4s1p]
   ---------------------------------------------------------------------------
   total:    3     38     23
   ---------------------------------------------------------------------------

 number of basis functions   :                     23
 number of occupied orbitals :                      5
 
"""
B3LYP = """
           ------------------
           density functional
           ------------------
 Becke-3-Parameter hybrid functional: B3-LYP
 exchange:    0.8*LDA + 0.72*B88 + 0.2*HF

 Integral of ground state density: N =   9.999992702743990    
"""
MODES = """
            ==============================================================
            ATOMIC WEIGHTS (average over the natural occurance of isotops)
            ==============================================================
            ('*' denotes special isotop !)
              1     o                15.99940
              2     h                 1.00797
              3     h                 1.00797

          ---------------------------------------------------
          NORMAL MODES and VIBRATIONAL FREQUENCIES (cm**(-1))
          ---------------------------------------------------

 dDIP/dQ is the normal mode derivative of the dipole moment.


       mode               1        2        3        4        5        6

     frequency           0.00     0.00     0.00     0.00     0.00     0.00

     symmetry                                                             

        IR                -        -        -        -        -        - 
|dDIP/dQ|   (a.u.)     0.0000   0.0000   0.0000   0.0000   0.0000   0.0000
intensity (km/mol)       0.00     0.00     0.00     0.00     0.00     0.00
intensity (  %   )       0.00     0.00     0.00     0.00     0.00     0.00
 
       RAMAN              -        -        -        -        -        - 
 
  1   o           x   0.00000  0.00000  1.00000  0.00000  0.00000  0.00000
                  y   0.00000  0.00000  0.00000  0.50000  0.00000  0.00000
                  z   0.00000  0.00000  0.00000  0.00000  0.30000  0.10000
  2   h           x   0.00000  1.00000  0.00000  0.00000  0.00000  0.00000
                  y  -0.40000  0.00000  0.00000  0.50000  0.20000  0.10000
                  z  -0.40000  0.00000  0.00000 -0.10000  0.50000  0.20000
  3   h           x   0.00000  0.00000  0.00000  0.40000  0.70000 -0.90000
                  y  -0.40000  0.00000  0.00000  0.50000  0.20000  0.10000
                  z   0.70000  0.00000  0.00000  0.00000  0.00000  0.00000

reduced mass(g/mol)     1.200    1.000   16.000    5.800    2.200    1.200


       mode               7        8        9

     frequency        1713.00  3727.00  3849.00

     symmetry            a        a        a   

        IR               YES      YES      YES
|dDIP/dQ|   (a.u.)     0.0058   0.0013   0.0047
intensity (km/mol)      60.00     3.00    40.00
intensity (  %   )     100.00     5.00    66.67
 
       RAMAN             YES      YES      YES
 
  1   o           x   0.00000  0.00000  0.00000
                  y   0.00000  0.00000 -0.06600
                  z   0.06800  0.05300  0.00000
  2   h           x   0.00000  0.00000  0.00000
                  y  -0.45000  0.56000  0.53000
                  z  -0.54000 -0.42000 -0.47000
  3   h           x   0.00000  0.00000  0.00000
                  y   0.45000 -0.56000  0.53000
                  z  -0.54000 -0.42000  0.47000

reduced mass(g/mol)     1.080    1.050    1.080
 
         *  zero point VIBRATIONAL energy  :      0.0211601  Hartree  *
"""
STATE = """



                         {number} {kind} a excitation


 Total energy:                           -76.000000000000000    

 Excitation energy:                      {energy}    

 Excitation energy / eV:                  8.000000000000000    


 Oscillator strength:

    velocity representation:             0.1000000000000000    

    length representation:               {strength}    

    mixed representation:                0.1000000000000000    


 Rotatory strength:

    velocity representation:             0.1282566570726007E-10

    length representation:               0.1242930160103103E-10


 Dominant contributions:

      occ. orbital   energy / eV   virt. orbital     energy / eV   |coeff.|^2*100
        5 a             -10.00           6 a               1.00       97.0
 

 Electric transition dipole moment (length rep.):

    x        0.000000        Norm:                  0.500000
    y        0.500000
    z        0.000000        Norm / debye:          1.270000


 Magnetic transition dipole moment / i:

    x        0.000000        Norm:                  0.000000
    y        0.000000
    z        0.000000        Norm / Bohr mag.:      0.000000

"""
SINGLETS = """
          density functional implementation               
          R. Bauernschmitt and R. Ahlrichs,

 RPA SINGLET-EXCITATION-CALCULATION 
 
             FOUND DFT-FLAG !
 
"""
STATES = STATE.format(
    number=1, kind="singlet", energy="0.2756199000000000", strength="0.5000000000000000E-01"
) + STATE.format(number=2, kind="singlet", energy="0.3399300000000000", strength="0.2000000000000000")
END = """
         total wall-time :   0.20 seconds

   ****  {module} : all done  ****
"""


def written(tmp_path, text, name="vibspectrum"):
    path = tmp_path / name
    path.write_text(text)
    return path


def aoforce(tmp_path, results=B3LYP + MODES, end=END):
    text = HEAD.format(module="force") + results + end.format(module="force")
    return read_output(written(tmp_path, text, "aoforce.out"))


def escf(tmp_path, results, kind=SINGLETS + B3LYP):
    pytest.importorskip("cclib")
    text = HEAD.format(module="escf") + kind + results + END.format(module="escf")
    return read_output(written(tmp_path, text, "escf.out"))


@pytest.mark.parametrize("name", ["vibspectrum", "water.out", "water.txt"])
def test_a_table_of_vibrations(tmp_path, name):
    path = written(tmp_path, "\n" + TABLE, name)
    read = read_spectrum(path, "ir")
    assert read.position.tolist() == [1713, 3727, 3849]  # without the six rigid motions
    assert read.intensity.tolist() == [60.125, 3, 40]
    assert read_query(path, "ir").absolute
    with pytest.raises(InputError, match=f"{name} holds no raman"):
        read_spectrum(path, "raman")
    with pytest.raises(FormatError, match="read_spectra"):
        read_measured(path)
    with pytest.raises(FormatError, match=f"{name}: .*no structure"):
        read_output(path)


def test_the_table_of_xtb(tmp_path):
    table = TABLE.replace("  km/mol         IR     RAMAN", "(km*mol⁻¹)        IR").replace(
        "       -       -", "  -"
    )
    path = written(tmp_path, table.replace("       YES     YES", "         YES").replace("a1", "a ", 1))
    assert read_spectrum(path).intensity.tolist() == [60.125, 3, 40]


@pytest.mark.parametrize("imaginary", ["-150.00", "i150.00"])
def test_imaginary_modes_of_a_table(tmp_path, imaginary):
    read = read_spectrum(written(tmp_path, TABLE.replace("1713.00", imaginary)))
    assert read.position.tolist() == [-150, 3727, 3849]


@pytest.mark.parametrize(
    ("old", "new", "error", "match"),
    [
        ("$end\n", "", DamagedError, "cut short"),
        ("YES     YES\n$end", "Y", DamagedError, "cut short"),
        (
            "     8        a1           3727.00         3.00000       YES     YES\n",
            "",
            DamagedError,
            "mode 9",
        ),
        (TABLE.splitlines()[-2], "", DamagedError, "8 modes"),
        ("     1713.00        60.12500", "        0.00         0.00000", DamagedError, "7 of them below"),
        ("        0.00         0.00000", "       12.00         0.00000", DamagedError, "1 of them below"),
        ("km/mol", "(amu) ", UnitError, "km/mol"),
        ("60.12500", "********", FormatError, r"line 10: .*\*\*\*\*"),
        ("60.12500", "60.12500   7.25000", FormatError, "line 10"),  # a further column
        ("$end", TABLE, FormatError, "several tables"),
    ],
)
def test_damaged_tables(tmp_path, old, new, error, match):
    path = written(tmp_path, TABLE.replace(old, new))
    with pytest.raises(error, match=f"vibspectrum: .*{match}"):
        read_spectrum(path)


def test_a_table_without_intensities(tmp_path):
    table = (
        TABLE.replace("60.12500", " 0.00000").replace(" 3.00000", " 0.00000").replace("40.00000", " 0.00000")
    )
    with pytest.raises(ValueRangeError, match="no intensities"):
        read_spectrum(written(tmp_path, table))


def test_aoforce(tmp_path):
    pytest.importorskip("cclib")
    read = aoforce(tmp_path)
    assert (read.molecule.formula, read.molecule.charge) == ("H2O", 0)
    assert read.level == "B3-LYP/def2-SVP (Turbomole 7.4.1)"
    assert read.molecule.positions[1, 1] == pytest.approx(1.4381 * 0.529177, abs=1e-5)
    assert list(read.spectra) == ["ir"]
    assert read.spectra["ir"].position.tolist() == [1713, 3727, 3849]
    assert read.spectra["ir"].intensity.tolist() == [60, 3, 40]
    saddle = aoforce(tmp_path, B3LYP + MODES.replace("1713.00", "i150.00"))
    assert saddle.imaginary == (-150,)
    assert aoforce(tmp_path, MODES).level == "HF/def2-SVP (Turbomole 7.4.1)"
    ion = B3LYP.replace("9.999992702743990", "9.000002702743990")
    assert aoforce(tmp_path, ion + MODES).molecule.charge == 1


def test_what_is_refused_of_aoforce(tmp_path):
    pytest.importorskip("cclib")
    with pytest.raises(InputError, match=r"aoforce\.out"):
        aoforce(tmp_path, end="")
    with pytest.raises(DamagedError, match="did not end normally"):
        aoforce(tmp_path, B3LYP, end="")
    with pytest.raises(ElementError, match=r"atom 2 \(H\) has the mass 2.0141"):
        aoforce(
            tmp_path,
            B3LYP + MODES.replace("2     h                 1.00797", "2  *  h                 2.01410"),
        )
    with pytest.raises(MismatchError, match="2 atomic weights for 3 atoms"):
        aoforce(tmp_path, B3LYP + MODES.replace("              3     h                 1.00797\n", ""))
    with pytest.raises(FormatError, match="core potentials"):
        aoforce(tmp_path, B3LYP.replace("9.99999", "38.99999") + MODES)
    other = B3LYP.replace("Becke-3-Parameter hybrid functional: B3-LYP", "PBE0 hybrid functional")
    with pytest.raises(FormatError, match=r"several functionals \(B3-LYP, PBE0\)"):
        aoforce(tmp_path, other + B3LYP + MODES)


def test_escf(tmp_path):
    read = escf(tmp_path, STATES)
    (states,) = read.spectra.values()
    assert (states.modality, states.level) == ("uv_vis", "TD-DFT, B3-LYP/def2-SVP (Turbomole 7.4.1)")
    assert states.position.tolist() == pytest.approx([7.5, 9.25], abs=1e-4)
    assert states.intensity.tolist() == [0.05, 0.2]
    triplets = escf(tmp_path, STATES.replace("singlet", "triplet")).spectra["uv_vis"]
    assert triplets.intensity.tolist() == [0, 0]  # the program prints strengths without spin
    charge = """
 Charge:

               elec          nuc         total

            -9.000000    10.000000     1.000000
"""
    assert escf(tmp_path, charge + STATES).molecule.charge == 1
    open_shell = " RPA UHF-EXCITATION-CALCULATION (spin-conserved)\n reading orbital data $uhfmo_alpha\n"
    occupation = " ALPHA-Occupation:                     5\n BETA-Occupation :                     4\n"
    states = STATES.replace(" singlet", "")
    radical = escf(tmp_path, states, open_shell + occupation)
    assert (radical.molecule.charge, radical.spectra["uv_vis"].intensity.tolist()) == (1, [0.05, 0.2])
    assert radical.spectra["uv_vis"].level == "RPA, HF/def2-SVP (Turbomole 7.4.1)"
    with pytest.raises(FormatError, match="number of electrons"):
        escf(tmp_path, states, open_shell)
    with pytest.raises(FormatError, match="several structures"):
        escf(tmp_path, STATES * 2)
    with pytest.raises(FormatError, match="ricc2"):
        escf(tmp_path, " | sym | multi | state | CC2 excitation energies |  %t1   |  %t2   |\n")


@pytest.mark.parametrize(
    "head",
    [
        " *   Amsterdam Density Functional  (ADF)         *\n",
        "  ***  PROGRAM SYSTEM MOLPRO  ***\n",
        "  Jaguar version 7.0, release 207\n",
        "  This is output from DALTON 2016.0\n      Dalton - An Electronic Structure Program\n",
    ],
)
def test_outputs_of_other_programs_are_refused_with_the_names_of_those_that_are_read(tmp_path, head):
    path = written(tmp_path, head + "  frequencies\n", "other.out")
    with pytest.raises(FormatError, match=r"other\.out: .*ORCA, Gaussian, Q-Chem, NWChem, Psi4, Turbomole"):
        read_spectrum(path, "ir")
