"""Checkpoints of the paper's reference implementation: parameters and settings converted to ours.

They are read by `molspectra.datasets.formats.pickled`, which runs nothing; every key is accounted for.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from molspectra.datasets.formats.pickled import Record, is_dense, load_pickled
from molspectra.errors import FormatError, MismatchError, SettingError
from molspectra.models.config import EquivariantTransformerConfig, ModelConfig, PropertyKind, SpecFormerConfig

MODALITIES = ("uv_vis", "ir", "raman")
"""Modalities in the order of the reference implementation."""

_HEAD = (("vec1_proj", "invariant"), ("vec2_proj", "equivariant"), ("update_net", "update"))
_RULES: tuple[tuple[str, str], ...] = (
    (r"representation_model\.embedding", "encoder.embedding"),
    (r"representation_model\.distance_expansion", "encoder.expansion"),
    (r"representation_model\.neighbor_embedding\.embedding", "encoder.neighbours.embedding"),
    (r"representation_model\.neighbor_embedding\.distance_proj", "encoder.neighbours.filter"),
    (r"representation_model\.neighbor_embedding\.combine", "encoder.neighbours.combine"),
    (r"representation_model\.x_norms", "encoder.scalar_norms"),
    (r"representation_model\.vec_norms", "encoder.vector_norms"),
    (r"representation_model\.out_norm_vec", "encoder.vector_norm"),
    (r"representation_model\.out_norm", "encoder.scalar_norm"),
    *(
        (rf"representation_model\.attention_layers\.(\d+)\.{theirs}", rf"encoder.layers.\1.{ours}")
        for theirs, ours in (
            ("layernorm", "norm"),
            ("q_proj", "query"),
            ("k_proj", "key"),
            ("v_proj", "value"),
            ("o_proj", "output"),
            ("vec_proj", "vector"),
            ("dk_proj", "key_filter"),
            ("dv_proj", "value_filter"),
        )
    ),
    *(
        (rf"{theirs}\.output_network\.(\d+)\.{part}", rf"{ours}.atoms.blocks.\1.{name}")
        for theirs, ours in (("output_model", "property_head"), ("output_model_noise", "noise_head"))
        for part, name in _HEAD
    ),
    *(
        (
            rf"representation_spec_model\.backbone\.encoder\.layers\.(\d+)\.{theirs}",
            rf"spectrum_encoder.layers.\1.{ours}",
        )
        for theirs, ours in (
            (r"self_attn\.W_Q", "attention.query"),
            (r"self_attn\.W_K", "attention.key"),
            (r"self_attn\.W_V", "attention.value"),
            (r"self_attn\.to_out\.0", "attention.output"),
            (r"norm_attn\.1", "attention_norm"),
            (r"norm_ffn\.1", "feed_forward_norm"),
            (r"ff\.0", "feed_forward.0"),
            (r"ff\.3", "feed_forward.2"),
        )
    ),
    *(
        (rf"representation_spec_model\.backbone\.W_P\.{index}", f"spectrum_encoder.projection.{name}")
        for index, name in enumerate(MODALITIES)
    ),
    *(
        (rf"representation_spec_model\.backbone\.W_pos_{theirs}", f"spectrum_encoder.position.{name}")
        for theirs, name in zip(("uv", "ir", "raman"), MODALITIES, strict=True)
    ),
    *(
        (rf"representation_spec_model\.reconstruct_heads\.{index}", f"spectrum_encoder.reconstruction.{name}")
        for index, name in enumerate(MODALITIES)
    ),
    (r"representation_spec_model\.out_norm", "spectrum_encoder.norm"),
    (r"representation_spec_model\.head\.linear\.bias", "spectrum_encoder.slice_bias"),
    (r"mean", "property_head.mean"),
    (r"std", "property_head.std"),
    (r"output_model\.atomic_mass", "property_head.masses"),
    (r"pos_normalizer", "normaliser"),
)
SLICES = "representation_spec_model.head.linear.weight"
"""A matrix of the reference that is split into one matrix per modality here."""
_SCALE = re.compile(r"representation_spec_model\.backbone\.encoder\.layers\.\d+\.self_attn\.sdp_attn\.scale")


_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "model": ("equivariant-transformer",),
    "activation": ("silu",),
    "attn_activation": ("silu",),
    "rbf_type": ("expnorm",),
    "distance_influence": ("both",),
    "layernorm_on_vec": ("whitened",),
    "neighbor_embedding": (True,),
    "cutoff_lower": (0, 0.0),
    "aggr": ("add",),
    "reduce_op": ("add",),
    "prior_model": (None,),
    "atom_filter": (-1,),
    "output_model_noise": ("VectorOutput", "EquivariantVectorOutput"),
    "output_model_spec": (None,),
    "output_model_mol": (None,),
    "spectra_model": (None, "SpecFormer"),
}
"""Settings that decide what a network computes, with the values that this package supports."""


@dataclass(frozen=True)
class ReferenceCheckpoint:
    """Weights and settings of a file in the reference layout."""

    state: dict[str, Tensor]
    """Tensors by the reference's names, without the leading `model.`."""
    settings: dict[str, Any]
    """Hyper-parameters by the reference's names."""
    rest: dict[str, Any]
    """Everything else in the file: epoch, step, callbacks (inert), the optimizer's state."""


