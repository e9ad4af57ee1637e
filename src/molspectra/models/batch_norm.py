"""Batch normalisation of the tokens that are there, over one process or over all ranks of a run."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from molspectra.models.shared import Everyone, Shared


class PresentBatchNorm(Shared, nn.BatchNorm1d):
    """Batch normalisation over the features of present tokens only (batch and tokens together).

    In training, running statistics are updated only where `track` is True: the masked pass of a training step
    sees corrupted tokens and must not leak into what evaluation uses.
    """

    def forward(self, tokens: Tensor, present: Tensor | None = None, track: bool = True) -> Tensor:
        """Normalise [B, T, d]; where `present` [B, T] is False, rows are left out and become 0."""
        rows = tokens.flatten(0, 1) if present is None else tokens[present]
        if self.training and self.everyone is not None:
            normed = self._over_ranks(rows, self.everyone, track)
        elif self.training and not track:
            normed = F.batch_norm(rows, None, None, self.weight, self.bias, True, 0.0, self.eps)
        else:
            normed = super().forward(rows)
        if present is None:
            return normed.view_as(tokens)
        return torch.zeros_like(tokens).masked_scatter(present.unsqueeze(-1), normed)

    def _over_ranks(self, rows: Tensor, everyone: Everyone, track: bool) -> Tensor:
        """Normalise rows [n, d], n ≥ 0, by the mean and variance of the rows of all ranks."""
        normed, mean, variance, count = NormOverRanks.apply(  # type: ignore[no-untyped-call]
            rows, self.weight, self.bias, self.eps, everyone
        )
        if track:
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            some = count > 0
            weight = some.to(self.running_mean) * (self.momentum or 0.0)
            unbiased = variance * (count / (count - 1.0).clamp(min=1.0))
            self.running_mean.lerp_(mean.to(self.running_mean), weight)
            self.running_var.lerp_(unbiased.to(self.running_var), weight)
            self.num_batches_tracked += some
        assert isinstance(normed, Tensor)
        return normed


class NormOverRanks(torch.autograd.Function):
    """(rows [n, d], weight [d], bias [d], ε, gather) to (normed [n, d], mean [d], variance [d], count []).

    Ranks send (mean, sum of squared deviations, n) in float64, which are joined without cancellation (Chan,
    Golub, LeVeque 1979). Losses of ranks add up, so going back every rank needs the sums over all ranks of
    the gradients, and of those times the normed rows. torch's own SyncBatchNorm does the same, on GPUs alone.

    A second derivative through it raises RuntimeError.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor, eps: float, everyone: Everyone
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Normalise the rows of this rank."""
        wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
        own = rows.new_zeros(3, rows.shape[1], dtype=torch.float64)  # means, squared deviations, counts
        if len(rows):  # there is no variance of nothing
            own[1], own[0] = torch.var_mean(wide, dim=0, correction=0)
            own[1] *= len(rows)
            own[2] = len(rows)
        means, squares, counts = everyone(own).unbind(1)  # [world, d] each
        count = counts[:, 0].sum()
        safe = count.clamp(min=1.0)
        mean = (counts * means).sum(0) / safe
        variance = (squares + counts * (means - mean).square()).sum(0) / safe
        inverse = (variance + eps).rsqrt().to(wide)
        normed = (wide - mean.to(wide)) * (inverse * weight) + bias
        ctx.save_for_backward(rows, weight, mean.to(wide), inverse, safe)
        ctx.everyone = everyone
        ctx.mark_non_differentiable(mean, variance, count)
        return normed.to(rows), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the rows, over all ranks, and this rank's part of those of weight and bias."""
        rows, weight, mean, inverse, count = ctx.saved_tensors
        standard = (rows - mean) * inverse
        own = torch.stack(
            [gradient.sum(0, dtype=torch.float64), (gradient * standard).sum(0, dtype=torch.float64)]
        )
        shift, scale = (ctx.everyone(own).sum(0) / count).to(standard)
        back = (gradient - shift - standard * scale) * (inverse * weight)
        return back.to(rows), own[1].to(weight), own[0].to(weight), None, None
