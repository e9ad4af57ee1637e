"""Pictures of one page: every one gets ids of its own."""

from __future__ import annotations

from matplotlib.figure import Figure

from molspectra.reporting.canvas import svg
from molspectra.reporting.content import Depicted
from molspectra.reporting.drawing import draw
from molspectra.reporting.markup import Markup, figure


class Pictures:
    """Turns figures and molecules into parts of a page."""

    def __init__(self) -> None:
        self.count = 0

    def _prefix(self) -> str:
        self.count += 1
        return f"p{self.count}"

    def figure(self, drawn: Figure, alt: str, caption: str, *, medium: bool = False) -> Markup:
        """A figure with its caption.

        Args:
            drawn: the figure.
            alt: says in words what it shows.
            caption: stands below it.
            medium: narrower than the page.
        """
        picture = svg(drawn, alt, self._prefix())
        if medium:
            picture = Markup(picture.replace("<svg ", '<svg class="medium" ', 1))
        return figure(picture, caption)

    def molecule(self, molecule: Depicted) -> Markup | None:
        """A molecule in two dimensions; None where it cannot be drawn."""
        return draw(molecule.smiles, f"structure of {molecule.label}", self._prefix())
