"""Conversion factors between atomic units and the units of the package (CODATA 2018)."""

BOHR = 0.529177210903
"""Å per bohr."""

HARTREE = 27.211386245988
"""eV per Hartree."""

AMU = 1822.888486209
"""Electron masses per unified atomic mass unit."""

DEBYE = 2.541746473
"""Debye per e·bohr."""

WAVENUMBER = 219474.6313632
"""cm⁻¹ per Hartree."""

EV_PER_WAVENUMBER = HARTREE / WAVENUMBER
"""eV per cm⁻¹."""

KELVIN_PER_WAVENUMBER = 1.438776877
"""Second radiation constant hc/k in K·cm."""

GAS_CONSTANT = 1.987204258641
"""R in cal/mol/K."""

IR_INTENSITY = 42.2561
"""km/mol per (D/Å)²/amu."""

KCAL = 627.5094740631
"""kcal/mol per Hartree."""
