"""The transformer layer of SpecFormer (method, section 3): residual attention, batch norms, feed-forward.

Shapes: B molecules, H heads, T tokens, d token width, n rows (tokens of all molecules that are present).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from molspectra.compiled import fast, kernels
from molspectra.models.formulas import plain_attention
from molspectra.models.kernels.arrays import differentiable
from molspectra.models.shared import AllGather, Shared

CHUNK_ROWS = 2048
"""Rows that pass the feed-forward part at once on the CPU."""


class TransformerLayer(nn.Module):
    """Post-norm transformer layer with batch norms, GELU and no dropout."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention = ResidualAttention(width, heads)
        self.attention_norm = PresentBatchNorm(width)
        self.feed_forward = FeedForward(width, hidden)
        self.feed_forward_norm = PresentBatchNorm(width)

    def forward(
        self,
        tokens: Tensor,
        queries: list[Tensor],
        keys: list[Tensor],
        rows: Tensor | None,
        visible: Tensor | None,
        track: bool,
    ) -> Tensor:
        """Update tokens [B, T, d].

        Args:
            tokens: [B, T, d] of the layer before.
            queries: [B, T, d] of every layer before; this layer's are appended.
            keys: [B, T, d] of every layer before; this layer's are appended.
            rows: [n] int64, tokens of all B T that are normalised (the others become 0); None for all.
            visible: [B, T] bool, tokens that are attended to; None for all.
            track: whether the batch norms update their running statistics.
        """
        attended = self.attention(tokens, queries, keys, visible)
        tokens = self.attention_norm(tokens + attended, rows, track)
        updated: Tensor = self.feed_forward_norm(tokens + self.feed_forward(tokens), rows, track)
        return updated


# Attention


class ResidualAttention(nn.Module):
    """Multi-head attention whose scores add up over the layers, with its projections.

    Σ_{m≤l} q_m·k_m = [q_1…q_l]·[k_1…k_l]: layer l attends with the concatenated queries and keys of all
    layers so far, which is exact, stores no scores, and lets fused attention kernels apply.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(
        self, tokens: Tensor, queries: list[Tensor], keys: list[Tensor], visible: Tensor | None
    ) -> Tensor:
        """Attend over the visible of tokens [B, T, d]; `visible` is [B, T] bool, or None for all.

        Appends this layer's queries and keys, [B, T, d] each, to the lists.
        """
        projections = (self.query, self.key, self.value)  # one matrix product for all three
        weight = torch.cat([projection.weight for projection in projections])
        bias = torch.cat([projection.bias for projection in projections])
        query, key, value = F.linear(tokens, weight, bias).chunk(3, dim=-1)
        queries.append(query)
        keys.append(key)
        output: Tensor = self.output(
            residual_attention(queries, keys, value, self.heads, self.scale, visible)
        )
        return output


def residual_attention(
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    value: Tensor,
    heads: int,
    scale: float,
    visible: Tensor | None = None,
) -> Tensor:
    """softmax_j(scale·Σ_m q_m,i·k_m,j)·v_j per head, [B, T, d].

    Args:
        queries: [B, T, d] of every layer so far.
        keys: [B, T, d] of every layer so far.
        value: [B, T, d] of this layer.
        heads: number of heads H, which divides d.
        scale: factor of the scores.
        visible: [B, T] bool, tokens that are attended to, at least one per molecule; None for all.
    """
    inputs = [*queries, *keys, value]
    if value.device.type == "cpu" and value.dtype == torch.bfloat16:
        inputs = [tensor.float() for tensor in inputs]  # the kernel computes in float32
    if not fast(*inputs):
        return plain_attention(queries, keys, value, heads, scale, visible)
    from molspectra.models.kernels.attention import fused_attention

    return fused_attention(inputs, heads, scale, visible).to(value.dtype)


# Batch normalisation


class PresentBatchNorm(Shared, nn.BatchNorm1d):
    """Batch normalisation over the features of present tokens, of one process or of all ranks of a run.

    In training, running statistics are updated only where `track` is True: the masked pass of a training step
    sees corrupted tokens, which must not enter the statistics that evaluation uses.
    """

    def forward(self, tokens: Tensor, present: Tensor | None = None, track: bool = True) -> Tensor:
        """Normalise [B, T, d]; of the B T rows those not in `present` [n] int64 are left out and become 0."""
        flat = tokens.flatten(0, 1)
        rows = flat if present is None else flat.index_select(0, present)
        if self.training and self.all_gather is not None:
            normed = self._over_ranks(rows, self.all_gather, track)
        elif self.training and not track:
            normed = F.batch_norm(rows, None, None, self.weight, self.bias, True, 0.0, self.eps)
        else:
            normed = super().forward(rows)
        if present is None:
            return normed.view_as(tokens)
        return torch.zeros_like(flat).index_copy(0, present, normed).view_as(tokens)

    def _over_ranks(self, rows: Tensor, all_gather: AllGather, track: bool) -> Tensor:
        """Normalise rows [n, d], n ≥ 0, by the mean and variance of the rows of all ranks."""
        normed, mean, variance, count = NormOverRanks.apply(
            rows, self.weight, self.bias, self.eps, all_gather
        )
        if track:
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            has_rows = count > 0
            weight = has_rows.to(self.running_mean) * (self.momentum or 0.0)
            unbiased = variance * (count / (count - 1.0).clamp(min=1.0))
            self.running_mean.lerp_(mean.to(self.running_mean), weight)
            self.running_var.lerp_(unbiased.to(self.running_var), weight)
            self.num_batches_tracked += has_rows
        assert isinstance(normed, Tensor)
        return normed


class NormOverRanks(torch.autograd.Function):
    """(rows [n, d], weight [d], bias [d], ε, gather) to (normed [n, d], mean [d], variance [d], count []).

    Ranks send (mean, sum of squared deviations, n) in float64, which are joined without cancellation (Chan,
    Golub, LeVeque 1979). The losses of the ranks add up, so backward needs the sums over all ranks of the
    gradients, and of the gradients times the normed rows. torch's SyncBatchNorm does the same, but only on
    GPUs.

    A second derivative through it raises RuntimeError.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor, eps: float, all_gather: AllGather
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Normalise the rows of this rank."""
        wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
        own = rows.new_zeros(3, rows.shape[1], dtype=torch.float64)  # means, squared deviations, counts
        if len(rows):  # the variance of no rows is NaN
            own[1], own[0] = torch.var_mean(wide, dim=0, correction=0)
            own[1] *= len(rows)
            own[2] = len(rows)
        means, squares, counts = all_gather(own).unbind(1)  # [world, d] each
        count = counts[:, 0].sum()
        safe = count.clamp(min=1.0)
        mean = (counts * means).sum(0) / safe
        variance = (squares + counts * (means - mean).square()).sum(0) / safe
        inverse = (variance + eps).rsqrt().to(wide)
        normed = (wide - mean.to(wide)) * (inverse * weight) + bias
        ctx.save_for_backward(rows, weight, mean.to(wide), inverse, safe)
        ctx.all_gather = all_gather
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
        shift, scale = (ctx.all_gather(own).sum(0) / count).to(standard)
        d_rows = (gradient - shift - standard * scale) * (inverse * weight)
        return d_rows.to(rows), own[1].to(weight), own[0].to(weight), None, None


# Feed-forward part


class FeedForward(nn.Sequential):
    """Linear(GELU(Linear(x))): x [..., d] to [..., d] through `hidden` features.

    On the CPU rows pass in chunks whose hidden features stay in the cache, and backward computes them again:
    no slower than reading them back from memory, and the largest part of what a layer would store.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """Apply to every row of x [..., d]."""
        is_plain = x.device.type != "cpu" or torch.compiler.is_compiling() or kernels() == "plain"
        if is_plain or torch.is_autocast_enabled("cpu"):
            result: Tensor = super().forward(x)
            return result
        first, _, last = self
        rows = x.reshape(-1, x.shape[-1])
        result = _FeedForwardInChunks.apply(rows, first.weight, first.bias, last.weight, last.bias)
        return result.view_as(x)


