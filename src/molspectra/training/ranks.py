"""The processes (ranks) of a run: sums, gathers, and the negatives of the contrastive loss over all of them.

Every loss is a sum over items divided by their number on all ranks, so gradients are added up over the ranks.
This is done once per step and by hand: no wrapper around the model has to guess which weights a step uses.

The gradient of a contrastive loss needs the representations of all ranks and micro-batches at once, but not
all graphs. GradCache (Gao et al. 2021) takes the representations of all micro-batches from a pass without
gradients, computes the loss and its gradient by each of them, and then, micro-batch by micro-batch, continues
that gradient into the encoders.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from molspectra.objectives.loss import Loss

Gather = Callable[[Tensor], tuple[Tensor, int]]
"""Maps rows of this rank to (rows of all ranks with gradients, index of this rank's first row)."""

Align = Callable[[Tensor, Tensor, Gather | None], Loss]
"""Loss of pairs [b, 2 D] of molecule and spectrum representations with identities [b], among all ranks'."""


class Ranks:
    """Communication between the ranks of a Fabric run; all must call the same methods in the same order.

    Attributes:
        world: number of ranks.
        rank: number of this one, from 0.
    """

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self.world: int = fabric.world_size
        self.rank: int = fabric.global_rank

    def summed(self, values: Tensor) -> Tensor:
        """Sum of a tensor over the ranks on their devices, in float64 where there are several."""
        return values if self.world == 1 else self._sum(values.to(self.fabric.device, torch.float64))

    def total(self, values: Tensor) -> Tensor:
        """Sum of a tensor over the ranks, float64 on the CPU."""
        return self.summed(values).cpu().double()

    def any(self, flag: bool) -> bool:
        """Whether a flag is set on any rank."""
        return bool(self.total(torch.tensor([float(flag)])) > 0)

    def each(self, values: Tensor) -> Tensor:
        """Stack a tensor [...] of every rank to [world, ...], without gradients."""
        return self._gather(values.to(self.fabric.device))  # the host may ask too

    def gather(self, rows: Tensor) -> tuple[Tensor, int]:
        """Concatenate the rows of all ranks, with gradients; also return the index of this rank's first row.

        Args:
            rows: [b, ...] of this rank; ranks may have different numbers b, also none.
        """
        if self.world == 1:
            return rows, 0
        sizes = [int(size) for size in self._gather(torch.tensor(len(rows), device=self.fabric.device))]
        padding = rows.new_zeros((max(sizes) - len(rows), *rows.shape[1:]))
        padded = self._gather(torch.cat([rows, padding]), sync_grads=rows.requires_grad)
        parts = [padded[rank, :size] for rank, size in enumerate(sizes)]
        return torch.cat(parts), sum(sizes[: self.rank])

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over the ranks; weights without any gradient stay without."""
        if self.world == 1:
            return
        weights = [weight for weight in parameters if weight.requires_grad]
        used = torch.tensor([float(weight.grad is not None) for weight in weights])
        gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
        flat = torch.cat([used.to(gradients[0]), *(gradient.flatten() for gradient in gradients)])
        used, *sums = self._sum(flat).split([len(weights), *(weight.numel() for weight in weights)])
        for weight, gradient, is_used in zip(weights, sums, used.tolist(), strict=True):
            weight.grad = gradient.view_as(weight) if is_used else None

    def wait(self) -> None:
        """Wait until all ranks have called this."""
        self.fabric.barrier()

    def _sum(self, values: Tensor) -> Tensor:
        return cast(Tensor, self.fabric.all_reduce(values, reduce_op="sum"))

    def _gather(self, values: Tensor, sync_grads: bool = False) -> Tensor:
        """Stack [...] of every rank to [world, ...]."""
        return cast(Tensor, self.fabric.all_gather(values, sync_grads=sync_grads))


class Negatives:
    """Collects the negatives of the contrastive loss over the ranks, for one micro-batch per rank.

    Args:
        gather: shares rows between the ranks; None for one process. All ranks must call it equally often.
    """

    def __init__(self, gather: Gather | None = None) -> None:
        self.gather = gather

    def __call__(self, align: Align, pairs: Tensor, identity: Tensor) -> Loss:
        """Return the loss of the pairs [b, 2 D] of a micro-batch."""
        return align(pairs, identity, self.gather)


class StepNegatives(Negatives):
    """Collects the negatives of the contrastive loss over several micro-batches and the ranks (GradCache).

    The micro-batches pass twice, in the same order. In the first pass, without gradients, their pairs are
    stored; `finish` computes the loss of all. In the second pass the first micro-batch returns that loss, the
    others 0, and each continues the gradient of its own pairs.
    """

    def __init__(self, gather: Gather | None = None) -> None:
        super().__init__(gather)
        self._stored: list[tuple[Align, Tensor, Tensor]] = []
        self._shares: Iterator[tuple[Tensor, Tensor | float]] | None = None

    def __call__(self, align: Align, pairs: Tensor, identity: Tensor) -> Loss:
        """Store the pairs [b, 2 D], or continue the gradient into them."""
        if self._shares is None:
            self._stored.append((align, pairs.detach(), identity))
            return Loss(pairs.new_zeros(()), float(len(pairs)))
        gradient, loss = next(self._shares)
        surrogate = (pairs * gradient).sum()
        return Loss(surrogate - surrogate.detach() + loss, float(len(pairs)))

    def finish(self) -> None:
        """Compute the loss of all stored pairs and its gradient; the second pass begins."""
        shares: list[tuple[Tensor, Tensor | float]] = []
        if self._stored:
            aligns, pairs, identities = zip(*self._stored, strict=True)
            all_pairs = torch.cat(pairs).requires_grad_()
            with torch.enable_grad():
                loss = aligns[0](all_pairs, torch.cat(identities), self.gather).sum
            (gradient,) = torch.autograd.grad(loss, all_pairs, retain_graph=True)
            parts = gradient.split([len(rows) for rows in pairs])
            shares = [(part, loss if index == 0 else 0.0) for index, part in enumerate(parts)]
        self._shares = iter(shares)
