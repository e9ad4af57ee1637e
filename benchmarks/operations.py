"""Floating-point operations of the matrix products of a step: the formula behind `efficiency`.

Counted are the linear maps, the attention products and the scores of the alignment of the plain algorithm in
`reference` mode, a multiplication and an addition as two; not element-wise work, norms, the 3×3 products of
the whitening, or the optimizer. Distance filters count once per directed edge, self-edges included, although
half of them are equal. docs/performance.md has the formula in one table.
"""

from dataclasses import dataclass
from typing import Literal

from molspectra.models.config import EquivariantTransformerConfig, SpecFormerConfig

Kind = Literal["full", "filter", "first", "unused"]
"""What a product's backward has: "full" gradients of weight and input; "filter", whose input depends on the
coordinates alone; "first", whose input depends on nothing; "unused", whose output does not reach the loss."""

Work = Literal["inference", "training", "forces", "force training"]
"""Forward only; with gradients of the weights; with forces; with both, of a loss on forces."""

PASSES: dict[Work, dict[Kind, int]] = {
    "inference": {"full": 1, "filter": 1, "first": 1, "unused": 1},
    "training": {"full": 3, "filter": 2, "first": 2, "unused": 1},
    "forces": {"full": 2, "filter": 2, "first": 1, "unused": 1},
    "force training": {"full": 6, "filter": 6, "first": 2, "unused": 1},
}
"""How many products of a linear map's size each kind of work takes."""


@dataclass(frozen=True)
class Sizes:
    """What the number of operations depends on, besides the model."""

    molecules: int
    """B."""
    atoms: int
    """N."""
    edges: int
    """Directed edges E, self-edges included: as often each distance filter is evaluated."""


@dataclass(frozen=True)
class Products:
    """Operations of one forward pass, by kind."""

    full: float = 0.0
    filter: float = 0.0
    first: float = 0.0
    unused: float = 0.0

    def __add__(self, other: "Products") -> "Products":
        """Sum kind by kind."""
        return Products(
            self.full + other.full,
            self.filter + other.filter,
            self.first + other.first,
            self.unused + other.unused,
        )

    def total(self, work: Work) -> float:
        """Operations of all passes of a kind of work."""
        return sum(factor * getattr(self, kind) for kind, factor in PASSES[work].items())


def encoder(config: EquivariantTransformerConfig, sizes: Sizes) -> Products:
    """The equivariant transformer.

    Per atom and layer C² ·2· (query 1, key 1, value 3, output 3, vector 3·3); the first layer's vectors are
    zeros. Per edge and layer 2·K·4C, and K·C once more for the neighbour embedding, with 2·2C·C per atom.
    """
    square = 2.0 * sizes.atoms * config.channels**2
    vector = 9 * square
    edge = 2.0 * sizes.edges * config.radial * config.channels
    layers = config.layers
    return Products(
        full=layers * 8 * square + (layers - 1) * vector + 2 * square,
        filter=(4 * layers + 1) * edge,
        first=vector,
    )


def head(channels: int, sizes: Sizes, vectors: bool) -> Products:
    """Two gated blocks, C → C/2 → 1; of the scalar head's last block the `vectors` are not used."""
    half = channels // 2
    block = 3 * channels**2 + 3 * channels * half + 2 * channels**2 + channels * 2 * half
    last = 3 * half**2 + 2 * half**2 + 2 * half
    out = 2.0 * sizes.atoms * 3 * half
    full = 2.0 * sizes.atoms * (block + last)
    return Products(full=full + out * vectors, unused=out * (not vectors))


def specformer(config: SpecFormerConfig, channels: int, sizes: Sizes) -> Products:
    """SpecFormer with the reconstruction and the alignment against the representations [B, C], once.

    Per molecule and layer 2·T·(4d² + 2df) and, each layer's own scores and its values, 4·T²·d.
    """
    kinds, width = config.kinds().values(), config.width
    tokens = sum(kind.patches for kind in kinds)
    patches = sum(2.0 * kind.patches * kind.patch * width for kind in kinds)
    linear = 2.0 * tokens * (4 * width**2 + 2 * width * config.feed_forward)
    attention = 4.0 * tokens**2 * width
    representation = 2.0 * tokens * width * channels
    alignment = 2.0 * sizes.molecules * channels  # per molecule, against all
    per_molecule = config.layers * (linear + attention) + patches + representation + alignment
    return Products(full=sizes.molecules * per_molecule, first=sizes.molecules * patches)
