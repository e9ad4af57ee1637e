"""Outputs of programs that cclib reads, written by hand in the form that its parsers read."""

import pytest

from molspectra.errors import DamagedError, FormatError, InputError
from molspectra.spectra.files.outputs import read_output

pytest.importorskip("cclib")

PSI4 = """
          Psi4: An Open-Source Ab Initio Electronic Structure Package
                               Psi4 1.7 release

                         Git: Rev {{HEAD}} 6ce35a5

         ---------------------------------------------------------
                                   SCF
               by Justin Turney, Rob Parrish, Andy Simmonett
                          and Daniel G. A. Smith
                              RKS Reference
                        1 Threads,    500 MiB Core
         ---------------------------------------------------------

  ==> Geometry <==

    Molecular point group: c2v
    Full point group: C2v

    Geometry (in Angstrom), charge = 0, multiplicity = 1:

       Center              X                  Y                   Z               Mass
    ------------   -----------------  -----------------  -----------------  -----------------
         O            0.000000000000     0.000000000000     0.119000000000    15.994914619570
         H            0.000000000000     0.761000000000    -0.476000000000     {mass}
         H            0.000000000000    -0.761000000000    -0.476000000000     1.007825032230

  Charge       = 0
  Multiplicity = 1

  ==> Primary Basis <==

  Basis Set: 6-31G*
    Blend: 6-31G*

  ==> DFT Potential <==

   => Composite Functional: {functional} <=

    Points = 100

  ==> Harmonic Vibrational Analysis <==

  Vibration                       7                   8                   9
  Freq [cm^-1]                1713.0000           3727.0000           3849.0000
  Irrep                           A1                  A1                  B2
  Reduced mass [u]              1.0800              1.0400              1.0800
  Force const [mDyne/A]         1.7000              8.4000              9.0000
  Turning point v=0 [a0]        0.2500              0.1800              0.1700
  RMS dev v=0 [a0 u^1/2]        0.1900              0.1300              0.1200
  IR activ [km/mol]            60.0000              3.0000             40.0000
  Char temp [K]               2464.0000           5362.0000           5538.0000
  ----------------------------------------------------------------------------------
      1   O                0.00  0.00  0.07    0.00  0.00  0.05    0.00  0.07  0.00
      2   H                0.00  0.43 -0.56    0.00  0.58 -0.40    0.00 -0.56  0.43
      3   H                0.00 -0.43 -0.56    0.00 -0.58 -0.40    0.00 -0.56 -0.43

  ==> Thermochemistry Components <==

    {end}
"""
QCHEM = """
                  Welcome to Q-Chem
     A Quantum Leap Into The Future Of Chemistry

 Q-Chem 5.4.0 for Intel X86 EM64T Linux

--------------------------------------------------------------
User input:
--------------------------------------------------------------
$molecule
0 1
O   0.0   0.0    0.119
H   0.0   0.761 -0.476
H   0.0  -0.761 -0.476
$end

$rem
jobtype   freq
method    {method}
basis     6-31g*
$end
--------------------------------------------------------------

       Standard Nuclear Orientation (Angstroms)
    I     Atom           X                Y                Z
 ----------------------------------------------------------------
    1      O       0.0000000000     0.0000000000     0.1190000000
    2      H       0.0000000000     0.7610000000    -0.4760000000
    3      H       0.0000000000    -0.7610000000    -0.4760000000
 ----------------------------------------------------------------
 Nuclear Repulsion Energy =           9.08000000 hartrees
 There are        5 alpha and        5 beta electrons
 Requested basis set is 6-31G(d)
 Total energy in the final basis set =      -76.4000000000
{results}
 Total job time:  1.00s(wall), 1.00s(cpu)
"""
QCHEM_MODES = """
 **********************************************************************
 **                       VIBRATIONAL ANALYSIS                       **
 **********************************************************************

 Mode:                 1                      2                      3
 Frequency:      1713.00                3727.00                3849.00
 Force Cnst:      1.7000                 8.4000                 9.0000
 Red. Mass:       1.0800                 1.0400                 1.0800
 IR Active:          YES                    YES                    YES
 IR Intens:       60.000                  3.000                 40.000
 Raman Active:       YES                    YES                    YES
 Raman Intens:     5.000                 70.000                 30.000
 Depolar:          0.500                  0.100                  0.750
               X      Y      Z        X      Y      Z        X      Y      Z
 O          0.000  0.000  0.070    0.000  0.000  0.050    0.000  0.070  0.000
 H          0.000  0.430 -0.560    0.000  0.580 -0.400    0.000 -0.560  0.430
 H          0.000 -0.430 -0.560    0.000 -0.580 -0.400    0.000 -0.560 -0.430
 TransDip   0.000  0.000  0.100    0.000  0.000  0.100    0.000  0.100  0.000

 STANDARD THERMODYNAMIC QUANTITIES AT   298.15 K  AND     1.00 ATM

   This Molecule has  0 Imaginary Frequencies
   Zero point vibrational energy:       13.280 kcal/mol
   Atom    1 Element O  Has Mass   15.99491
   Atom    2 Element H  Has Mass    1.00783
   Atom    3 Element H  Has Mass    1.00783
   Translational Enthalpy:         0.889 kcal/mol

   Total Enthalpy:     15.000 kcal/mol
   Total Entropy:      45.000 cal/mol.K
"""
QCHEM_STATES = """
 ---------------------------------------------------
         TDDFT/TDA Excitation Energies
 ---------------------------------------------------

 Excited state   1: excitation energy (eV) =    7.5000
 Total energy for state  1:                   -76.12437802 au
    Multiplicity: Singlet
    Trans. Mom.:  0.0000 X   0.3000 Y   0.0000 Z
    Strength   :     0.0500000000
    D(    5) --> V(    1) amplitude =  0.9990

 Excited state   2: excitation energy (eV) =    9.2500
 Total energy for state  2:                   -76.06006622 au
    Multiplicity: Singlet
    Trans. Mom.:  0.0000 X   0.0000 Y   0.0000 Z
    Strength   :     0.0000000000
    D(    5) --> V(    2) amplitude =  0.9990

 ---------------------------------------------------
"""
NWCHEM = """
              Northwest Computational Chemistry Package (NWChem) 7.0.2
              --------------------------------------------------------

                             Geometry "geometry" -> ""
                             -------------------------

 Output coordinates in angstroms (scale by  1.889725989 to convert to a.u.)

  No.       Tag          Charge          X              Y              Z
 ---- ---------------- ---------- -------------- -------------- --------------
    1 O                    8.0000     0.00000000     0.00000000     0.11900000
    2 H                    1.0000     0.00000000     0.76100000    -0.47600000
    3 H                    1.0000     0.00000000    -0.76100000    -0.47600000

      Atomic Mass
      -----------

      O                 15.994910
      H                  1.007825

 Summary of "ao basis" -> "ao basis" (cartesian)
 ------------------------------------------------------------------------------
       Tag                 Description            Shells   Functions and Types
 ---------------- ------------------------------  ------  ---------------------
 O                           6-31g*                 6       15   3s2p1d
 H                           6-31g*                 2        2   2s

              XC Information
              --------------
                         B3LYP Method XC Potential

         Total DFT energy =      -76.408953300000
{results}
 Normal Eigenvalue ||           Projected Infra Red Intensities
  Mode   [cm**-1]  || [atomic units] [(debye/angs)**2] [(KM/mol)] [arbitrary]
 ------ ---------- || -------------- ----------------- ---------- -----------
    1       -0.000 ||    0.000000           0.000         0.000       0.000
    2       -0.000 ||    0.000000           0.000         0.000       0.000
    3        0.000 ||    0.000000           0.000         0.000       0.000
    4        0.000 ||    0.000000           0.000         0.000       0.000
    5        0.000 ||    0.000000           0.000         0.000       0.000
    6        0.000 ||    0.000000           0.000         0.000       0.000
    7     1713.000 ||    0.061530           1.420        60.000      10.000
    8     3727.000 ||    0.003076           0.071         3.000       0.500
    9     3849.000 ||    0.041020           0.947        40.000       6.667
 ----------------------------------------------------------------------------

{end}
 Total times  cpu:        1.0s     wall:        1.0s
"""
NWCHEM_STATES = """
  ----------------------------------------------------------------------------
  Root   1 triplet a              0.275621989 a.u.                7.5000 eV
  ----------------------------------------------------------------------------
     Transition Moments                    Spin forbidden
     Oscillator Strength                   Spin forbidden

     Occ.    5  a   ---  Virt.    6  a    0.99900 X
  ----------------------------------------------------------------------------
  Root   1 singlet a              0.339933787 a.u.                9.2500 eV
  ----------------------------------------------------------------------------
     Transition Moments    X  0.00000   Y  0.30000   Z  0.00000
     Dipole Oscillator Strength                    0.0500000000

     Occ.    5  a   ---  Virt.    7  a    0.99900 X

"""


