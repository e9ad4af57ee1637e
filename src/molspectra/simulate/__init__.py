"""Spectra from structures: GFN2-xTB vibrations (IR, Raman) and TDA-B3LYP excitations (UV-Vis), one molecule or many."""
