"""Contrastive alignment of structures and spectra (method, section 6)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molspectra.objectives.config import AlignmentConfig
from molspectra.objectives.loss import Loss


class Alignment(nn.Module):
    """InfoNCE between molecule and spectrum representations; the pairs (b, b) are positive.

    Negatives are the other molecules of the step, on all ranks and in all micro-batches. Copies of one
    molecule are not negatives of each other.
    """

    def __init__(self, config: AlignmentConfig) -> None:
        super().__init__()
        self.config = config

    def forward(
        self,
        molecules: Tensor,
        spectra: Tensor,
        log_scale: Tensor,
        *,
        identity: Tensor | None = None,
        gathered: tuple[Tensor, Tensor, Tensor] | None = None,
        first: int = 0,
    ) -> Loss:
        """Contrast the rows of this rank with the rows of all ranks.

        Args:
            molecules: [B, D] representations of this rank's molecules that have a spectrum.
            spectra: [B, D] representations of their spectra.
            log_scale: [] log(1/temperature).
            identity: [B] int64, equal for copies of one molecule.
            gathered: `molecules`, `spectra` and `identity` of all ranks, [B_all, ...]; None on one rank.
            first: row of this rank's first molecule in `gathered`.

        Returns:
            Sum over molecules of the mean of both directions' cross-entropies.
        """
        if self.config.temperature == "fixed":
            log_scale = log_scale.detach()
        identity = torch.arange(len(molecules), device=molecules.device) if identity is None else identity
        all_molecules, all_spectra, all_identities = gathered or (molecules, spectra, identity)
        if self.config.similarity == "cosine":
            molecules, spectra = F.normalize(molecules, dim=1), F.normalize(spectra, dim=1)
            all_molecules, all_spectra = F.normalize(all_molecules, dim=1), F.normalize(all_spectra, dim=1)
        own = torch.arange(len(molecules), device=molecules.device) + first
        is_own = own.unsqueeze(1) == torch.arange(len(all_molecules), device=own.device)
        copies = (identity.unsqueeze(1) == all_identities) & ~is_own
        scale = log_scale.exp()
        to_spectra = scale * molecules @ all_spectra.T
        if self.config.form == "reference":
            return Loss(F.cross_entropy(to_spectra, own, reduction="sum"), float(len(own)))
        to_molecules = scale * spectra @ all_molecules.T
        total = sum(
            F.cross_entropy(scores.masked_fill(copies, -torch.inf), own, reduction="sum")
            for scores in (to_spectra, to_molecules)
        )
        assert isinstance(total, Tensor)
        return Loss(0.5 * total, float(len(own)))
