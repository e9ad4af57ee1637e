"""SpecFormer: one transformer over the patches of several energy spectra (method, section 3).

Shapes: B molecules, S modalities, T tokens (347 for UV-Vis + IR + Raman), P points of a patch, d token width,
D representation width. Masks follow MAE's convention turned boolean: True is removed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molspectra.errors import InputError
from molspectra.spectra.modality import Modality, modality


@dataclass(frozen=True)
class SpecFormerConfig:
    """Sizes of SpecFormer."""

    modalities: tuple[str, ...] = ("uv_vis", "ir", "raman")
    """Names of the modalities, in token order."""
    patch: tuple[int, ...] | None = None
    """Points per patch of each modality; null takes the modality's own (20, 50, 50)."""
    stride: tuple[int, ...] | None = None
    """Points between patches of each modality; null takes the modality's own (10, 25, 25)."""
    width: int = 128
    """Token width d."""
    heads: int = 16
    """Attention heads; must divide `width`."""
    layers: int = 3
    """Transformer layers."""
    feed_forward: int = 256
    """Width of the feed-forward part."""

    def kinds(self) -> dict[str, Modality]:
        """The modalities with this configuration's patches, by name, in token order.

        Raises:
            InputError: an unknown modality, or patches that do not fit.
        """
        kinds = [modality(name) for name in self.modalities]
        for key, values in (("patch", self.patch), ("stride", self.stride)):
            if values is None:
                continue
            if len(values) != len(kinds) or min(values) < 1:
                raise InputError(f"{key} must give one positive length for each of {', '.join(self.modalities)}")
            kinds = [replace(kind, **{key: value}) for kind, value in zip(kinds, values, strict=True)]
        return {kind.name: kind for kind in kinds}


class SpecFormerOutput(NamedTuple):
    """What SpecFormer makes of a batch of spectra."""

    tokens: Tensor
    """[B, T, d] after the last layer; zero at absent modalities."""
    representation: Tensor
    """[B, D] representation of all present spectra of a molecule."""


def patchify(spectrum: Tensor, kind: Modality) -> Tensor:
    """Cut spectra [B, points] into overlapping patches [B, patches, P]."""
    return spectrum.unfold(-1, kind.patch, kind.stride)


def transform(spectrum: Tensor) -> Tensor:
    """Input transform log10(s + 1) of raw, non-negative intensities; any shape."""
    return torch.log10(spectrum + 1.0)


class PresentBatchNorm(nn.BatchNorm1d):
    """Batch normalisation over the features of present tokens only (batch and tokens together).

    In training, running statistics are updated only where `track` is True: the masked pass of a training step
    sees corrupted tokens and must not leak into what evaluation uses.
    """

    def forward(self, tokens: Tensor, present: Tensor | None = None, track: bool = True) -> Tensor:
        """Normalise [B, T, d]; rows where `present` [B, T] is False stay out of the statistics and are zero."""
        rows = tokens.flatten(0, 1) if present is None else tokens[present]
        if self.training and not track:
            normed = F.batch_norm(rows, None, None, self.weight, self.bias, True, 0.0, self.eps)
        else:
            normed = super().forward(rows)
        if present is None:
            return normed.view_as(tokens)
        return torch.zeros_like(tokens).masked_scatter(present.unsqueeze(-1), normed)


class ResidualAttention(nn.Module):
    """Multi-head attention whose scores add up over the layers (RealFormer), without storing a score matrix.

    Σ_{m≤l} q_m·k_m = [q_1…q_l]·[k_1…k_l]: layer l attends with the concatenated queries and keys of all layers
    so far, which is exact and lets fused attention kernels apply.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(
        self, tokens: Tensor, queries: list[Tensor], keys: list[Tensor], visible: Tensor | None
    ) -> Tensor:
        """Attend over the visible of [B, T, d]; appends this layer's queries and keys [B, H, T, d/H] to the lists."""
        queries.append(self._split(self.query(tokens)))
        keys.append(self._split(self.key(tokens)))
        attended = F.scaled_dot_product_attention(
            torch.cat(queries, dim=-1),
            torch.cat(keys, dim=-1),
            self._split(self.value(tokens)),
            attn_mask=None if visible is None else visible[:, None, None, :],
            scale=self.scale,
        )
        output: Tensor = self.output(attended.transpose(1, 2).flatten(-2))
        return output


class TransformerLayer(nn.Module):
    """Post-norm transformer layer with batch norms, GELU and no dropout."""

    def __init__(self, config: SpecFormerConfig) -> None:
        super().__init__()
        self.attention = ResidualAttention(config.width, config.heads)
        self.attention_norm = PresentBatchNorm(config.width)
        self.feed_forward = nn.Sequential(
            nn.Linear(config.width, config.feed_forward),
            nn.GELU(),
            nn.Linear(config.feed_forward, config.width),
        )
        self.feed_forward_norm = PresentBatchNorm(config.width)

    def forward(
        self,
        tokens: Tensor,
        queries: list[Tensor],
        keys: list[Tensor],
        present: Tensor | None,
        visible: Tensor | None,
        track: bool,
    ) -> Tensor:
        """Update tokens [B, T, d]; `present` and `visible` [B, T] say what is normalised and attended to."""
        attended = self.attention(tokens, queries, keys, visible)
        tokens = self.attention_norm(tokens + attended, present, track)
        updated: Tensor = self.feed_forward_norm(tokens + self.feed_forward(tokens), present, track)
        return updated


