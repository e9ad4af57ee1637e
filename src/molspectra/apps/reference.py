"""Checkpoints in the layout of the paper's reference implementation: their names, sizes and weights, as ours.

Only tensors and plain values are read (`weights_only=True`); every key is accounted for.
"""

import gzip
import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from molspectra.errors import InputError
from molspectra.models.equivariant_transformer import EquivariantTransformerConfig
from molspectra.models.heads import PropertyKind
from molspectra.models.model import ModelConfig
from molspectra.models.specformer import SpecFormerConfig

MODALITIES = ("uv_vis", "ir", "raman")
"""The reference's order of spectra."""

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
    (r"(mean|std)", r"property_head.\1"),
    (r"output_model\.atomic_mass", "property_head.masses"),
    (r"pos_normalizer", "normaliser"),
)
SLICES = "representation_spec_model.head.linear.weight"
"""One matrix of theirs that is one matrix per modality here."""
_SCALE = re.compile(r"representation_spec_model\.backbone\.encoder\.layers\.\d+\.self_attn\.sdp_attn\.scale")


@dataclass(frozen=True)
class ReferenceCheckpoint:
    """Weights and settings as stored in a reference-layout file."""

    state: dict[str, Tensor]
    """Tensors by the reference's names, without the leading `model.`."""
    settings: dict[str, Any]
    """Hyper-parameters by the reference's names."""


def read_checkpoint(path: Path) -> ReferenceCheckpoint:
    """Read a reference-layout checkpoint (`.ckpt`, also gzipped) without running anything that is in it.

    Raises:
        InputError: no such file, not a checkpoint, or one that holds more than tensors and plain values.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        content = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
        state = {name.removeprefix("model."): value for name, value in content["state_dict"].items()}
        settings = dict(content.get("hyper_parameters", {}))
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: not a checkpoint of tensors and plain values ({reason})") from error
    return ReferenceCheckpoint(state, settings)


def our_name(theirs: str) -> str | None:
    """Our name of a reference parameter; None where it has no single counterpart.

    Raises:
        InputError: a name that is not part of the reference's layout.
    """
    if theirs == SLICES or _SCALE.fullmatch(theirs):
        return None
    for pattern, replacement in _RULES:
        match = re.match(rf"{pattern}(?=\.|$)", theirs)
        if match:
            return match.expand(replacement) + theirs[match.end() :]
    raise InputError(f"checkpoint key {theirs!r} is not part of the reference layout")


def convert_state(state: Mapping[str, Tensor], spectrum: SpecFormerConfig | None) -> dict[str, Tensor]:
    """Rename reference tensors to ours.

    Args:
        state: tensors by reference names.
        spectrum: sizes of the spectrum encoder, if the file has one.

    Returns:
        Tensors by our names; the noise statistics are under `normaliser.`.

    Raises:
        InputError: an unknown key, or a stored attention scale that differs from 1/√d_k.
    """
    converted: dict[str, Tensor] = {}
    for theirs, value in state.items():
        ours = our_name(theirs)
        if ours is not None:
            converted[ours] = value
        elif spectrum is None:
            raise InputError(
                f"checkpoint key {theirs!r} needs a spectrum encoder, but the settings have none"
            )
        elif theirs == SLICES:
            converted.update(split_slices(value, spectrum))
        elif not math.isclose(float(value), (spectrum.width / spectrum.heads) ** -0.5, rel_tol=1e-6):
            raise InputError(f"checkpoint key {theirs!r} is {float(value)}, not 1/√(head width)")
    return converted


def split_slices(weight: Tensor, spectrum: SpecFormerConfig) -> dict[str, Tensor]:
    """Cut the reference's [D, T·d] matrix into one slice per modality, by our names."""
    widths = {name: kind.patches * spectrum.width for name, kind in spectrum.kinds().items()}
    if weight.shape[1] != sum(widths.values()):
        raise InputError(
            f"checkpoint key {SLICES!r} has {weight.shape[1]} columns, not {sum(widths.values())}"
        )
    pieces = weight.split(list(widths.values()), dim=1)
    return {
        f"spectrum_encoder.slices.{name}.weight": piece.contiguous()
        for name, piece in zip(widths, pieces, strict=True)
    }


def config_from(checkpoint: ReferenceCheckpoint, settings: Mapping[str, Any] | None = None) -> ModelConfig:
    """The model configuration that a checkpoint's settings and tensor shapes imply, in reference mode."""
    settings = checkpoint.settings if settings is None else settings
    kinds: dict[str, PropertyKind] = {
        "Scalar": "scalar",
        "DipoleMoment": "dipole",
        "ElectronicSpatialExtent": "spatial_extent",
    }
    head = str(settings.get("output_model", "Scalar")).removeprefix("Equivariant")
    if head not in kinds:
        raise InputError(f"output model {head!r} is not one of {', '.join(kinds)}")
    numbers = checkpoint.state["representation_model.embedding.weight"].shape[0]
    return ModelConfig(
        encoder=EquivariantTransformerConfig(
            channels=int(settings["embedding_dimension"]),
            layers=int(settings["num_layers"]),
            heads=int(settings["num_heads"]),
            radial=int(settings["num_rbf"]),
            cutoff=float(settings["cutoff_upper"]),
            layer_norms=not settings["use_dataset_md17"],
            whitening="reference",
            vector_cutoff=False,
            max_number=numbers - 1,
        ),
        spectrum_encoder=_spectrum_config(checkpoint.state, settings) if settings["spectra_model"] else None,
        property=kinds[head],
    )


def _spectrum_config(state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> SpecFormerConfig:
    prefix = "representation_spec_model.backbone."
    width = state[f"{prefix}W_P.0.weight"].shape[0]
    scale = float(state[f"{prefix}encoder.layers.0.self_attn.sdp_attn.scale"])
    layers = {int(name.split(".")[4]) for name in state if name.startswith(f"{prefix}encoder.layers.")}
    return SpecFormerConfig(
        modalities=MODALITIES,
        patch=tuple(int(value) for value in settings["patch_len"]),
        stride=tuple(int(value) for value in settings["stride"]),
        width=width,
        heads=round(width * scale**2),
        layers=len(layers),
        feed_forward=state[f"{prefix}encoder.layers.0.ff.0.weight"].shape[0],
    )
