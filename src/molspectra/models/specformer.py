"""SpecFormer: one transformer over the patches of several energy spectra (method, section 3).

Shapes: B molecules, S modalities, T tokens (347 for UV-Vis + IR + Raman), P points of a patch, d token width,
D representation width. Masks follow MAE's convention turned boolean: True is removed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from molspectra.errors import InputError
from molspectra.models.attention import ResidualAttention
from molspectra.models.batch_norm import PresentBatchNorm
from molspectra.models.feed_forward import FeedForward
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

    def __post_init__(self) -> None:
        """Refuse sizes that make no network.

        Raises:
            InputError: a size that is not positive, heads that do not divide the width, a modality twice.
        """
        if min(self.width, self.heads, self.layers, self.feed_forward) < 1:
            raise InputError("spectrum encoder: width, heads, layers and feed_forward must be positive")
        if self.width % self.heads:
            raise InputError(f"spectrum encoder: {self.heads} heads do not divide the width {self.width}")
        if not self.modalities or len(set(self.modalities)) < len(self.modalities):
            raise InputError("spectrum encoder: name at least one modality, and each only once")

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
                names = ", ".join(self.modalities)
                raise InputError(f"spectrum encoder: {key} must give one positive length for each of {names}")
            changes: list[dict[str, Any]] = [{key: value} for value in values]
            kinds = [replace(kind, **change) for kind, change in zip(kinds, changes, strict=True)]
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


def at_places(rows: Tensor, places: Tensor) -> Tensor:
    """Of rows [B, n, d] those at `places` [B, k] int64 of each molecule, [B, k, d]."""
    first = torch.arange(len(rows), device=rows.device).unsqueeze(1) * rows.shape[1]
    chosen = rows.flatten(0, 1).index_select(0, (first + places).flatten())
    return chosen.view(*places.shape, -1)


def _where_needed(names: list[str], present: Mapping[str, Tensor] | None) -> Mapping[str, Tensor] | None:
    """None when all are present: the fast path, equal to the published model."""
    if present is None or bool(torch.stack([present[name] for name in names]).all()):
        return None
    return present


class TransformerLayer(nn.Module):
    """Post-norm transformer layer with batch norms, GELU and no dropout."""

    def __init__(self, config: SpecFormerConfig) -> None:
        super().__init__()
        self.attention = ResidualAttention(config.width, config.heads)
        self.attention_norm = PresentBatchNorm(config.width)
        self.feed_forward = FeedForward(config.width, config.feed_forward)
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
        InputError: an unknown modality, or patches that do not fit.
    """

    def __init__(self, config: SpecFormerConfig, representation: int) -> None:
        super().__init__()
        self.config = config
        self.kinds = config.kinds()
        kinds, width = self.kinds.items(), config.width
        self.projection = nn.ModuleDict({name: nn.Linear(kind.patch, width) for name, kind in kinds})
        self.position = nn.ParameterDict({name: torch.empty(kind.patches, width) for name, kind in kinds})
        for position in self.position.values():
            nn.init.uniform_(position, -0.02, 0.02)
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
                is not in `spectra` is absent for all. What an absent spectrum holds does not matter. Best on
                the CPU: whether any is absent has to be known before the pass.
            masks: per modality [B, patches] bool, True where a patch is replaced by zeros before projection.
                A pass with masks leaves the batch norms' running statistics alone.

        Raises:
            InputError: no spectra at all, a modality that this encoder does not have, or another axis.
        """
        return self._encode(spectra, present, masks, track=masks is None)

    def reference_forward(
        self,
        spectra: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
    ) -> SpecFormerOutput:
        """The reference implementation's single pass: masked, and tracked by the running statistics."""
        return self._encode(spectra, present, masks, track=True)

    def _encode(
        self,
        spectra: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None,
        masks: Mapping[str, Tensor] | None,
        track: bool,
    ) -> SpecFormerOutput:
        names = self._names(spectra)
        present = _where_needed(names, present)
        embedded = []
        for name in names:
            spectrum = spectra[name]
            if present is not None:  # before anything else, so that not even NaN gets through
                spectrum = spectrum.masked_fill(~present[name].to(spectrum.device).unsqueeze(1), 0.0)
            patches = patchify(transform(spectrum), self.kinds[name])
            if masks is not None:
                patches = patches.masked_fill(masks[name].unsqueeze(-1), 0.0)
            embedded.append(self.projection[name](patches) + self.position[name])
        tokens = torch.cat(embedded, dim=1)
        here = self._token_presence(names, present, tokens.device)

        queries: list[Tensor] = []
        keys: list[Tensor] = []
        # a molecule without any spectrum would have a softmax over nothing: NaN, also in the gradients
        visible = None if here is None else here | ~here.any(dim=1, keepdim=True)
        for layer in self.layers:
            tokens = layer(tokens, queries, keys, here, visible, track)
        pieces = self.split(tokens, names)
        representation = sum((self.slices[name](pieces[name].flatten(1)) for name in names), self.slice_bias)
        return SpecFormerOutput(tokens, self.norm(representation))

    def _names(self, spectra: Mapping[str, Tensor]) -> list[str]:
        """The modalities that are in, in token order."""
        known = ", ".join(self.kinds)
        if not spectra:
            raise InputError(f"no spectra to encode; this spectrum encoder takes {known}")
        for name, spectrum in spectra.items():
            if name not in self.kinds:
                raise InputError(f"this spectrum encoder does not take {name!r}, but {known}")
            if spectrum.shape[-1] != self.kinds[name].points:
                wanted = self.kinds[name].points
                raise InputError(f"{spectrum.shape[-1]} points in a {name} spectrum instead of {wanted}")
        return [name for name in self.kinds if name in spectra]

    def _token_presence(
        self, names: list[str], present: Mapping[str, Tensor] | None, device: torch.device
    ) -> Tensor | None:
        """[B, T] bool, or None when every token is there."""
        if present is None:
            return None
        spread = [present[name].unsqueeze(1).expand(-1, self.kinds[name].patches) for name in names]
        return torch.cat(spread, dim=1).to(device)

    def split(self, tokens: Tensor, names: list[str] | None = None) -> dict[str, Tensor]:
        """Cut tokens [B, T, d] into the modalities' [B, patches, d]; `names` lists those that are in."""
        names = list(self.kinds) if names is None else names
        pieces = tokens.split([self.kinds[name].patches for name in names], dim=1)
        return dict(zip(names, pieces, strict=True))

    def reconstruct(
        self, tokens: Tensor, names: list[str] | None = None, places: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Predicted patches [B, patches, P] per modality, in the transformed scale log10(s + 1).

        With `places` per modality [B, k] only those, [B, k, P].
        """
        pieces = self.split(tokens, names)
        if places is not None:
            pieces = {name: at_places(piece, places[name]) for name, piece in pieces.items()}
        return {name: self.reconstruction[name](piece) for name, piece in pieces.items()}
