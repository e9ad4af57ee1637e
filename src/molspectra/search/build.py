"""Builds an index and appends to it; an interruption or error leaves the last complete state."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from molspectra.chem.readers import Rejection
from molspectra.data.atomic import exclusive_lock, naming
from molspectra.data.store.store import Store
from molspectra.errors import ExistsError, MismatchError, NotFoundError, SettingError, WriteError, hint
from molspectra.search import approximate
from molspectra.search.calibrate import DISTRACTORS, MIN_QUERIES, HeldOut, calibrate, held_out
from molspectra.search.manifest import (
    NAME,
    VECTOR_TYPES,
    ApproximateEntry,
    Manifest,
    ModelEntry,
    SegmentEntry,
    read_manifest,
)
from molspectra.search.ranking import Answers
from molspectra.search.segment import Segment, open_segment, widths, write_segment
from molspectra.search.sources import OnError, Source, blocks, source_name
from molspectra.search.vectors import SearchModel, coarse, copy_model, open_model
from molspectra.spectra.modality import MODALITIES, modality

MODEL = "model"
"""Folder of the model's checkpoint in an index."""

_LEFT_OVER = re.compile(r"\.new-.*|segment-\d{6}|approximate-\d+\.faiss")


@dataclass(frozen=True)
class Added:
    """Result of an addition to an index: number of rows, records that were left out, remarks for people."""

    rows: int
    rejected: tuple[Rejection, ...] = ()
    remarks: tuple[str, ...] = ()


def build(
    out: Path | str,
    source: Source,
    model: Path | str,
    *,
    vectors: str = "float32",
    modalities: tuple[str, ...] | None = None,
    calibration: Path | str | Store | None = "run",
    on_error: OnError = "raise",
    overwrite: bool = False,
    device: str = "cpu",
) -> Added:
    """Build an index of a library of molecules.

    Args:
        out: folder to make; it appears complete or not at all.
        source: molecules, see `molspectra.search.sources.blocks`.
        model: stage-2 run or checkpoint, which is copied into the index.
        vectors: type of the stored embeddings, "float32" or "float16".
        modalities: spectra of the source to keep for comparison; None for all that it has.
        calibration: molecules for the calibration of confidences: "run" (the validation molecules of the
            model's training), a store of molecules that the model was not trained on, or None.
        on_error: "skip" leaves bad records out.
        overwrite: replace an existing index.
        device: where to compute.

    Raises:
        InputError: a bad argument or record; nothing is changed then.
    """
    out = Path(out)
    if vectors not in VECTOR_TYPES:
        raise SettingError(f"unknown type {vectors!r} of vectors; {hint(vectors, VECTOR_TYPES)}")
    if out.exists() and not (out / NAME).is_file():
        raise ExistsError(f"{out} exists already and is not an index; choose another name")
    if out.exists() and not overwrite:
        raise ExistsError(f"{out} exists already; add to it with --append or give --overwrite")
    if not out.parent.is_dir():
        raise WriteError(f"{out}: the directory {out.parent} does not exist")
    search_model = open_model(model, device=device)
    calibration_molecules = held_out(calibration, model)
    hidden = out.with_name(f".{out.name}.building")
    with naming(out):
        hidden.mkdir(exist_ok=True)
    with exclusive_lock(hidden, "making this index"):
        try:
            with naming(out):
                _remove(hidden.iterdir())
                copy_model(search_model, hidden / MODEL)
            added, entry, kept, typical = _add_segment(
                hidden, 0, source, search_model, vectors, modalities, on_error
            )
            model_entry = ModelEntry(
                search_model.hash, search_model.similarity, search_model.width, search_model.modalities
            )
            manifest = Manifest(model_entry, vectors, kept, (entry,), typical)
            manifest, remarks = _calibrated(hidden, manifest, search_model, calibration_molecules)
            manifest.write(hidden)
            with naming(out):
                _exchange(hidden, out)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
    return replace(added, remarks=(*added.remarks, *remarks))


def append(
    path: Path | str,
    source: Source,
    model: Path | str | None = None,
    *,
    on_error: OnError = "raise",
    device: str = "cpu",
) -> Added:
    """Add molecules to an index as a new segment.

    Args:
        path: the index.
        source: see `build`; spectra of modalities that the index does not keep are left out, with a remark.
        model: a model that must be the one that made the index; None takes the copy in it.
        on_error: see `build`.
        device: where to compute.

    Raises:
        InputError: no index, another model, or a bad record; the index is as before.
    """
    path = Path(path)
    read_manifest(path)
    with exclusive_lock(path, "changing this index"):
        manifest = read_manifest(path)
        search_model = model_of(path, manifest, model, device)
        _remove_left_over(path, manifest)
        number = int(manifest.segments[-1].name.rpartition("-")[2]) + 1
        added, entry, _, _ = _add_segment(
            path, number, source, search_model, manifest.vectors, manifest.modalities, on_error
        )
        replace(manifest, segments=(*manifest.segments, entry)).write(path)
    return added