def output(tmp_path, text):
    path = tmp_path / "water.out"
    path.write_text(text)
    return read_output(path)


def psi4(
    functional="B3LYP", mass="1.007825032230", end="*** Psi4 exiting successfully. Buy a developer a beer!"
):
    # the program prints its last line at the margin
    return PSI4.format(functional=functional, mass=mass, end="").replace("{{", "{") + end + "\n"


def test_psi4(tmp_path):
    read = output(tmp_path, psi4())
    assert (read.molecule.formula, read.level, read.imaginary) == ("H2O", "B3LYP/6-31G* (Psi4 1.7)", ())
    assert list(read.spectra) == ["ir"]
    assert read.spectra["ir"].position.tolist() == [1713, 3727, 3849]
    assert read.spectra["ir"].intensity.tolist() == [60, 3, 40]
    with pytest.raises(DamagedError, match="did not end normally"):
        output(tmp_path, psi4(end=""))
    with pytest.raises(FormatError, match="level of theory is unknown"):
        output(tmp_path, psi4().replace("==> DFT Potential <==", ""))
    with pytest.raises(InputError, match=r"atom 2 \(H\) has the mass 2.0141"):
        output(tmp_path, psi4(mass="2.014101778120"))


def qchem(method="b3lyp", results=QCHEM_MODES):
    return QCHEM.format(method=method, results=results)


