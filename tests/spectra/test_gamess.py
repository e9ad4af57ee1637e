"""An output of GAMESS, written by hand in the form that cclib reads."""

import pytest

from molspectra.errors import DamagedError, ElementError, InputError
from molspectra.spectra.files.outputs import read_output

pytest.importorskip("cclib")

HEAD = """
          ******************************************************
          *         GAMESS VERSION = 30 SEP 2018 (R3)          *
          *             FROM IOWA STATE UNIVERSITY             *
          ******************************************************

     BASIS OPTIONS
     -------------
     GBASIS=N31          IGAUSS=       6      POLAR=POPN31  
     NDFUNC=       1     NFFUNC=       0     DIFFSP=       F
     NPFUNC=       0      DIFFS=       F     BASNAM=        

 ATOM      ATOMIC                      COORDINATES (BOHR)
           CHARGE         X                   Y                   Z
 O           8.0     0.0000000000        0.0000000000        0.2248770000
 H           1.0     0.0000000000        1.4380820000       -0.8995090000
 H           1.0     0.0000000000       -1.4380820000       -0.8995090000

          INTERNUCLEAR DISTANCES (ANGS.)
          ------------------------------

 NUMBER OF ELECTRONS                          =   10
 CHARGE OF MOLECULE                           =    0
 SPIN MULTIPLICITY                            =    1
 TOTAL NUMBER OF ATOMS                        =    3

     $CONTRL OPTIONS
     ---------------
 SCFTYP=RHF          RUNTYP=HESSIAN      EXETYP=RUN     
 DFTTYP=B3LYP        TDDFT =NONE    

          --------------------------------------------------------
          NORMAL COORDINATE ANALYSIS IN THE HARMONIC APPROXIMATION
          --------------------------------------------------------

          ATOMIC WEIGHTS (AMU)

    1     O                15.99491
    2     H                 1.00782
    3     H                 1.00782

 MODES 1 TO 6 ARE TAKEN AS ROTATIONS AND TRANSLATIONS.

     FREQUENCIES IN CM**-1, IR INTENSITIES IN DEBYE**2/AMU-ANGSTROM**2,
     REDUCED MASSES IN AMU.

"""
MOTIONS = """
  1   O            X{x}
                   Y{x}
                   Z{x}
  2   H            X{x}
                   Y{x}
                   Z{x}
  3   H            X{x}
                   Y{x}
                   Z{x}

 TRANS. SAYVETZ    X{x}
                   Y{x}
                   Z{x}
               TOTAL{x}

   ROT. SAYVETZ    X{x}
                   Y{x}
                   Z{x}
               TOTAL{x}

"""
RIGID = """\
                            1           2           3           4           5
       FREQUENCY:         1.33        0.16        0.00        0.33        6.17  
        SYMMETRY:         A           A           A           A           A   
    REDUCED MASS:      1.01401     6.22305     6.00353    12.81051     1.03666
    IR INTENSITY:      8.39984     0.00224     0.00000     0.52570     3.14657
"""
VIBRATIONS = """\
                            6           7           8           9
       FREQUENCY:         7.10     1713.00     3727.00     3849.00  
        SYMMETRY:         A           A           A           A   
    REDUCED MASS:      1.05000     1.08000     1.04000     1.08000
    IR INTENSITY:      4.00000     1.42000     0.07100     0.94700
"""
END = """\
     REFERENCE ON SAYVETZ CONDITIONS - E.B. WILSON, J.C. DECIUS,
     AND P.C. CROSS, MOLECULAR VIBRATIONS, MCGRAW-HILL

"""
NORMAL = " EXECUTION OF GAMESS TERMINATED NORMALLY Mon Aug  5 13:05:47 2019\n"


def output(tmp_path, head=HEAD, vibrations=VIBRATIONS, end=END + NORMAL):
    motions = [MOTIONS.format(x="  0.10000000" * number) for number in (5, 4)]
    path = tmp_path / "water.log"
    path.write_text(head + RIGID + motions[0] + vibrations + motions[1] + end)
    return read_output(path)


def test_gamess(tmp_path):
    read = output(tmp_path)
    assert (read.molecule.formula, read.molecule.charge, read.imaginary) == ("H2O", 0, ())
    assert read.level == "B3LYP/6-31G* (GAMESS 2018R3)"
    assert list(read.spectra) == ["ir"]
    assert read.spectra["ir"].position.tolist() == [1713, 3727, 3849]
    per_mole = 42.2561  # km/mol in a (debye/Å)²/amu
    expected = [1.42 * per_mole, 0.071 * per_mole, 0.947 * per_mole]
    assert read.spectra["ir"].intensity == pytest.approx(expected, rel=1e-4)
    saddle = output(tmp_path, vibrations=VIBRATIONS.replace("1713.00  ", "1713.00 I"))
    assert saddle.imaginary == (-1713,)


def test_what_is_refused_of_gamess(tmp_path):
    with pytest.raises(DamagedError, match="did not end normally"):
        output(tmp_path, end=END)
    with pytest.raises(InputError, match=r"water\.log"):
        output(tmp_path, end="")
    with pytest.raises(ElementError, match=r"atom 2 \(H\) has the mass 2.0141"):
        output(tmp_path, HEAD.replace("2     H                 1.00782", "2     H                 2.01410"))
    numerical = VIBRATIONS.rpartition("    IR INTENSITY")[0]
    with pytest.raises(InputError, match="intensities"):
        output(tmp_path, vibrations=numerical)