def add_approximate(path: Path | str) -> int:
    """Build the approximate index of the structure embeddings; returns the number of entries in it.

    Raises:
        InputError: no index, or faiss is not installed.
    """
    path = Path(path)
    read_manifest(path)
    approximate.faiss()
    with exclusive_lock(path, "changing this index"):
        manifest = read_manifest(path)
        vectors = [segment.arrays["structure"] for segment in open_segments(path, manifest)]
        name = f"approximate-{manifest.rows}.faiss"
        file_hash = approximate.build(vectors, path / name)
        manifest = replace(manifest, approximate=ApproximateEntry(name, file_hash, manifest.rows))
        manifest.write(path)
        _remove_left_over(path, manifest)
    return manifest.rows


def model_of(path: Path, manifest: Manifest, model: Path | str | None, device: str = "cpu") -> SearchModel:
    """The model of an index, from its copy there or from a run.

    Raises:
        MismatchError: it is not the model that made the index.
    """
    where = path / MODEL if model is None else model
    search_model = open_model(where, similarity=manifest.model.similarity, device=device)
    if search_model.hash != manifest.model.hash:
        raise MismatchError(
            f"{path}: made with another model ({manifest.model.hash[:12]}) than {where} "
            f"({search_model.hash[:12]}); vectors of two models cannot be compared: index the library anew"
        )
    return search_model


def open_segments(path: Path, manifest: Manifest) -> list[Segment]:
    """Map the segments of an index, see `open_segment`."""
    sizes = widths(manifest.model.width, manifest.model.modalities, manifest.modalities)
    return [
        open_segment(path / entry.name, entry.rows, sizes, manifest.vectors) for entry in manifest.segments
    ]


def _add_segment(
    folder: Path,
    number: int,
    source: Source,
    model: SearchModel,
    vectors: str,
    modalities: tuple[str, ...] | None,
    on_error: OnError,
) -> tuple[Added, SegmentEntry, tuple[str, ...], dict[str, list[float]]]:
    """Write a segment under a hidden name and rename it; also returns its modalities and typical spectra."""
    rejected: list[Rejection] = []
    stream = blocks(source, on_error=on_error, rejected=rejected)
    first = next(stream, None)
    if first is None:
        reason = f": {rejected[0]}" if rejected else ""
        raise NotFoundError(f"{source_name(source)}: no molecule of it can be indexed{reason}")
    available = set(first.spectra)
    kept = tuple(name for name in MODALITIES if name in (available if modalities is None else modalities))
    remarks = []
    if available - set(kept):
        left_out = ", ".join(sorted(available - set(kept)))
        remarks.append(
            f"{left_out} spectra of {source_name(source)} are left out: the index keeps none of that kind"
        )
    name = f"segment-{number:06d}"
    hidden = folder / f".new-{name}"
    try:
        rows, files, sums = write_segment(hidden, chain([first], stream), model, kept, vectors)
        with naming(folder):
            hidden.rename(folder / name)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    typical = {kind: _rounded(total[:-1] / total[-1]) for kind, total in sums.items() if total[-1] > 0}
    entry = SegmentEntry(name, rows, source_name(source), files)
    return Added(rows, tuple(rejected), tuple(remarks)), entry, kept, typical


def _calibrated(
    folder: Path, manifest: Manifest, model: SearchModel, molecules: HeldOut | None
) -> tuple[Manifest, tuple[str, ...]]:
    """The manifest with a calibration, and typical spectra of the held-out molecules where it has none."""
    uncalibrated = "confidences are not calibrated and are left out"
    if molecules is None:
        return manifest, (f"{uncalibrated}: there are no molecules that the model was not trained on",)
    names = tuple(name for name in molecules.store.metadata.modalities if name in model.modalities)
    block = molecules.block(names) if names else None
    if block is None:
        return manifest, (f"{uncalibrated}: fewer than {MIN_QUERIES} held-out molecules with all spectra",)
    (segment,) = open_segments(folder, manifest)
    count = min(len(segment), DISTRACTORS)
    rows = np.unique(np.linspace(0, len(segment) - 1, count).astype(np.int64))
    sample = {name: np.asarray(array[rows], np.float32) for name, array in segment.arrays.items()}
    identities = segment.table["identity"].take(rows).to_pylist()
    answers = len(Answers(segment.table["identity"]))
    calibration = calibrate(block, model, sample, identities, answers, molecules.source)
    typical = dict(manifest.typical)
    for name, spectra in block.spectra.items():
        typical.setdefault(name, _rounded(coarse(spectra, modality(name)).mean(0, dtype=np.float64)))
    return replace(manifest, typical=typical, calibration=calibration), ()


def _remove_left_over(path: Path, manifest: Manifest) -> None:
    """Remove the files of an interrupted change, and approximate indices that were replaced."""
    known = {entry.name for entry in manifest.segments}
    if manifest.approximate is not None:
        known.add(manifest.approximate.file)
    names = [child.name for child in path.iterdir() if _LEFT_OVER.fullmatch(child.name)]
    _remove(path / name for name in names if name not in known)


def _remove(paths: Iterable[Path]) -> None:
    """Remove files and folders."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _exchange(new: Path, out: Path) -> None:
    """Give a new folder its name; an old one is renamed before it is removed, so that both stay complete."""
    old = out.with_name(f".{out.name}.old")
    if out.exists():
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
    try:
        new.rename(out)
    except OSError:
        if old.exists():
            with naming(Path(f"{out} (the index before is {old} now)")):
                old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _rounded(values: npt.NDArray[np.float64]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]
