"""Making an index and adding to it; whatever happens in between, the last complete state stays in force."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from molspectra.chem.readers import Rejection
from molspectra.data.atomic import alone, naming
from molspectra.data.store.store import Store
from molspectra.errors import InputError, hint
from molspectra.search import approximate
from molspectra.search.calibrate import (
    DISTRACTORS,
    LEAST,
    HeldOut,
    calibrate,
    held_out_of_run,
    held_out_of_store,
)
from molspectra.search.manifest import (
    NAME,
    VECTOR_TYPES,
    ApproximateEntry,
    Calibration,
    Manifest,
    ModelEntry,
    SegmentEntry,
    read_manifest,
)
from molspectra.search.ranking import Answers
from molspectra.search.segment import Segment, open_segment, widths, write_segment
from molspectra.search.sources import Block, OnError, Source, blocks, source_name
from molspectra.search.vectors import SearchModel, coarse, copy_model, open_model
from molspectra.spectra.modality import MODALITIES, modality

MODEL = "model"
"""Folder of the model's checkpoint in an index."""

_LEFT_OVER = re.compile(r"\.new-.*|segment-\d{6}|approximate-\d+\.faiss")


@dataclass(frozen=True)
class Added:
    """What was added to an index: rows, bad records that were left out, and remarks for people."""

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
    """Make an index of a library of molecules.

    Args:
        out: folder to make; it appears complete or not at all.
        source: molecules, see `molspectra.search.sources.blocks`.
        model: run or checkpoint of stage 2, which is copied into the index.
        vectors: type of stored vectors, "float32" or "float16".
        modalities: spectra of the source to keep for comparison; None for all that it has.
        calibration: what confidences are calibrated on: "run" (the validation molecules of the model's
            training), a store of molecules that the model was not trained on, or None.
        on_error: "skip" leaves bad records out.
        overwrite: replace an index that is there.
        device: where to compute.

    Raises:
        InputError: something that does not fit; nothing is changed then.
    """
    out = Path(out)
    if vectors not in VECTOR_TYPES:
        raise InputError(f"vectors are stored as {' or '.join(VECTOR_TYPES)}; {hint(vectors, VECTOR_TYPES)}")
    _check_out(out, overwrite)
    opened = open_model(model, device=device)
    held_out = _held_out(calibration, model)
    hidden = out.with_name(f".{out.name}.building")
    with naming(out):
        hidden.mkdir(exist_ok=True)
    with alone(hidden, "making this index"):
        try:
            with naming(out):
                _empty(hidden)
                copy_model(opened, hidden / MODEL)
            added, entry, kept, typical = _segment(hidden, 0, source, opened, vectors, modalities, on_error)
            about = ModelEntry(opened.hash, opened.similarity, opened.width, opened.modalities)
            manifest = Manifest(about, vectors, kept, (entry,), typical)
            manifest, remark = _calibrated(hidden, manifest, opened, held_out)
            manifest.write(hidden)
            with naming(out):
                _exchange(hidden, out)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
    return replace(added, remarks=(*added.remarks, *remark))


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
        model: the model that made the index, for those who want to be sure; None takes the copy in it.
        on_error: see `build`.
        device: where to compute.

    Raises:
        InputError: no index, another model, or a bad record; the index is as before.
    """
    path = Path(path)
    read_manifest(path)
    with alone(path, "changing this index"):
        manifest = read_manifest(path)
        opened = model_of(path, manifest, model, device)
        _remove_left_over(path, manifest)
        last = manifest.segments[-1].name
        added, entry, _, _ = _segment(
            path,
            int(last.rpartition("-")[2]) + 1,
            source,
            opened,
            manifest.vectors,
            manifest.modalities,
            on_error,
        )
        replace(manifest, segments=(*manifest.segments, entry)).write(path)
    return added


def add_approximate(path: Path | str) -> int:
    """Build the approximate index of the structure vectors anew; returns the number of entries in it.

    Raises:
        InputError: no index, or faiss is not installed.
    """
    path = Path(path)
    read_manifest(path)
    approximate.faiss()
    with alone(path, "changing this index"):
        manifest = read_manifest(path)
        vectors = [each.arrays["structure"] for each in open_segments(path, manifest)]
        name = f"approximate-{manifest.rows}.faiss"
        found = approximate.build(vectors, path / name)
        manifest = replace(manifest, approximate=ApproximateEntry(name, found, manifest.rows))
        manifest.write(path)
        _remove_left_over(path, manifest)
    return manifest.rows


def model_of(path: Path, manifest: Manifest, model: Path | str | None, device: str = "cpu") -> SearchModel:
    """The model of an index, from its copy or from elsewhere.

    Raises:
        InputError: it is not the model that made the index.
    """
    where = path / MODEL if model is None else model
    opened = open_model(where, similarity=manifest.model.similarity, device=device)
    if opened.hash != manifest.model.hash:
        raise InputError(
            f"{path}: made with another model ({manifest.model.hash[:12]}) than {where} "
            f"({opened.hash[:12]}); vectors of two models cannot be compared: index the library anew"
        )
    return opened


def open_segments(path: Path, manifest: Manifest) -> list[Segment]:
    """Map the segments of an index.

    Raises:
        InputError: a file is damaged.
    """
    sizes = widths(manifest.model.width, manifest.model.modalities, manifest.modalities)
    return [open_segment(path / each.name, each.rows, sizes, manifest.vectors) for each in manifest.segments]


def _segment(
    folder: Path,
    number: int,
    source: Source,
    model: SearchModel,
    vectors: str,
    modalities: tuple[str, ...] | None,
    on_error: OnError,
) -> tuple[Added, SegmentEntry, tuple[str, ...], dict[str, list[float]]]:
    """Write a segment under a hidden name, then give it its own; also the modalities and typical spectra."""
    rejected: list[Rejection] = []
    stream = blocks(source, on_error=on_error, rejected=rejected)
    first = next(stream, None)
    if first is None:
        reason = f": {rejected[0]}" if rejected else ""
        raise InputError(f"{source_name(source)}: no molecule of it can be indexed{reason}")
    has = set(first.spectra)
    kept = tuple(name for name in MODALITIES if name in (has if modalities is None else modalities))
    remarks = []
    if has - set(kept):
        left = ", ".join(sorted(has - set(kept)))
        remarks.append(
            f"{left} spectra of {source_name(source)} are left out: the index keeps none of that kind"
        )
    name = f"segment-{number:06d}"
    hidden = folder / f".new-{name}"
    try:
        rows, files, sums = write_segment(hidden, chain([first], stream), model, kept, vectors)
        with naming(folder):
            hidden.rename(folder / name)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    typical = {each: _rounded(total[:-1] / total[-1]) for each, total in sums.items() if total[-1] > 0}
    entry = SegmentEntry(name, rows, source_name(source), files)
    return Added(rows, tuple(rejected), tuple(remarks)), entry, kept, typical


def _calibrated(
    folder: Path, manifest: Manifest, model: SearchModel, held_out: HeldOut | None
) -> tuple[Manifest, tuple[str, ...]]:
    """The manifest with a calibration, and typical spectra where the library gave none."""
    none = "confidences are not calibrated and will not be told"
    if held_out is None:
        return manifest, (f"{none}: no molecules that the model was not trained on are at hand",)
    names = tuple(name for name in held_out.store.metadata.modalities if name in model.modalities)
    block: Block | None = held_out.block(names) if names else None
    if block is None:
        return manifest, (f"{none}: fewer than {LEAST} held-out molecules with all spectra",)
    (segment,) = open_segments(folder, manifest)
    count = min(len(segment), DISTRACTORS)
    rows = np.unique(np.linspace(0, len(segment) - 1, count).astype(np.int64))
    sample = {name: np.asarray(each[rows], np.float32) for name, each in segment.arrays.items()}
    identities = segment.table["identity"].take(rows).to_pylist()
    answers = len(Answers(segment.table["identity"]))
    found: Calibration = calibrate(block, model, sample, identities, answers, held_out.source)
    typical = dict(manifest.typical)
    for name, spectra in block.spectra.items():
        typical.setdefault(name, _rounded(coarse(spectra, modality(name)).mean(0, dtype=np.float64)))
    return replace(manifest, typical=typical, calibration=found), ()


def _held_out(calibration: Path | str | Store | None, model: Path | str) -> HeldOut | None:
    if calibration is None:
        return None
    if isinstance(calibration, Store):
        return HeldOut(calibration, np.arange(len(calibration)), calibration.path.name)
    return held_out_of_run(model) if str(calibration) == "run" else held_out_of_store(calibration)


def _check_out(out: Path, overwrite: bool) -> None:
    if not out.parent.is_dir():
        raise InputError(f"{out}: the directory {out.parent} does not exist")
    if not out.exists():
        return
    if not (out / NAME).is_file():
        raise InputError(f"{out} exists already and is not an index; choose another name")
    if not overwrite:
        raise InputError(f"{out} exists already; add to it with --append or give --overwrite")


def _remove_left_over(path: Path, manifest: Manifest) -> None:
    """Remove what an interrupted change has left, and approximate indices that were replaced."""
    known = {each.name for each in manifest.segments}
    if manifest.approximate is not None:
        known.add(manifest.approximate.file)
    for each in _inside(path):
        if _LEFT_OVER.fullmatch(each.name) and each.name not in known:
            if each.is_dir():
                shutil.rmtree(each, ignore_errors=True)
            else:
                each.unlink(missing_ok=True)


def _exchange(new: Path, out: Path) -> None:
    """Give a new folder its name; one that has it goes away, and is never half there."""
    old = out.with_name(f".{out.name}.old")
    if out.exists():
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _empty(folder: Path) -> None:
    for each in _inside(folder):
        if each.is_dir():
            shutil.rmtree(each)
        else:
            each.unlink()


def _inside(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.iterdir())


def _rounded(values: npt.NDArray[np.float64]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]
