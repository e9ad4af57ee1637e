"""The processes of a run: sums and gathers that also work for one.

Every loss is a sum over items divided by their number on all ranks, so gradients are added up over the ranks.
This is done once per step and by hand: no wrapper around the model has to guess which weights a step uses.
"""

from collections.abc import Iterable
from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn


class Ranks:
    """What the ranks of a Fabric run tell each other; all must call the same methods in the same order.

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
        """A tensor [...] of this rank to those of all ranks, [world, ...], without gradients."""
        return self._gather(values.to(self.fabric.device))  # the host may ask too

    def gather(self, rows: Tensor) -> tuple[Tensor, int]:
        """Rows of all ranks, with gradients, and the place of this rank's first among them.

        Args:
            rows: [b, ...] of this rank; ranks may have different numbers b, also none.
        """
        if self.world == 1:
            return rows, 0
        sizes = [int(size) for size in self._gather(torch.tensor(len(rows), device=self.fabric.device))]
        padding = rows.new_zeros((max(sizes) - len(rows), *rows.shape[1:]))
        everyone = self._gather(torch.cat([rows, padding]), sync_grads=rows.requires_grad)
        parts = [everyone[rank, :size] for rank, size in enumerate(sizes)]
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
        """Return when all ranks have come here."""
        self.fabric.barrier()

    def _sum(self, values: Tensor) -> Tensor:
        return cast(Tensor, self.fabric.all_reduce(values, reduce_op="sum"))

    def _gather(self, values: Tensor, sync_grads: bool = False) -> Tensor:
        """[...] of this rank to [world, ...]."""
        return cast(Tensor, self.fabric.all_gather(values, sync_grads=sync_grads))
