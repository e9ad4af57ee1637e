"""The description of an index, `library.json`; a change takes effect when that file is replaced."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from molspectra._version import __version__
from molspectra.data.atomic import atomic_file
from molspectra.errors import DamagedError, FormatError, NotFoundError, check_format
from molspectra.search.vectors import stored_points
from molspectra.spectra.modality import MODALITIES
from molspectra.training.record import read_json

NAME = "library.json"
MODEL = "model"
"""Folder of the model's checkpoint in an index."""
FORMAT = 1
VECTOR_TYPES = ("float32", "float16")
Mixture = tuple[float, float, float, float]
_SEGMENT = re.compile(r"segment-\d{6}")
_APPROXIMATE = re.compile(r"approximate-\d{1,12}\.faiss")


@dataclass(frozen=True)
class SegmentEntry:
    """One segment: its folder, number of rows, source of its molecules, SHA-256 of its files by name."""

    name: str
    rows: int
    source: str
    files: dict[str, str]


@dataclass(frozen=True)
class ModelEntry:
    """The model of an index: its hash, and similarity, width and modalities of its embeddings."""

    hash: str
    similarity: str
    width: int
    modalities: tuple[str, ...]


@dataclass(frozen=True)
class ApproximateEntry:
    """An approximate index: its file, the SHA-256 of that, and how many rows, from the first, it holds."""

    file: str
    hash: str
    rows: int


@dataclass(frozen=True)
class Calibration:
    """Temperatures of confidences, fitted on held-out molecules.

    Attributes:
        queries: number of held-out molecules.
        temperature: of a single softmax, by "way:modality+modality", such as "cosine:ir+raman".
        accuracy: fraction of the queries whose first answer is right, by the same key.
        confidence: mean confidence of the first answers, by the same key.
        source: name of the held-out molecules.
        mixture: of two softmaxes, by the same key: the share of the first, the factors on the temperature of
            both, and the share of spectra whose first answer leads by chance; none in an index made before.
        missing: of searches of one formula, how far above `calibrate.reference` the best score must lie, or
            the right molecule is probably not in the library, and the share of missing molecules that this
            finds, by the same key; none where it finds few.
    """

    queries: int
    temperature: dict[str, float]
    accuracy: dict[str, float]
    confidence: dict[str, float]
    source: str
    mixture: dict[str, Mixture] = field(default_factory=dict)
    missing: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """The content of `library.json`.

    Attributes:
        model: the model that made the vectors.
        vectors: type of stored vectors, "float32" or "float16".
        modalities: of the stored spectra.
        segments: in the order of their rows.
        typical: by modality the mean spectrum [P] of the library, in the modality's unit.
        calibration: None where there were no held-out molecules.
        approximate: None where there is no approximate index.
        rejected: by segment the number of records, and of spectra of kept records, that were left out, by
            kind of reason; no entry of a segment without any, or made before they were counted.
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
    rejected: dict[str, dict[str, int]] = field(default_factory=dict)
    version: str = __version__
    format: int = FORMAT

    @property
    def rows(self) -> int:
        """Number of entries."""
        return sum(segment.rows for segment in self.segments)

    def write(self, folder: Path) -> None:
        """Write or replace `library.json` atomically."""
        with atomic_file(folder / NAME) as file:
            file.write(json.dumps(asdict(self), ensure_ascii=False, indent=1).encode())


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of an index.

    Raises:
        InputError: no index there, a damaged one, or one of another format.
    """
    path = folder / NAME
    if not path.is_file():
        raise NotFoundError(f"{folder}: not an index (no {NAME} in it); molspectra index makes one")
    values = read_json(path)
    if not isinstance(values, dict):
        raise FormatError(f"{path}: not the description of an index")
    check_format(f"{path}: no readable index", values.get("format"), FORMAT)
    try:
        return _checked(values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedError(f"{path}: damaged ({type(error).__name__}: {str(error)[:80]})") from error


def _checked(values: dict[str, Any]) -> Manifest:
    """A manifest from JSON; a KeyError, TypeError, ValueError or AttributeError where a value is wrong."""
    model = ModelEntry(**values["model"] | {"modalities": tuple(values["model"]["modalities"])})
    segments = tuple(SegmentEntry(**entry) for entry in values["segments"])
    calibration, approximate = values["calibration"], values["approximate"]
    if calibration is not None:  # "absent", of indices made before, told less
        calibration = {name: value for name, value in calibration.items() if name != "absent"}
    manifest = Manifest(
        model,
        values["vectors"],
        tuple(values["modalities"]),
        segments,
        {name: [float(point) for point in points] for name, points in values["typical"].items()},
        None if calibration is None else Calibration(**calibration),
        None if approximate is None else ApproximateEntry(**approximate),
        {name: dict(counts) for name, counts in values.get("rejected", {}).items()},
        str(values["version"]),
    )
    _require(manifest.vectors in VECTOR_TYPES, "vectors")
    _require({*manifest.modalities, *model.modalities} <= MODALITIES.keys(), "modalities")
    _require(model.similarity in ("cosine", "inner"), "similarity")
    _require(type(model.width) is int and model.width > 0, "width")
    _require(len(segments) > 0, "segments")
    for name, points in manifest.typical.items():
        _require(name in MODALITIES and bool(np.isfinite(points).all()), "typical")
        _require(len(points) == stored_points(MODALITIES[name]), "typical")
    for segment in segments:  # names become paths
        _require(_SEGMENT.fullmatch(segment.name) is not None, "a segment's name")
        _require(type(segment.rows) is int and segment.rows > 0, "a segment's rows")
        _require(isinstance(segment.files, dict), "a segment's files")
    for counts in manifest.rejected.values():
        _require(all(type(number) is int and number > 0 for number in counts.values()), "rejected")
    if manifest.approximate is not None:
        _require(_APPROXIMATE.fullmatch(manifest.approximate.file) is not None, "the approximate index")
        _require(0 < manifest.approximate.rows <= manifest.rows, "the approximate index")
    if manifest.calibration is not None:
        for pair in manifest.calibration.missing.values():
            _require(len(pair) == 2 and bool(np.isfinite(pair).all()), "a score of a missing molecule")
        for share, *factors, chance in manifest.calibration.mixture.values():
            _require(0 <= share <= 1 and 0 <= chance <= 1 and len(factors) == 2, "a mixture")
            _require(all(np.isfinite(factor) and factor > 0 for factor in factors), "a mixture")
        temperatures = manifest.calibration.temperature.values()
        _require(all(np.isfinite(value) and value > 0 for value in temperatures), "a temperature")
    return manifest


def _require(condition: bool, name: str) -> None:
    if not condition:
        raise ValueError(f"impossible value of {name}")
