"""SpecFormer: one transformer over the patches of several energy spectra (method, section 3).

Shapes: B molecules, S modalities, T tokens (347 for UV-Vis + IR + Raman), P points of a patch, d token width,
D representation width. Masks follow MAE's convention turned boolean: True is removed.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from molspectra.data.batch import to_device
from molspectra.errors import MismatchError, NotFoundError, ValueRangeError
from molspectra.models.config import SpecFormerConfig
from molspectra.models.transformer_layer import TransformerLayer
from molspectra.spectra.modality import Modality


class SpecFormerOutput(NamedTuple):
    """Encoded spectra of a batch."""

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


def gather_rows(rows: Tensor, index: Tensor) -> Tensor:
    """Select from rows [B, n, d] those at `index` [B, k] int64 of each molecule, [B, k, d]."""
    first = torch.arange(len(rows), device=rows.device).unsqueeze(1) * rows.shape[1]
    selected = rows.flatten(0, 1).index_select(0, (first + index).flatten())
    return selected.view(*index.shape, -1)


def sinusoids(count: int, width: int) -> Tensor:
    """Positions [count, width]: halves of sines and of cosines of n·1000^(-2i/width), times 0.5."""
    rates = torch.exp(-math.log(1000.0) * 2 * torch.arange(math.ceil(width / 2)) / width)
    angles = torch.arange(count).unsqueeze(1) * rates
    return 0.5 * torch.cat([angles.sin(), angles.cos()], dim=1)[:, :width]


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
        for name, kind in kinds:
            position = self.position[name]
            if config.positions == "uniform":
                nn.init.uniform_(position, -0.02, 0.02)
            else:
                position.data.copy_(sinusoids(kind.patches, width))
        self.layers = nn.ModuleList(
            TransformerLayer(config.width, config.heads, config.feed_forward) for _ in range(config.layers)
        )
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
                is not in `spectra` is absent for all. The values of an absent spectrum are ignored. Best on
                the CPU: whether any is absent has to be known before the pass.
            masks: per modality [B, patches] bool, True where a patch is replaced by zeros before projection.
                A pass with masks does not update the batch norms' running statistics.

        Raises:
            NotFoundError: no spectra at all.
            MismatchError: a modality that this encoder does not have.
            ValueRangeError: another number of points than the modality's axis.
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
        if present is not None and bool(torch.stack([present[name] for name in names]).all()):
            present = None  # the fast path, equal to the published model
        device = spectra[names[0]].device
        rows, visible = self._token_presence(names, present, device)
        if present is not None:
            present = {name: to_device(present[name], device) for name in names}
        return self.compute(names, spectra, present, masks, rows, visible, track)

    def compute(
        self,
        names: list[str],
        spectra: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None,
        masks: Mapping[str, Tensor] | None,
        rows: Tensor | None,
        visible: Tensor | None,
        track: bool,
    ) -> SpecFormerOutput:
        """Compute the pass once all that depends on values is known; what `torch.compile` can trace.

        Args:
            names: modalities, in token order.
            spectra: as in `forward`.
            present: per modality [B] bool on the device, as are all below; None for all.
            masks: as in `forward`.
            rows: [n] int64, the present tokens of all B T; None for all.
            visible: [B, T] bool, tokens that are attended to; None for all.
            track: whether the batch norms update their running statistics.
        """
        embedded = []
        for name in names:
            spectrum = spectra[name]
            if present is not None:  # first, so that not even NaN gets through
                spectrum = spectrum.masked_fill(~present[name].unsqueeze(1), 0.0)
            patches = patchify(transform(spectrum), self.kinds[name])
            if masks is not None:
                patches = patches.masked_fill(masks[name].unsqueeze(-1), 0.0)
            embedded.append(self.projection[name](patches) + self.position[name])
        tokens = torch.cat(embedded, dim=1)
        queries: list[Tensor] = []
        keys: list[Tensor] = []
        for layer in self.layers:
            tokens = layer(tokens, queries, keys, rows, visible, track)
        pieces = self.split(tokens, names)
        representation = sum((self.slices[name](pieces[name].flatten(1)) for name in names), self.slice_bias)
        return SpecFormerOutput(tokens, self.norm(representation))

    def _names(self, spectra: Mapping[str, Tensor]) -> list[str]:
        """The modalities of `spectra` [B, points] each, in token order."""
        known = ", ".join(self.kinds)
        if not spectra:
            raise NotFoundError(f"no spectra to encode; this spectrum encoder takes {known}")
        for name, spectrum in spectra.items():
            if name not in self.kinds:
                raise MismatchError(f"this spectrum encoder does not take {name!r}, but {known}")
            points, expected = spectrum.shape[-1], self.kinds[name].points
            if points != expected:
                raise ValueRangeError(f"{points} points in a {name} spectrum instead of {expected}")
        return [name for name in self.kinds if name in spectra]

    def _token_presence(
        self, names: list[str], present: Mapping[str, Tensor] | None, device: torch.device
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the indices [n] of the present tokens, and [B, T] bool, which are attended to.

        They come from the presence of the spectra [B]; None when all are present.
        """
        if present is None:
            return None, None
        spread = [present[name].unsqueeze(1).expand(-1, self.kinds[name].patches) for name in names]
        tokens = torch.cat(spread, dim=1)
        # all tokens of a molecule without spectra: a softmax over none would be NaN
        visible = tokens | ~tokens.any(dim=1, keepdim=True)
        rows = tokens.flatten().nonzero().squeeze(1)
        return to_device(rows, device), to_device(visible, device)

    def split(self, tokens: Tensor, names: list[str] | None = None) -> dict[str, Tensor]:
        """Cut tokens [B, T, d] into those of each modality in `names`, [B, patches, d]; None for all."""
        names = list(self.kinds) if names is None else names
        pieces = tokens.split([self.kinds[name].patches for name in names], dim=1)
        return dict(zip(names, pieces, strict=True))

    def reconstruct(
        self, tokens: Tensor, names: list[str] | None = None, index: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Predict patches [B, patches, P] per modality, in the transformed scale log10(s + 1).

        With `index` per modality [B, k] int64 only those patches, [B, k, P].
        """
        pieces = self.split(tokens, names)
        if index is not None:
            pieces = {name: gather_rows(piece, index[name]) for name, piece in pieces.items()}
        return {name: self.reconstruction[name](piece) for name, piece in pieces.items()}
