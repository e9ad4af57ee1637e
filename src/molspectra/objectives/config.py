"""Settings of the objectives. Nothing here needs torch, so that `--help` need not load it."""

from dataclasses import dataclass
from typing import Literal

from molspectra.errors import SettingError

ErrorKind = Literal["mse", "mae"]


@dataclass(frozen=True)
class DenoisingConfig:
    """Settings of denoising."""

    kind: Literal["coord", "frad", "slide"] = "coord"
    """"coord": Gaussian noise on all atoms, the target. "frad": rotatable bonds are turned before; the target
    is only the Gaussian noise. "slide": bonds, angles and torsions are moved before; the targets are the
    Gaussian noise and, by another head, the force of a harmonic field."""
    sigma: float = 0.04
    """Standard deviation σ of the Gaussian noise per coordinate, in Å."""
    centred: bool = True
    """Subtract the mean noise of each molecule: a translation cannot be identified from the structure."""
    normalise: Literal["sigma", "running"] = "sigma"
    """Standardise the target by σ, or by a running mean and deviation over all noise seen ("running", the
    reference implementation's way)."""
    rotation: float = 2.0
    """Standard deviation of the turn of a rotatable bond, in degrees (Frad)."""
    force_unit: float = 50.0
    """The force target is divided by this, in 1/Å (SliDe); 50 makes its root mean square about 1."""

    def __post_init__(self) -> None:
        """Check the standard deviations and the unit.

        Raises:
            SettingError: one that is not positive.
        """
        for name in ("sigma", "rotation", "force_unit"):
            if not getattr(self, name) > 0:
                raise SettingError(f"denoising: {name} must be positive, not {getattr(self, name)}")


@dataclass(frozen=True)
class ReconstructionConfig:
    """Settings of masked patch reconstruction."""

    mask_ratio: float = 0.1
    """Share α of the patches of every spectrum that is removed."""
    mask: Literal["random", "block"] = "random"
    """"random": single patches, whose points stay visible where kept patches overlap them (as published).
    "block": runs of patches, whose points are removed from all patches."""
    block: int = 7
    """Patches of a run (the last run may be shorter)."""

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            SettingError: a mask ratio outside (0, 1), or a run without patches.
        """
        if not 0 < self.mask_ratio < 1:
            raise SettingError(f"mask_ratio must lie between 0 and 1, not {self.mask_ratio}")
        if self.block < 1:
            raise SettingError(f"reconstruction: block must be at least 1, not {self.block}")


@dataclass(frozen=True)
class AlignmentConfig:
    """Settings of the alignment."""

    form: Literal["symmetric", "reference"] = "symmetric"
    """"symmetric": InfoNCE in both directions; "reference": molecule to spectrum only, with copies of a
    molecule as negatives."""
    similarity: Literal["cosine", "inner"] = "cosine"
    """Similarity of two representations (the paper's text: inner product; its code: cosine)."""
    temperature: Literal["learned", "fixed"] = "learned"
    """Whether the model's temperature is trained."""
    structure: Literal["noised", "clean"] = "noised"
    """Which structure is aligned: the one of the denoising pass, or the clean one (a second encoder pass)."""
    masked: bool = False
    """Align the masked spectra of the reconstruction pass (the reference's way) instead of the whole ones."""


@dataclass(frozen=True)
class SupervisedConfig:
    """Settings of the supervised losses."""

    error: ErrorKind = "mse"
    """Squared or absolute error."""
    standardised: bool = True
    """Divide errors by the training set's standard deviation, so that the loss has no unit; False is the
    reference implementation's loss in the property's unit."""
