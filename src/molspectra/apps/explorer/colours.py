"""What a map of the library is coloured by."""

from molspectra.search.groups import GROUPS

AMOUNTS = {
    "number of heavy atoms": "",
    "exact mass": "Da",
    "share of heteroatoms among heavy atoms": "%",
}
"""Amounts, with their units; heavy atoms are all but hydrogen."""

COLOURS = (*AMOUNTS, *(group.name for group in GROUPS))
"""The amounts, and the functional groups that a molecule has or lacks."""
