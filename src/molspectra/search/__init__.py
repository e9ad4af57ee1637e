"""Searching a library of molecules by spectra: `library` is the front door, `segment` what lies on disk."""