class _FeedForwardInChunks(torch.autograd.Function):
    """(x [n, d], first weight [h, d] and bias [h], last weight [d, h] and bias [d]) to [n, d]."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, last_weight: Tensor, last_bias: Tensor
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias, last_weight, last_bias)
        result = torch.empty_like(x)
        for rows, out in zip(x.split(CHUNK_ROWS), result.split(CHUNK_ROWS), strict=True):
            torch.addmm(last_bias, F.gelu(torch.addmm(bias, rows, weight.T)), last_weight.T, out=out)
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # for second derivatives
            return differentiable(_plain_feed_forward, ctx.saved_tensors, [grad])
        x, weight, bias, last_weight, _ = ctx.saved_tensors
        d_x = torch.empty_like(x)
        d_weight, d_bias, d_last_weight, d_last_bias = map(torch.zeros_like, ctx.saved_tensors[1:])
        for rows, d_rows, d_out in zip(*(t.split(CHUNK_ROWS) for t in (x, d_x, grad)), strict=True):
            hidden = torch.addmm(bias, rows, weight.T)
            d_last_weight.addmm_(d_out.T, F.gelu(hidden))
            d_hidden = torch.ops.aten.gelu_backward(torch.mm(d_out, last_weight), hidden)
            torch.mm(d_hidden, weight, out=d_rows)
            d_weight.addmm_(d_hidden.T, rows)
            d_bias += d_hidden.sum(0)
            d_last_bias += d_out.sum(0)
        return d_x, d_weight, d_bias, d_last_weight, d_last_bias


def _plain_feed_forward(
    x: Tensor, weight: Tensor, bias: Tensor, last_weight: Tensor, last_bias: Tensor
) -> Tensor:
    """The same without chunks, which can be differentiated again."""
    return F.linear(F.gelu(F.linear(x, weight, bias)), last_weight, last_bias)
