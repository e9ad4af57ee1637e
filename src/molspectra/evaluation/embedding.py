"""Embeddings of molecules and spectra in memory, as the commands and the search compare them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from molspectra.chem.elements import atomic_number
from molspectra.chem.molecule import Molecule
from molspectra.data.batch import Batch, batch_of
from molspectra.errors import FormatError
from molspectra.evaluation.predict import on_device
from molspectra.models.heads import pooled_features
from molspectra.models.model import MolSpectra
from molspectra.objectives.config import AlignmentConfig
from molspectra.spectra.modality import modality
from molspectra.spectra.spectrum import LineSpectrum, SampledSpectrum
from molspectra.training.checkpoint import CONFIG
from molspectra.training.record import read_json
from molspectra.training.settings import from_dict

Spectrum = SampledSpectrum | LineSpectrum
Sample = Mapping[str, Spectrum]
"""Spectra of one sample by modality."""


def batch_on_device(molecules: Sequence[Molecule], model: MolSpectra) -> Batch:
    """The batch of some molecules on a model's device, in the floating-point type of its weights."""
    return on_device(batch_of(molecules, torch.float64), model)


@torch.no_grad()
def embed_batch(model: MolSpectra, batch: Batch) -> Tensor:
    """Embeddings of the B structures of a batch, [B, D] float64 on the CPU."""
    return model.embed(batch).double().cpu()


@torch.no_grad()
def pooled_batch(model: MolSpectra, batch: Batch) -> Tensor:
    """The `pooled_features` of the B structures of a batch, [B, 4 D] float64 on the CPU."""
    return pooled_features(model.encode(batch), batch).double().cpu()


@torch.no_grad()
def embed_intensities(
    model: MolSpectra, intensities: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Embeddings of the whole spectra of B samples, [B, D] float64 on the CPU.

    Args:
        model: a model with a spectrum encoder.
        intensities: [B, points] by modality, in the modality's unit.
        present: [B] bool by modality, whether a sample has the spectrum; None where all have all.
    """
    assert model.spectrum_encoder is not None
    weight = next(model.parameters())
    values = {name: spectra.to(weight.device, weight.dtype) for name, spectra in intensities.items()}
    has = None if present is None else {name: mask.to(weight.device) for name, mask in present.items()}
    return model.spectrum_encoder(values, has).representation.double().cpu()


def stack_spectra(
    samples: Sequence[Sample], modalities: Iterable[str]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Intensities and presence of the spectra of B samples; lines are broadened by the default width.

    Returns:
        By modality [B, points] float32, zeros where a sample has no such spectrum, and [B] bool.
    """
    intensities: dict[str, Tensor] = {}
    present: dict[str, Tensor] = {}
    for name in modalities:
        intensities[name] = torch.zeros(len(samples), modality(name).points)
        present[name] = torch.tensor([name in sample for sample in samples])
        for row, sample in enumerate(samples):
            if name in sample:
                spectrum = sample[name]
                sampled = spectrum.broadened() if isinstance(spectrum, LineSpectrum) else spectrum
                intensities[name][row] = torch.tensor(sampled.values, dtype=torch.float32)
    return intensities, present


def comparable(embeddings: Tensor, *, unit: bool) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Embeddings [B, D] as float32 vectors for comparison, and whether each is finite [B].

    Args:
        embeddings: float64, on the CPU.
        unit: divide each by its Euclidean norm; a vector of zeros stays.
    """
    vectors = functional.normalize(embeddings, dim=1) if unit else embeddings
    return vectors.float().numpy(), vectors.isfinite().all(1).numpy()


def trained_elements(about: Mapping[str, Any]) -> frozenset[int] | None:
    """Atomic numbers of a model's training set, from its `config.json`; None where that does not tell."""
    symbols = about.get("elements")
    return None if symbols is None else frozenset(map(atomic_number, symbols))


def alignment_similarity(checkpoint: Path, about: Mapping[str, Any]) -> str:
    """How an aligned model compares embeddings: "cosine" or "inner".

    It is in the checkpoint's own `config.json` (a shipped model), else in the settings of the run that the
    checkpoint is part of, else the default of training.

    Args:
        checkpoint: directory of the weights.
        about: content of its `config.json`.

    Raises:
        InputError: the settings of the alignment are damaged, or name another similarity.
    """
    path, settings = checkpoint / CONFIG, about
    run_settings = checkpoint.parent.parent / "config.json"
    if about.get("alignment") is None and checkpoint.parent.name == "checkpoints" and run_settings.is_file():
        path, settings = run_settings, read_json(run_settings)
        if not isinstance(settings, dict):
            raise FormatError(f"{path}: not the settings of a run")
    alignment = settings.get("alignment")
    return from_dict(AlignmentConfig, {} if alignment is None else alignment, f"{path}, alignment").similarity
