"""Residual attention: multi-head attention whose scores add up over the layers (method, section 3).

Σ_{m≤l} q_m·k_m = [q_1…q_l]·[k_1…k_l]: layer l attends with the concatenated queries and keys of all layers so
far, which is exact, needs no stored scores, and lets fused attention kernels apply.

Shapes: B molecules, H heads, T tokens, d token width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molspectra.compiled import fast


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """[B, T, d] to [B, H, T, d/H]."""
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


def plain_attention(
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    value: Tensor,
    heads: int,
    scale: float,
    visible: Tensor | None = None,
) -> Tensor:
    """`residual_attention` in plain torch."""
    query, key = (torch.cat([split_heads(each, heads) for each in parts], -1) for parts in (queries, keys))
    values = split_heads(value, heads)
    width = values.shape[-1]
    attended = F.scaled_dot_product_attention(
        query,
        key,
        F.pad(values, (0, query.shape[-1] - width)),  # fused kernels want one width for all three
        attn_mask=None if visible is None else visible[:, None, None, :],
        scale=scale,
    )[..., :width]
    return attended.transpose(1, 2).flatten(-2)


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
        heads: number of heads; they share out d.
        scale: factor of the scores.
        visible: [B, T] bool, tokens that are attended to, at least one per molecule; None for all.
    """
    parts = [*queries, *keys, value]
    if value.device.type == "cpu" and value.dtype == torch.bfloat16:
        parts = [part.float() for part in parts]  # the kernel computes in float32
    if not fast(*parts):
        return plain_attention(queries, keys, value, heads, scale, visible)
    from molspectra.models.kernels.attention import fused_attention

    return fused_attention(parts, heads, scale, visible).to(value.dtype)


class ResidualAttention(nn.Module):
    """Multi-head residual attention with its projections."""

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
        """Attend over the visible of tokens [B, T, d]; visible is [B, T] bool, or None for all.

        Appends this layer's queries and keys, [B, T, d] each, to the lists.
        """
        parts = (self.query, self.key, self.value)  # one matrix product for all three
        weight, bias = torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts])
        query, key, value = F.linear(tokens, weight, bias).chunk(3, dim=-1)
        queries.append(query)
        keys.append(key)
        output: Tensor = self.output(
            residual_attention(queries, keys, value, self.heads, self.scale, visible)
        )
        return output
