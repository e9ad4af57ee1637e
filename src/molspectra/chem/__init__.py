"""Molecules: elements, coordinates, identity, file readers and conformers."""
