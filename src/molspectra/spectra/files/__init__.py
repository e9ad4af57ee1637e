"""Spectra from files: JCAMP-DX, two columns of text, and outputs of Gaussian, ORCA and their like.

`read` is the front door; `measured` holds what was read, with its own axis, and puts it on a modality's axis.
"""
