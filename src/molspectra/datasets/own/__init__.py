"""Importers of files that users bring: structures, spectra, arrays, tables, outputs of programs."""
