"""What a map of the library is coloured by."""

from molspectra.search.groups import GROUPS

AMOUNTS = {
    "number of atoms other than hydrogen": "",
    "exact mass": "Da",
    "share of heteroatoms among the atoms other than hydrogen": "%",
}
"""Amounts, with their units."""

COLOURS = (*AMOUNTS, *(group.name for group in GROUPS))
"""The amounts, and the functional groups that a molecule has or lacks."""
