"""Spectra from structures: GFN2-xTB vibrations (IR, Raman), TDA-B3LYP excitations (UV-Vis); many at once."""