def read_checkpoint(path: Path) -> ReferenceCheckpoint:
    """Read a checkpoint in the reference layout (`.ckpt`, also gzipped) without running anything in it.

    Objects other than tensors and plain values, such as callbacks, become inert records.

    Raises:
        InputError: see `load_pickled`.
        FormatError: a file without weights and settings.
    """
    content = _mapping(load_pickled(path, ("",)))
    if content is None or "state_dict" not in content:
        raise FormatError(f"{path}: not a training checkpoint (it has no state_dict)")
    state, settings = _mapping(content["state_dict"]), _mapping(content.get("hyper_parameters"))
    if state is None or settings is None:
        raise FormatError(f"{path}: not a training checkpoint (no weights, or no hyper_parameters)")
    for name, value in state.items():
        if not isinstance(name, str) or not is_dense(value):
            raise FormatError(f"{path}: checkpoint key {name!r} is no tensor")
    tensors = {name.removeprefix("model."): value.detach().contiguous() for name, value in state.items()}
    rest = {key: value for key, value in content.items() if key not in ("state_dict", "hyper_parameters")}
    return ReferenceCheckpoint(tensors, {str(key): value for key, value in settings.items()}, rest)


def _mapping(value: object) -> dict[Any, Any] | None:
    """Return a dictionary, also one in the form of a namespace."""
    if isinstance(value, Record):
        value = value.state
    # an OrderedDict may come with attributes from the file that hide its methods
    return dict(dict.items(value)) if isinstance(value, dict) else None


def their_name(ours: str) -> str:
    """Return the reference's name of one of our parameters, without `model.`; our name where it has none."""
    if ours.startswith("spectrum_encoder.slices."):
        return SLICES
    for pattern, replacement in _RULES:
        match = re.match(re.escape(replacement).replace(r"\\1", r"(\d+)") + r"(?=\.|$)", ours)
        if match:
            number = match[1] if match.groups() else ""
            return pattern.replace(r"(\d+)", number).replace("\\.", ".") + ours[match.end() :]
    return ours


def our_name(theirs: str) -> str | None:
    """Return our name of a reference parameter; None where it has no single counterpart.

    Raises:
        MismatchError: a name that is not part of the reference's layout.
    """
    if theirs == SLICES or _SCALE.fullmatch(theirs):
        return None
    for pattern, replacement in _RULES:
        match = re.match(rf"{pattern}(?=\.|$)", theirs)
        if match:
            return match.expand(replacement) + theirs[match.end() :]
    raise MismatchError(f"checkpoint key 'model.{theirs}' is not part of the reference layout")


def convert_state(state: Mapping[str, Tensor], spectrum: SpecFormerConfig | None) -> dict[str, Tensor]:
    """Rename reference tensors to ours; the noise statistics are under `normaliser.`.

    Raises:
        MismatchError: an unknown key, or a stored attention scale that differs from 1/√d_k.
    """
    converted: dict[str, Tensor] = {}
    for theirs, value in state.items():
        ours = our_name(theirs)
        if ours is not None:
            converted[ours] = value
        elif spectrum is None:
            raise MismatchError(
                f"checkpoint key 'model.{theirs}' is left over: the settings have no spectrum encoder"
            )
        elif theirs == SLICES:
            converted.update(split_slices(value, spectrum))
        elif value.numel() != 1 or not math.isclose(
            float(value), (spectrum.width / spectrum.heads) ** -0.5, rel_tol=1e-6
        ):
            raise MismatchError(f"checkpoint key 'model.{theirs}' is {float(value)}, not 1/√(head width)")
    return converted


