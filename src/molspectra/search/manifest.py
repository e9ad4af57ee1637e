"""What an index says of itself: `library.json`. Replacing that file is what makes a change take effect."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from molspectra._version import __version__
from molspectra.data.atomic import atomic_file
from molspectra.errors import InputError
from molspectra.spectra.modality import MODALITIES
from molspectra.training.record import read_json

NAME = "library.json"
FORMAT = 1
VECTOR_TYPES = ("float32", "float16")
_SEGMENT = re.compile(r"segment-\d{6}")
_APPROXIMATE = re.compile(r"approximate-\d{1,12}\.faiss")


@dataclass(frozen=True)
class SegmentEntry:
    """One segment: its folder, number of rows, where its molecules came from, SHA-256 of its files."""

    name: str
    rows: int
    source: str
    files: dict[str, str]


@dataclass(frozen=True)
class ModelEntry:
    """The model of an index: its hash and what its vectors are."""

    hash: str
    similarity: str
    width: int
    modalities: tuple[str, ...]


@dataclass(frozen=True)
class ApproximateEntry:
    """An approximate index: its file, that file's SHA-256, and how many first rows it holds."""

    file: str
    hash: str
    rows: int


@dataclass(frozen=True)
class Calibration:
    """Temperatures of confidences, fitted on held-out molecules.

    Attributes:
        queries: number of held-out molecules.
        temperature: by "way:modality+modality", such as "cosine:ir+raman".
        accuracy: share of the queries whose first answer is right, by the same key.
        confidence: mean confidence of the first answers, by the same key.
        source: what the molecules were.
    """

    queries: int
    temperature: dict[str, float]
    accuracy: dict[str, float]
    confidence: dict[str, float]
    source: str


@dataclass(frozen=True)
class Manifest:
    """The content of `library.json`.

    Attributes:
        model: the model.
        vectors: type of stored vectors, "float32" or "float16".
        modalities: those of stored spectra.
        segments: in the order of their rows.
        typical: by modality the mean spectrum [P] of the library, in the modality's unit.
        calibration: None where no molecules were there to calibrate on.
        approximate: None where there is no approximate index.
        version: of the package that wrote it.
        format: of the index.
    """

    model: ModelEntry
    vectors: str
    modalities: tuple[str, ...]
    segments: tuple[SegmentEntry, ...]
    typical: dict[str, list[float]] = field(default_factory=dict)
    calibration: Calibration | None = None
    approximate: ApproximateEntry | None = None
    version: str = __version__
    format: int = FORMAT

    @property
    def rows(self) -> int:
        """Number of entries."""
        return sum(each.rows for each in self.segments)

    def typical_spectra(self) -> dict[str, npt.NDArray[np.float64]]:
        """`typical` as arrays."""
        return {name: np.array(values) for name, values in self.typical.items()}

    def write(self, folder: Path) -> None:
        """Put it in place, atomically.

        Raises:
            InputError: it cannot be written.
        """
        with atomic_file(folder / NAME) as file:
            file.write(json.dumps(asdict(self), ensure_ascii=False, indent=1).encode())


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of an index.

    Raises:
        InputError: no index there, a damaged one, or one of another format.
    """
    path = folder / NAME
    if not path.is_file():
        raise InputError(f"{folder}: not an index (no {NAME} in it); molspectra index makes one")
    found = read_json(path)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InputError(f"{path}: not an index of format {FORMAT}; another version of molspectra made it")
    try:
        return _checked(found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: damaged ({type(error).__name__}: {str(error)[:80]})") from error


def _checked(found: dict[str, Any]) -> Manifest:
    """A manifest from JSON; anything wrong raises an error that the caller explains."""
    model = ModelEntry(**found["model"] | {"modalities": tuple(found["model"]["modalities"])})
    segments = tuple(SegmentEntry(**each) for each in found["segments"])
    calibration, approximate = found["calibration"], found["approximate"]
    manifest = Manifest(
        model,
        found["vectors"],
        tuple(found["modalities"]),
        segments,
        {name: [float(value) for value in values] for name, values in found["typical"].items()},
        None if calibration is None else Calibration(**calibration),
        None if approximate is None else ApproximateEntry(**approximate),
        str(found["version"]),
    )
    _require(manifest.vectors in VECTOR_TYPES, "vectors")
    _require({*manifest.modalities, *model.modalities} <= MODALITIES.keys(), "modalities")
    _require(type(model.width) is int and model.width > 0, "width")
    _require(len(segments) > 0, "segments")
    for each in segments:  # names become paths
        _require(_SEGMENT.fullmatch(each.name) is not None, "a segment's name")
        _require(type(each.rows) is int and each.rows > 0, "a segment's rows")
        _require(isinstance(each.files, dict), "a segment's files")
    if manifest.approximate is not None:
        _require(_APPROXIMATE.fullmatch(manifest.approximate.file) is not None, "the approximate index")
        _require(0 < manifest.approximate.rows <= manifest.rows, "the approximate index")
    if manifest.calibration is not None:
        temperatures = manifest.calibration.temperature.values()
        _require(all(np.isfinite(each) and each > 0 for each in temperatures), "a temperature")
    return manifest


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(f"{what} cannot be")
