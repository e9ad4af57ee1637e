"""The processes of a run: sums and gathers that also work for one."""

from typing import Any

import torch
from torch import Tensor


class Ranks:
    """Sums and gathers over the processes of a Fabric run."""

    def __init__(self, fabric: Any) -> None:
        self.fabric = fabric
        self.world: int = fabric.world_size
        self.rank: int = fabric.global_rank

    def total(self, values: dict[str, float]) -> dict[str, float]:
        """Sum of every value over the ranks; all ranks must have the same names."""
        if self.world == 1:
            return values
        stacked = torch.tensor(list(values.values()), dtype=torch.float64, device=self.fabric.device)
        summed = self.fabric.all_reduce(stacked, reduce_op="sum")
        return dict(zip(values, summed.tolist(), strict=True))

    def gather(self, rows: Tensor) -> tuple[Tensor, int]:
        """Rows [b, ...] of this rank to those of all ranks with gradients, and the place of this rank's first."""
        if self.world == 1:
            return rows, 0
        sizes = self.fabric.all_gather(torch.tensor(len(rows), device=self.fabric.device)).tolist()
        padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
        padded = torch.cat([rows, padded[len(rows) :]])
        everyone = self.fabric.all_gather(padded, sync_grads=rows.requires_grad)
        parts = [everyone[rank, :size] for rank, size in enumerate(sizes)]
        return torch.cat(parts), sum(sizes[: self.rank])
