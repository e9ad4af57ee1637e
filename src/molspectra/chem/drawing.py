"""Molecules as pictures: structures drawn by RDKit in two dimensions, for light and for dark pages."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from html import escape
from typing import Any, Protocol

from molspectra.chem.identity import MAX_ATOMS, Structure, parsed_smiles, perceived_bonds
from molspectra.chem.sanity import RDKIT_ERRORS
from molspectra.errors import InputError
from molspectra.printable import printable

_BLACK = "#000000"
_MARK = "#E08A00"  # of atoms that are pointed out; as RDKit writes it
_LONGEST = 40  # letters of a title
_ELEMENTS = {
    7: (0.22, 0.47, 0.85),
    8: (0.86, 0.24, 0.20),
    9: (0.05, 0.58, 0.42),
    15: (0.80, 0.45, 0.05),
    16: (0.68, 0.52, 0.02),
    17: (0.05, 0.58, 0.42),
    35: (0.65, 0.30, 0.20),
    53: (0.55, 0.30, 0.70),
}


class Named(Structure, Protocol):
    """The attributes of `molspectra.chem.molecule.Molecule` that its picture depends on."""

    @property
    def name(self) -> str | None:
        """Label given by the source."""

    @property
    def formula(self) -> str:
        """Molecular formula in Hill order."""


@lru_cache(maxsize=512)
def svg_of_smiles(smiles: str, marked: tuple[int, ...] = ()) -> str | None:
    """Draw the molecule of a SMILES as an SVG document; None where it cannot be, as with too many rings.

    `marked` are atoms of the SMILES that are pointed out, in their order, with the bonds between them.
    """
    try:
        return _document(parsed_smiles(smiles), marked)
    except (InputError, *RDKIT_ERRORS):
        return None


def svg_of(molecule: Structure) -> str | None:
    """Draw a molecule by its SMILES, else by bonds perceived in its structure, as an SVG document.

    None where there are no bonds to be seen, or more atoms than `MAX_ATOMS`.
    """
    from rdkit import Chem, rdBase

    if len(molecule.numbers) > MAX_ATOMS:
        return None
    if molecule.smiles is not None:
        return svg_of_smiles(molecule.smiles)
    mol = perceived_bonds(molecule)
    if mol is None:
        return None
    mol.RemoveAllConformers()  # else the structure is seen from the side
    try:
        with rdBase.BlockLogs():
            return _document(Chem.RemoveHs(mol))
    except RDKIT_ERRORS:
        return None


def _document(mol: Any, marked: Collection[int] = ()) -> str:
    """Draw an RDKit molecule; what is black takes the colour of the page's text."""
    from rdkit.Chem.Draw import rdMolDraw2D
    from rdkit.rdBase import BlockLogs

    with BlockLogs():
        drawer = rdMolDraw2D.MolDraw2DSVG(150, 110)
        options: Any = drawer.drawOptions()
        options.clearBackground = False
        options.useBWAtomPalette()
        options.updateAtomPalette(_ELEMENTS)
        options.bondLineWidth = 1.6
        options.fixedBondLength = 26
        options.minFontSize = 11
        options.standardColoursForHighlightedAtoms = True
        options.setHighlightColour(tuple(bytes.fromhex(_MARK[1:])[i] / 255 for i in range(3)))
        bonds = [
            bond.GetIdx()
            for bond in mol.GetBonds()
            if {bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()} <= set(marked)
        ]
        rdMolDraw2D.PrepareAndDrawMolecule(drawer, mol, highlightAtoms=list(marked), highlightBonds=bonds)
    drawer.FinishDrawing()
    text: str = drawer.GetDrawingText()
    text = text.replace("fill-opacity:1;", "")  # which is what stands for none
    text = text.replace(f"fill:{_MARK}", f"fill:{_MARK};fill-opacity:0.45")  # on light and on dark pages
    return text.replace(f"stroke:{_MARK}", "stroke:none").replace(_BLACK, "currentColor")


def title_of(molecule: Named) -> str:
    """Name of a molecule for people, in one short line: its name, else its SMILES, else its formula."""
    text = " ".join(printable(molecule.name or molecule.smiles or molecule.formula).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def html_of(molecule: Named) -> str | None:
    """Draw a molecule with its title, formula and charge as HTML; None where it cannot be drawn."""
    document = svg_of(molecule)
    if document is None:
        return None
    parts = dict.fromkeys((title_of(molecule), molecule.formula))
    if molecule.charge:
        parts[f"charge {molecule.charge:+d}"] = None
    drawn = document[document.index("<svg") :]  # without the head of a file
    return (
        '<div style="display: inline-block; text-align: center">'
        f"{drawn}<div>{escape(', '.join(parts))}</div></div>"
    )
