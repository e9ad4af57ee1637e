"""The one place where molecules and spectra become the vectors that are compared."""

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
from molspectra.data.batch import batch_of
from molspectra.errors import InputError, MolspectraError
from molspectra.evaluation.predict import moved, on_device
from molspectra.evaluation.subject import read_run
from molspectra.models.model import MolSpectra
from molspectra.spectra.modality import Modality
from molspectra.training.checkpoint import CONFIG, WEIGHTS, find_checkpoint, load_model, read_about

POINTS_PER_WIDTH = 3
"""Stored points per default line width of the modality: 4 cm⁻¹ and 0.1 eV."""

Floats = npt.NDArray[np.float32]


def reduction(kind: Modality) -> int:
    """Points of the modality's axis that become one stored point."""
    return max(1, math.floor(kind.fwhm / POINTS_PER_WIDTH / kind.step + 1e-9))


def stored_points(kind: Modality) -> int:
    """Number of stored points P; what is left over at the end of the axis belongs to none."""
    return kind.points // reduction(kind)


def coarse(values: npt.NDArray[np.floating], kind: Modality) -> Floats:
    """Means of neighbouring points: [..., points] to [..., P] float32."""
    step, points = reduction(kind), stored_points(kind)
    cut = np.asarray(values)[..., : step * points]
    return cut.reshape(*cut.shape[:-1], points, step).mean(-1, dtype=np.float32)


def coarse_mask(inside: npt.NDArray[np.bool_], kind: Modality) -> npt.NDArray[np.bool_]:
    """Stored points whose points are all `inside`: [points] to [P]."""
    step, points = reduction(kind), stored_points(kind)
    return np.asarray(inside[: step * points].reshape(points, step).all(-1))


def unit(vectors: Floats) -> Floats:
    """Vectors [n, D] scaled to length 1; a vector of zeros stays, and stands for none."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1)).astype(np.float32)


BATCH = 64
"""Molecules or spectra per pass."""


@dataclass(frozen=True, eq=False)
class SearchModel:
    """A model of stage 2 and how its vectors are compared.

    Attributes:
        model: in evaluation mode, on its device.
        directory: its checkpoint.
        hash: SHA-256 of weights and settings, by which an index knows its model.
        similarity: "cosine" (vectors of length 1) or "inner", as in the alignment of its training.
    """

    model: MolSpectra
    directory: Path
    hash: str
    similarity: str

    @property
    def width(self) -> int:
        """Width D of the vectors."""
        return self.model.encoder.channels

    @property
    def modalities(self) -> tuple[str, ...]:
        """Spectra that the model reads."""
        assert self.model.spectrum_encoder is not None
        return tuple(self.model.spectrum_encoder.kinds)

    @torch.no_grad()
    def structures(self, molecules: Sequence[Molecule]) -> Floats:
        """Vectors [B, D] of structures.

        Raises:
            MolspectraError: the model makes something of a molecule that is not finite.
        """
        parts = [
            self.model.embed(on_device(batch_of(molecules[start : start + BATCH]), self.model))
            for start in range(0, len(molecules), BATCH)
        ]
        return self._compared(parts, [molecule.name or molecule.formula for molecule in molecules])

    @torch.no_grad()
    def spectra(self, spectra: Mapping[str, npt.NDArray[np.floating]]) -> Floats:
        """Vectors [B, D] of whole spectra, all those of a row together.

        Args:
            spectra: per modality intensities [B, points] in its unit; of modalities that the model reads.

        Raises:
            MolspectraError: the model makes something of a spectrum that is not finite.
        """
        encoder, weight = self.model.spectrum_encoder, next(self.model.parameters())
        assert encoder is not None
        given = {name: torch.tensor(np.asarray(values)) for name, values in spectra.items()}
        count = len(next(iter(given.values())))
        parts = []
        for start in range(0, count, BATCH):
            piece = {name: each[start : start + BATCH].to(weight) for name, each in given.items()}
            parts.append(encoder(piece).representation)
        return self._compared(parts, [f"spectrum {number + 1}" for number in range(count)])

    def _compared(self, parts: Sequence[torch.Tensor], names: Sequence[str]) -> Floats:
        """Vectors as they are compared: of length 1 where the similarity is the cosine."""
        vectors = torch.cat(list(parts)).float().cpu().numpy()
        bad = ~np.isfinite(vectors).all(1)
        if bad.any():
            raise MolspectraError(f"{names[int(np.argmax(bad))]}: its embedding is not finite")
        return unit(vectors) if self.similarity == "cosine" else vectors


def open_model(path: Path | str, *, similarity: str | None = None, device: str = "cpu") -> SearchModel:
    """Load the model of a run of stage 2, or of a checkpoint.

    Args:
        path: run or checkpoint directory.
        similarity: how vectors are compared; None takes it from the settings of the run, and of a checkpoint
            without a run "cosine".
        device: where to compute.

    Raises:
        InputError: no model there, one without a spectrum encoder, or an unknown device.
    """
    model, _ = load_model(path)
    if model.spectrum_encoder is None:
        raise InputError(f"{path}: this model reads no spectra; searching needs one of stage 2")
    model = moved(model, device)
    directory = find_checkpoint(path)
    return SearchModel(model, directory, model_hash(directory), similarity or _similarity(Path(path)))


def model_hash(directory: Path) -> str:
    """SHA-256 of the weights and the model's settings in a checkpoint.

    Raises:
        InputError: a file is missing or damaged.
    """
    settings = read_about(directory).get("model")
    try:
        weights = (directory / WEIGHTS).read_bytes()
    except OSError as error:
        raise InputError(f"{directory / WEIGHTS}: cannot be read ({error.strerror})") from error
    return hashlib.sha256(weights + json.dumps(settings, sort_keys=True).encode()).hexdigest()


def copy_model(model: SearchModel, to: Path) -> None:
    """Copy a model's weights and settings into a new folder, where `open_model` finds them."""
    to.mkdir()
    for name in (WEIGHTS, CONFIG):
        (to / name).write_bytes((model.directory / name).read_bytes())


def _similarity(path: Path) -> str:
    if not (path / "record.json").is_file():
        return "cosine"
    config, _ = read_run(path)
    return config.alignment.similarity if hasattr(config, "alignment") else "cosine"