def split_slices(weight: Tensor, spectrum: SpecFormerConfig) -> dict[str, Tensor]:
    """Split the reference's matrix [D, T·d] into [D, columns] per modality, by our names."""
    widths = {name: kind.patches * spectrum.width for name, kind in spectrum.kinds().items()}
    if weight.ndim != 2 or weight.shape[1] != sum(widths.values()):
        raise MismatchError(
            f"checkpoint key 'model.{SLICES}' has shape {list(weight.shape)}, its columns should be "
            f"{sum(widths.values())}"
        )
    pieces = weight.split(list(widths.values()), dim=1)
    return {
        f"spectrum_encoder.slices.{name}.weight": piece.contiguous()
        for name, piece in zip(widths, pieces, strict=True)
    }


def config_from(checkpoint: ReferenceCheckpoint) -> ModelConfig:
    """Return the model configuration, in reference mode, that settings and tensor shapes imply.

    Raises:
        SettingError: a setting is missing, or this package does not support its value.
        MismatchError: a tensor is missing.
    """
    settings = checkpoint.settings
    for name, supported in _SUPPORTED.items():
        if name in settings and settings[name] not in supported:
            raise SettingError(f"hyper-parameter {name!r} is {settings[name]!r}; supported: {supported[0]!r}")
    missing = [name for name in ("num_heads", "cutoff_upper") if name not in settings]
    if missing:
        raise SettingError(f"hyper-parameter {missing[0]!r} is missing; shapes alone do not tell it")
    kinds: dict[str, PropertyKind] = {
        "Scalar": "scalar",
        "DipoleMoment": "dipole",
        "ElectronicSpatialExtent": "spatial_extent",
    }
    head = str(settings.get("output_model", "Scalar")).removeprefix("Equivariant")
    if head not in kinds:
        raise SettingError(f"output model {head!r} is not one of {', '.join(kinds)}")
    state, prefix = checkpoint.state, "representation_model."
    embedding = _tensor(state, f"{prefix}embedding.weight")
    means = _tensor(state, f"{prefix}distance_expansion.means")
    layers = {name.split(".")[2] for name in state if name.startswith(f"{prefix}attention_layers.")}
    normed = any(name.startswith(f"{prefix}x_norms.") for name in state)
    spectra = settings.get("spectra_model") is not None
    return ModelConfig(
        encoder=EquivariantTransformerConfig(
            channels=embedding.shape[-1],
            layers=int(settings.get("num_layers", len(layers))),
            heads=int(settings["num_heads"]),
            radial=len(means),
            cutoff=float(settings["cutoff_upper"]),
            layer_norms=not settings.get("use_dataset_md17", not normed),
            whitening="reference",
            vector_cutoff=False,
            max_number=len(embedding) - 1,
        ),
        spectrum_encoder=_spectrum_config(state, settings) if spectra else None,
        property=kinds[head],
    )


def _tensor(state: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state:
        raise MismatchError(f"checkpoint key 'model.{name}' is missing")
    return state[name]


def _spectrum_config(state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> SpecFormerConfig:
    """Return the settings of the spectrum encoder; see `config_from`."""
    prefix = "representation_spec_model.backbone."
    width = _tensor(state, f"{prefix}W_P.0.weight").shape[0]
    scale = float(_tensor(state, f"{prefix}encoder.layers.0.self_attn.sdp_attn.scale"))
    feed_forward = _tensor(state, f"{prefix}encoder.layers.0.ff.0.weight").shape[0]
    if settings.get("input_data_norm_type", "log10") != "log10":
        value = settings["input_data_norm_type"]
        raise SettingError(f"hyper-parameter 'input_data_norm_type' is {value!r}; supported: 'log10'")
    layers = {int(name.split(".")[4]) for name in state if name.startswith(f"{prefix}encoder.layers.")}
    return SpecFormerConfig(
        modalities=MODALITIES,
        patch=tuple(int(value) for value in settings["patch_len"]),
        stride=tuple(int(value) for value in settings["stride"]),
        width=width,
        heads=round(width * scale**2),
        layers=len(layers),
        feed_forward=feed_forward,
    )
