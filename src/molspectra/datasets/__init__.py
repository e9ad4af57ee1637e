"""Datasets as stores: downloads, file formats, one importer per published dataset, and a user's own files.

`molspectra.datasets.prepare.prepare` makes a store; `registry` knows the importers by name.
"""