class SpecFormer(nn.Module):
    """Encoder of any subset of energy spectra per molecule.

    Absent modalities are masked in attention, left out of the batch norms' statistics, and their slice of the
    representation's linear map is omitted; with all present it is the published model.

    Args:
        config: sizes.
        representation: width D of the representation, the 3D encoder's width.

    Raises:
        ValueError: if `heads` does not divide `width`.
    """

    def __init__(self, config: SpecFormerConfig, representation: int) -> None:
        super().__init__()
        if config.width % config.heads:
            raise ValueError(f"{config.heads} heads do not divide the token width {config.width}")
        self.config = config
        self.kinds = config.kinds()
        kinds, width = self.kinds.items(), config.width
        self.projection = nn.ModuleDict({name: nn.Linear(kind.patch, width) for name, kind in kinds})
        self.position = nn.ParameterDict(
            {name: nn.Parameter(torch.empty(kind.patches, width).uniform_(-0.02, 0.02)) for name, kind in kinds}
        )
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.layers))
        self.reconstruction = nn.ModuleDict({name: nn.Linear(width, kind.patch) for name, kind in kinds})
        self.slices = nn.ModuleDict(
            {name: nn.Linear(kind.patches * width, representation, bias=False) for name, kind in kinds}
        )
        self.slice_bias = nn.Parameter(torch.zeros(representation))
        self.norm = nn.LayerNorm(representation)

    def forward(
        self,
        spectra: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
        masks: Mapping[str, Tensor] | None = None,
    ) -> SpecFormerOutput:
        """Encode spectra.

        Args:
            spectra: per modality raw intensities [B, points] on the modality's axis.
            present: per modality [B] bool; None where every molecule has every spectrum. A modality that
                is not in `spectra` is absent for all.
            masks: per modality [B, patches] bool, True where a patch is replaced by zeros before projection.
                A pass with masks leaves the batch norms' running statistics alone.
        """
        return self._encode(spectra, present, masks, track=masks is None)

    def reference_forward(
        self, spectra: Mapping[str, Tensor], masks: Mapping[str, Tensor]
    ) -> SpecFormerOutput:
        """The reference implementation's single pass: masked, and tracked by the running statistics."""
        return self._encode(spectra, None, masks, track=True)

    def _encode(
        self,
        spectra: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None,
        masks: Mapping[str, Tensor] | None,
        track: bool,
    ) -> SpecFormerOutput:
        names = [name for name in self.kinds if name in spectra]
        embedded = []
        for name in names:
            patches = patchify(transform(spectra[name]), self.kinds[name])
            if masks is not None:
                patches = patches.masked_fill(masks[name].unsqueeze(-1), 0.0)
            embedded.append(self.projection[name](patches) + self.position[name])
        tokens = torch.cat(embedded, dim=1)
        here = self._token_presence(names, present)
        if here is not None:
            tokens = tokens * here.unsqueeze(-1)

        queries: list[Tensor] = []
        keys: list[Tensor] = []
        # a molecule without any spectrum would have a softmax over nothing: NaN, also in the gradients
        visible = None if here is None else here | ~here.any(dim=1, keepdim=True)
        for layer in self.layers:
            tokens = layer(tokens, queries, keys, here, visible, track)
        pieces = self.split(tokens, names)
        representation = sum((self.slices[name](pieces[name].flatten(1)) for name in names), self.slice_bias)
        return SpecFormerOutput(tokens, self.norm(representation))

    def _token_presence(self, names: list[str], present: Mapping[str, Tensor] | None) -> Tensor | None:
        """[B, T] bool, or None when every token is there (the fast path, equal to the published model)."""
        if present is None or all(bool(present[name].all()) for name in names):
            return None
        spread = [present[name].unsqueeze(1).expand(-1, self.kinds[name].patches) for name in names]
        return torch.cat(spread, dim=1)

    def split(self, tokens: Tensor, names: list[str] | None = None) -> dict[str, Tensor]:
        """Cut tokens [B, T, d] into the modalities' [B, patches, d]; `names` lists those that are in."""
        names = list(self.kinds) if names is None else names
        return dict(zip(names, tokens.split([self.kinds[name].patches for name in names], dim=1), strict=True))

    def reconstruct(self, tokens: Tensor, names: list[str] | None = None) -> dict[str, Tensor]:
        """Predicted patches [B, patches, P] per modality, in the transformed scale log10(s + 1)."""
        return {name: self.reconstruction[name](piece) for name, piece in self.split(tokens, names).items()}
