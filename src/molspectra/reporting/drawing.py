"""Pictures of a page: figures with captions, and structures drawn by RDKit for light and dark pages."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from matplotlib.figure import Figure

from molspectra.chem.identity import parsed_smiles
from molspectra.errors import InputError
from molspectra.reporting.canvas import inline_svg, svg
from molspectra.reporting.content import Depicted
from molspectra.reporting.markup import Markup, element

_BLACK = "#000000"
_MARK = "#E08A00"  # of atoms that are pointed out; as RDKit writes it
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


@lru_cache(maxsize=512)
def _document(smiles: str, marked: tuple[int, ...] = ()) -> str | None:
    """Draw a molecule as an SVG document; None where the SMILES cannot be read, or has too many rings."""
    from rdkit.Chem.Draw import rdMolDraw2D
    from rdkit.rdBase import BlockLogs

    try:
        molecule = parsed_smiles(smiles)
    except InputError:
        return None
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
            for bond in molecule.GetBonds()
            if {bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()} <= set(marked)
        ]
        rdMolDraw2D.PrepareAndDrawMolecule(
            drawer, molecule, highlightAtoms=list(marked), highlightBonds=bonds
        )
    drawer.FinishDrawing()
    text: str = drawer.GetDrawingText()
    text = text.replace("fill-opacity:1;", "")  # which is what stands for none
    text = text.replace(f"fill:{_MARK}", f"fill:{_MARK};fill-opacity:0.45")  # on light and on dark pages
    return text.replace(f"stroke:{_MARK}", "stroke:none").replace(_BLACK, "currentColor")


def draw(smiles: str | None, alt: str, prefix: str, marked: tuple[int, ...] = ()) -> Markup | None:
    """Draw a molecule as SVG, see `inline_svg`; None where there is no SMILES or it cannot be drawn.

    `marked` are atoms of the SMILES that are pointed out, in their order, with the bonds between them.
    """
    document = _document(smiles, marked) if smiles else None
    return None if document is None else inline_svg(document, alt, prefix)


class Pictures:
    """Turns figures and molecules into elements of one page, with ids that are unique in it."""

    def __init__(self) -> None:
        self.count = 0

    def _prefix(self) -> str:
        self.count += 1
        return f"p{self.count}"

    def figure(self, drawn: Figure, alt: str, caption: str, *, medium: bool = False) -> Markup:
        """Return a figure with its caption; a `medium` one is narrower than the page."""
        picture = svg(drawn, alt, self._prefix())
        if medium:
            picture = Markup(picture.replace("<svg ", '<svg class="medium" ', 1))
        return element("figure", element("div", picture, class_="plot"), element("figcaption", caption))

    def molecule(self, molecule: Depicted, marked: tuple[int, ...] = ()) -> Markup | None:
        """Return the drawn structure of a molecule, see `draw`; None where it cannot be drawn."""
        return draw(molecule.smiles, f"structure of {molecule.label}", self._prefix(), marked)