def test_qchem(tmp_path):
    read = output(tmp_path, qchem())
    assert (read.molecule.formula, read.level) == ("H2O", "B3LYP/6-31G(d) (QChem 5.4.0)")
    assert read.spectra["ir"].intensity.tolist() == [60, 3, 40]
    assert read.spectra["raman"].intensity.tolist() == [5, 70, 30]
    both = output(tmp_path, qchem() + qchem("pbe0", QCHEM_STATES))
    assert (both.level, both.job) == ("B3LYP/6-31G(d) (QChem 5.4.0)", "job 1 of 2")
    assert both.spectra["uv_vis"].position.tolist() == pytest.approx(
        [7.5, 9.25], abs=1e-4
    )  # of cclib's units
    assert both.spectra["uv_vis"].intensity.tolist() == [0.05, 0]
    assert both.spectra["uv_vis"].level == "TDA, PBE0/6-31G(d) (QChem 5.4.0)"
    with pytest.raises(DamagedError, match=r"job 2 of 2: the calculation did not end normally"):
        output(tmp_path, qchem() + qchem(results=QCHEM_STATES).partition(" Total job time")[0])
    with pytest.raises(DamagedError, match="2 vibrations, but H2O has 3"):
        output(
            tmp_path, qchem().replace("                3849.00", "").replace("                 40.000", "")
        )


def nwchem(results="", end=""):
    return NWCHEM.format(results=results, end=end)


def test_nwchem(tmp_path):
    read = output(tmp_path, nwchem())
    assert (read.molecule.formula, read.level) == ("H2O", "B3LYP/6-31g* (NWChem)")
    assert (read.imaginary, read.scf_energy) == ((), pytest.approx(-76.4089533))
    assert read.spectra["ir"].position.tolist() == [1713, 3727, 3849]  # without the six rigid motions
    assert read.spectra["ir"].intensity.tolist() == [60, 3, 40]
    states = output(tmp_path, nwchem(NWCHEM_STATES)).spectra["uv_vis"]
    assert states.position.tolist() == pytest.approx([7.5, 9.25])
    assert states.intensity.tolist() == [0, 0.05]
    with pytest.raises(FormatError, match="excited states of several structures"):
        output(tmp_path, nwchem(NWCHEM_STATES * 2))
    with pytest.raises(FormatError, match="Hartree-Fock and of a density functional"):
        output(tmp_path, nwchem("         Total SCF energy =      -76.0100000\n"))
    with pytest.raises(FormatError, match="cclib"):
        output(tmp_path, nwchem().replace("8.0000", "O"))
    with pytest.raises(DamagedError, match="did not end normally"):
        output(tmp_path, nwchem().partition(" Total times")[0])
