"""Pictures of a page: figures with captions, and drawn structures."""

from __future__ import annotations

from matplotlib.figure import Figure

from molspectra.chem.drawing import svg_of_smiles
from molspectra.reporting.canvas import inline_svg, svg
from molspectra.reporting.content import Depicted
from molspectra.reporting.markup import Markup, element


def draw(smiles: str | None, alt: str, prefix: str, marked: tuple[int, ...] = ()) -> Markup | None:
    """Draw a molecule as SVG, see `inline_svg`; None where there is no SMILES or it cannot be drawn.

    `marked` are atoms of the SMILES that are pointed out, in their order, with the bonds between them.
    """
    document = svg_of_smiles(smiles, marked) if smiles else None
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
