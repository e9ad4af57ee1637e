"""Spectra: modalities and their axes, line and sampled spectra, broadening, units and plots."""
