"""Spectra from files: JCAMP-DX, two columns of text, and outputs of Gaussian, ORCA and their like.

`read` recognises the kind of file and calls its reader; `measured` has the spectrum on the axis of its file
and resamples it onto the axis of a modality.
"""
