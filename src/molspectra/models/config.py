"""Settings of models and their parts. Nothing here needs torch, so that `--help` need not load it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from molspectra.errors import SettingError
from molspectra.spectra.modality import Modality, modality

CUTOFFS = (0.1, 1000.0)
"""Range of cutoffs in Å; below it radial functions lose their digits, above it there are no molecules."""

PropertyKind = Literal["scalar", "dipole", "spatial_extent", "binary", "vector", "tensor"]

COMPONENTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"vector": ("_x", "_y", "_z"), "tensor": ("_xx", "_yy", "_zz", "_xy", "_xz", "_yz")}
)
"""What the columns of a vector and of a symmetric tensor add to its name; others have one column."""

Readout = Literal["sum", "pooled"]
"""How a scalar or a logit is read from the atoms: as a sum over them, or from their statistics."""

AtomReferences = Literal["none", "fit", "published", "auto"]
"""Where the energies of the free atoms come from."""


@dataclass(frozen=True)
class EquivariantTransformerConfig:
    """Sizes and variants of the equivariant transformer."""

    kind: Literal["et"] = field(default="et", kw_only=True)
    """Which encoder it is: "et", the equivariant transformer, or "egnn"."""
    channels: int = 256
    """Width C of scalars and vectors."""
    layers: int = 8
    """Number of attention layers."""
    heads: int = 8
    """Attention heads; must divide `channels`."""
    radial: int = 64
    """Radial basis functions K."""
    cutoff: float = 5.0
    """Neighbour cutoff in Å."""
    layer_norms: bool = True
    """Normalise scalars and whiten vectors after every layer (QM9 variant); False is the MD17 variant."""
    whitening: Literal["isotropic", "reference"] = "isotropic"
    """Regulariser of the whitening; "reference" is the reference implementation's (not quite equivariant)."""
    vector_cutoff: bool = True
    """Let the vector messages, too, vanish at the cutoff; False is the published form, which jumps there."""
    max_number: int = 99
    """Largest atomic number with an embedding."""

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            SettingError: a size that is not positive, or heads that do not divide the channels.
        """
        sizes = (self.layers, self.heads, self.radial, self.max_number)
        if min(sizes) < 1 or self.channels < 2:
            raise SettingError("encoder: channels must be at least 2, all other sizes positive")
        _check_cutoff(self.cutoff)
        if self.channels % self.heads:
            raise SettingError(f"encoder: {self.heads} heads do not divide {self.channels} channels")


@dataclass(frozen=True)
class EGNNConfig:
    """Sizes of the E(n)-equivariant graph network."""

    kind: Literal["egnn"] = field(default="egnn", kw_only=True)
    """Which encoder it is."""
    channels: int = 128
    """Width C of scalars and vectors."""
    layers: int = 7
    """Number of message-passing layers."""
    cutoff: float = 12.0
    """Neighbour cutoff in Å; molecules of QM9 are hardly longer."""
    switch: float = 2.0
    """EGNN: width in Å of the range before the cutoff in which messages fade."""
    radial: int = 0
    """Radial basis functions K given to the messages beside d², as edge attributes; 0 is the published form,
    which hardly resolves the small displacements of denoising."""
    gate: bool = True
    """EGNN: weigh every message by a learnt number between 0 and 1 (the publication's edge inference)."""
    max_number: int = 99
    """Largest atomic number with an embedding."""

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            SettingError: a size that is not positive, or a switch wider than the cutoff.
        """
        sizes = (self.layers, self.max_number, self.radial + 1)
        if min(sizes) < 1 or self.channels < 2:
            raise SettingError("encoder: channels must be at least 2, all other sizes positive")
        _check_cutoff(self.cutoff)
        if not 0 < self.switch <= self.cutoff:
            raise SettingError(f"encoder: switch must lie in (0, cutoff], not {self.switch}")


def _check_cutoff(cutoff: float) -> None:
    low, high = CUTOFFS
    if not low <= cutoff <= high:
        raise SettingError(f"encoder: the cutoff must lie in [{low:g}, {high:g}] Å, not {cutoff:g}")


@dataclass(frozen=True)
class SpecFormerConfig:
    """Sizes of SpecFormer."""

    modalities: tuple[str, ...] = ("uv_vis", "ir", "raman")
    """Names of the modalities, in token order."""
    patch: tuple[int, ...] | None = None
    """Points per patch of each modality; null takes the modality's own (20, 50, 50)."""
    stride: tuple[int, ...] | Literal["patch"] | None = None
    """Points between the beginnings of patches of each modality; "patch" lays them side by side, which halves
    the tokens; null takes the modality's own (10, 25, 25), with which they overlap by half."""
    width: int = 128
    """Token width d."""
    heads: int = 16
    """Attention heads; must divide `width`."""
    layers: int = 3
    """Transformer layers."""
    feed_forward: int = 256
    """Width of the feed-forward part."""
    positions: Literal["sinusoidal", "uniform"] = "sinusoidal"
    """Initial values of the learned positions: sines and cosines, or uniform in ±0.02 (as published), from
    which masked patches are learnt very slowly."""

    def __post_init__(self) -> None:
        """Check the sizes and modalities.

        Raises:
            SettingError: a size that is not positive, heads that do not divide the width, a modality twice.
        """
        if min(self.width, self.heads, self.layers, self.feed_forward) < 1:
            raise SettingError("spectrum encoder: width, heads, layers and feed_forward must be positive")
        if self.width % self.heads:
            raise SettingError(f"spectrum encoder: {self.heads} heads do not divide the width {self.width}")
        if not self.modalities or len(set(self.modalities)) < len(self.modalities):
            raise SettingError("spectrum encoder: name at least one modality, and each only once")

    def kinds(self) -> dict[str, Modality]:
        """The modalities with this configuration's patches, by name, in token order.

        Raises:
            InputError: an unknown modality, or patches that do not fit.
        """
        kinds = [modality(name) for name in self.modalities]
        for key, values in (("patch", self.patch), ("stride", self.stride)):
            if values is None:
                continue
            if values == "patch":
                kinds = [replace(kind, stride=kind.patch) for kind in kinds]
                continue
            if len(values) != len(kinds) or min(values) < 1:
                names = ", ".join(self.modalities)
                raise SettingError(
                    f"spectrum encoder: {key} must give one positive length for each of {names}"
                )
            changes: list[dict[str, Any]] = [{key: value} for value in values]
            kinds = [replace(kind, **change) for kind, change in zip(kinds, changes, strict=True)]
        return {kind.name: kind for kind in kinds}


@dataclass(frozen=True)
class HeadConfig:
    """How one of several properties is read from the atoms; see the settings of the same names in `model`."""

    property: PropertyKind = "scalar"
    """Kind of the property head."""
    readout: Readout = "sum"
    """How a scalar or a logit is read from the atoms."""
    atom_references: Literal["none", "fit", "published"] = "none"
    """Energy per element that the head adds."""


@dataclass(frozen=True)
class ModelConfig:
    """Settings of a model and its parts."""

    encoder: EquivariantTransformerConfig | EGNNConfig = field(default_factory=EquivariantTransformerConfig)
    """The 3D encoder; its `kind` says which."""
    spectrum_encoder: SpecFormerConfig | None = None
    """SpecFormer, for stage 2 and retrieval; null for stage 1 and fine-tuning."""
    property: PropertyKind | None = None
    """Kind of the property head; null before fine-tuning, and in fine-tuning for the kind of the target.
    "binary" takes all targets as two classes, 0 and 1 (see `classes`)."""
    readout: Literal["auto", "sum", "pooled"] = "auto"
    """How a scalar is read from the atoms: "sum" (as published), or "pooled" from the mean and standard
    deviation of their features, for what does not grow with the molecule; "auto" pools gap, HOMO, LUMO and
    classes and sums all else."""
    atom_references: AtomReferences = "none"
    """Energy per element that the scalar head adds and so need not learn: "fit" by least squares on the
    training rows, "published" of QM9's free atoms, "auto" published ones for U0, U, H and G, else none."""
    heads: tuple[HeadConfig, ...] = ()
    """The heads of a model of several properties, in their order, which fine-tuning fills in; () for one
    property."""
    temperature: float = 0.07
    """Initial temperature of the alignment, learned or fixed by the objective."""
    force_head: bool = False
    """A second noise head, for the force of SliDe denoising, which sets this itself."""
    spectrum_input: bool = False
    """Hand the representation of a molecule's spectra to the property head, as an INPUT (the paper's pilot).
    It is another task than a property from the structure: spectra must be known for every prediction."""
    spectrum_head: bool = False
    """A head that predicts the spectra of the spectrum encoder's modalities from the structure; a run with
    `weights.spectrum` sets this itself."""

    def __post_init__(self) -> None:
        """Check that the parts fit together.

        Raises:
            SettingError: spectra as input, or to be predicted, without a spectrum encoder; a temperature that
                is not positive.
        """
        if not self.temperature > 0:
            raise SettingError(f"model.temperature must be positive, not {self.temperature:g}")
        if self.spectrum_input and self.spectrum_encoder is None:
            raise SettingError(
                "model.spectrum_input: spectra need an encoder; set model.spectrum_encoder.modalities, "
                "such as uv_vis"
            )
        if self.spectrum_head and self.spectrum_encoder is None:
            raise SettingError(
                "model.spectrum_head (weights.spectrum): spectra are learnt in stage 2; "
                "set model.spectrum_encoder.modalities, such as uv_vis,ir,raman"
            )
