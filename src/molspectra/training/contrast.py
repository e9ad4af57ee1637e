"""Who is contrasted with whom in a step: the molecules of all ranks and micro-batches.

The gradient of a contrastive loss needs all representations at once, but not all graphs: GradCache (Gao et
al. 2021) takes the representations of all micro-batches from a pass without gradients, the loss and its
gradient by each of them, and then, micro-batch by micro-batch, continues that gradient into the encoders.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from molspectra.objectives.loss import Loss

Gather = Callable[[Tensor], tuple[Tensor, int]]
"""Rows of this rank to (rows of all ranks with gradients, place of this rank's first row)."""

Align = Callable[[Tensor, Tensor, Gather | None], Loss]
"""Loss of pairs [b, 2 D] of representations of molecules and spectra, and identities [b], among all."""


class Contrast:
    """A step of one micro-batch per rank, or a batch by itself.

    Args:
        gather: shares rows between the ranks; None for one process. All ranks must call it equally often.
    """

    def __init__(self, gather: Gather | None = None) -> None:
        self.gather = gather

    def __call__(self, align: Align, pairs: Tensor, identity: Tensor) -> Loss:
        """Loss of the pairs [b, 2 D] of a micro-batch."""
        return align(pairs, identity, self.gather)


class StepContrast(Contrast):
    """A step of several micro-batches, which pass twice, in the same order.

    The first time, without gradients, it notes the pairs; `finish` then has the loss of all. The second time
    the first micro-batch is given that loss, the others 0, and each the gradient of its own pairs.
    """

    def __init__(self, gather: Gather | None = None) -> None:
        super().__init__(gather)
        self._noted: list[tuple[Align, Tensor, Tensor]] = []
        self._parts: Iterator[tuple[Tensor, Tensor | float]] | None = None

    def __call__(self, align: Align, pairs: Tensor, identity: Tensor) -> Loss:
        """Note the pairs, or continue the gradient into them."""
        if self._parts is None:
            self._noted.append((align, pairs.detach(), identity))
            return Loss(pairs.new_zeros(()), float(len(pairs)))
        gradient, share = next(self._parts)
        through = (pairs * gradient).sum()
        return Loss(through - through.detach() + share, float(len(pairs)))

    def finish(self) -> None:
        """Contrast all that was noted; the second time begins."""
        shares: list[tuple[Tensor, Tensor | float]] = []
        if self._noted:
            aligns, pairs, identities = zip(*self._noted, strict=True)
            everything = torch.cat(pairs).requires_grad_()
            with torch.enable_grad():
                loss = aligns[0](everything, torch.cat(identities), self.gather).sum
            (gradient,) = torch.autograd.grad(loss, everything, retain_graph=True)
            parts = gradient.split([len(each) for each in pairs])
            shares = [(part, 0.0 if place else loss) for place, part in enumerate(parts)]
        self._parts = iter(shares)
