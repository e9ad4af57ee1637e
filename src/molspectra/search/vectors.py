"""Molecules and spectra as the arrays that are compared: embeddings of a model, and stored points.

Stored points are the means of neighbouring points of a modality's axis, a few per line width: fine enough to
compare the shapes of spectra, and small enough to keep those of a whole library.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from molspectra.chem.molecule import Molecule
from molspectra.errors import DamagedError, MismatchError, MolspectraError
from molspectra.evaluation.embedding import (
    alignment_similarity,
    batch_on_device,
    comparable,
    embed_batch,
    embed_intensities,
    trained_elements,
)
from molspectra.evaluation.predict import moved
from molspectra.models.model import MolSpectra
from molspectra.spectra.modality import Modality
from molspectra.training.checkpoint import CONFIG, WEIGHTS, find_checkpoint, load_model, read_about

BATCH = 64
"""Molecules or spectra per pass."""

POINTS_PER_WIDTH = 3
"""Stored points per default line width of the modality: 4 cm⁻¹ and 0.1 eV."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class SearchModel:
    """A stage-2 model and how its embeddings are compared.

    Attributes:
        model: in evaluation mode, on its device.
        directory: its checkpoint.
        hash: SHA-256 of weights and settings, by which an index knows its model.
        similarity: "cosine" (embeddings of length 1) or "inner", as in the alignment of its training.
        elements: atomic numbers of its training set; None where its files do not tell.
    """

    model: MolSpectra
    directory: Path
    hash: str
    similarity: str
    elements: frozenset[int] | None = None

    @property
    def width(self) -> int:
        """Width D of the embeddings."""
        return self.model.encoder.channels

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that the spectrum encoder reads."""
        assert self.model.spectrum_encoder is not None
        return tuple(self.model.spectrum_encoder.kinds)

    def structures(self, molecules: Sequence[Molecule]) -> Floats:
        """Embeddings [B, D] of structures.

        Raises:
            MolspectraError: an embedding is not finite.
        """
        parts = [
            embed_batch(self.model, batch_on_device(molecules[start : start + BATCH], self.model))
            for start in range(0, len(molecules), BATCH)
        ]
        return self._comparable(parts, [molecule.name or molecule.formula for molecule in molecules])

    def spectra(self, spectra: Mapping[str, npt.NDArray[np.floating]]) -> Floats:
        """Embeddings [B, D] of whole spectra, one for all spectra of a row together.

        Args:
            spectra: intensities [B, points] by modality, in its unit; of modalities that the model reads.

        Raises:
            MolspectraError: an embedding is not finite.
        """
        intensities = {name: torch.tensor(values) for name, values in spectra.items()}
        count = len(next(iter(intensities.values())))
        parts = [
            embed_intensities(
                self.model, {name: values[start : start + BATCH] for name, values in intensities.items()}
            )
            for start in range(0, count, BATCH)
        ]
        return self._comparable(parts, [f"spectrum {number + 1}" for number in range(count)])

    def _comparable(self, parts: Sequence[torch.Tensor], names: Sequence[str]) -> Floats:
        """Embeddings [B, D], of length 1 where the similarity is the cosine."""
        vectors, is_finite = comparable(torch.cat(list(parts)), unit=self.similarity == "cosine")
        if not is_finite.all():
            raise MolspectraError(f"{names[int(np.argmin(is_finite))]}: its embedding is not finite")
        return vectors


def open_model(path: Path | str, *, similarity: str | None = None, device: str = "cpu") -> SearchModel:
    """Load the model of a stage-2 run, or of a checkpoint.

    Args:
        path: run or checkpoint directory.
        similarity: how embeddings are compared; None for that of the model's training.
        device: where to compute.

    Raises:
        InputError: no model there, one without a spectrum encoder, or an unknown device.
    """
    directory = find_checkpoint(path)
    model, about = load_model(directory)
    if model.spectrum_encoder is None:
        raise MismatchError(f"{path}: this model reads no spectra; searching needs one of stage 2")
    similarity = similarity or alignment_similarity(directory, about)
    elements = trained_elements(about)
    return SearchModel(moved(model, device), directory, model_hash(directory), similarity, elements)


def model_hash(directory: Path) -> str:
    """SHA-256 of the weights and the model's settings in a checkpoint.

    Raises:
        InputError: a file is missing or damaged.
    """
    settings = read_about(directory).get("model")
    try:
        weights = (directory / WEIGHTS).read_bytes()
    except OSError as error:
        raise DamagedError(f"{directory / WEIGHTS}: cannot be read ({error.strerror})") from error
    return hashlib.sha256(weights + json.dumps(settings, sort_keys=True).encode()).hexdigest()


def copy_model(model: SearchModel, to: Path) -> None:
    """Copy a model's weights and settings into a new folder, where `open_model` finds them."""
    to.mkdir()
    for name in (WEIGHTS, CONFIG):
        (to / name).write_bytes((model.directory / name).read_bytes())


def stored_points(kind: Modality) -> int:
    """Number P of stored points; the rest at the end of the axis, too short for one, is dropped."""
    return kind.points // _points_per_stored(kind)


def coarse(values: npt.NDArray[np.floating], kind: Modality) -> Floats:
    """Stored points of intensities: [..., points] to [..., P] float32."""
    step, points = _points_per_stored(kind), stored_points(kind)
    values = np.asarray(values)[..., : step * points]
    return values.reshape(*values.shape[:-1], points, step).mean(-1, dtype=np.float32)


def coarse_mask(known: npt.NDArray[np.bool_], kind: Modality) -> npt.NDArray[np.bool_]:
    """Stored points all of whose points are known: [points] to [P]."""
    step, points = _points_per_stored(kind), stored_points(kind)
    return np.asarray(known[: step * points].reshape(points, step).all(-1))


def _points_per_stored(kind: Modality) -> int:
    return max(1, math.floor(kind.fwhm / POINTS_PER_WIDTH / kind.step + 1e-9))


def unit(vectors: Floats) -> Floats:
    """Vectors [n, D] divided by their Euclidean norm; a vector of zeros, which stands for none, stays."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1)).astype(np.float32)
