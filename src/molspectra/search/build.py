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

from molspectra.chem.readers import ErrorPolicy, OnError, Rejection
from molspectra.data.atomic import exclusive_lock, naming
from molspectra.data.store.store import Store
from molspectra.datasets.report import count, kind_of
from molspectra.errors import ExistsError, MismatchError, NotFoundError, SettingError, WriteError, hint
from molspectra.search import approximate
from molspectra.search.calibrate import MIN_QUERIES, HeldOut, calibrate, held_out, sample
from molspectra.search.manifest import (
    MODEL,
    NAME,
    VECTOR_TYPES,
    ApproximateEntry,
    Manifest,
    ModelEntry,
    SegmentEntry,
    read_manifest,
)
from molspectra.search.parts import PartMaker
from molspectra.search.ranking import Answers
from molspectra.search.segment import open_segments, write_segment
from molspectra.search.sources import Source, source_name
from molspectra.search.vectors import SearchModel, coarse, copy_model, open_model
from molspectra.spectra.modality import modality
from molspectra.workers.executors import Executor

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
    model: Path | str = "base",
    *,
    vectors: str = "float32",
    modalities: tuple[str, ...] | None = None,
    calibration: Path | str | Store | None = "run",
    on_error: OnError = "raise",
    overwrite: bool = False,
    device: str = "cpu",
    executor: Executor | None = None,
    show: bool = False,
) -> Added:
    """Build an index of a library of molecules.

    Args:
        out: folder to make; it appears complete or not at all.
        source: molecules, see `molspectra.search.sources.blocks`.
        model: stage-2 run, checkpoint or shipped model, which is copied into the index.
        vectors: type of the stored embeddings, "float32" or "float16".
        modalities: spectra of the source to keep for comparison; None for all that it has.
        calibration: molecules for the calibration of the confidences of `embedding` and `learned`: "run" (the
            validation molecules of the model's training) or a store of molecules that the model was not
            trained on; None leaves out all confidences.
        on_error: "skip" leaves bad records out.
        overwrite: replace an existing index.
        device: where to compute.
        executor: reads and embeds the molecules on its workers, which must see the folder of `out`. The index
            is the same; a molecule that ends its worker again and again is a bad record.
        show: progress on standard error.

    Raises:
        InputError: a bad argument or record; nothing is changed then.
        MolspectraError: the workers do not start, or fail as a whole.
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
            maker = PartMaker(hidden, search_model.hash, search_model.similarity, device, modalities)
            added, entry, kept, typical = _add_segment(
                maker, 0, source, search_model, vectors, on_error, executor, show
            )
            assert entry is not None
            model_entry = ModelEntry(
                search_model.hash, search_model.similarity, search_model.width, search_model.modalities
            )
            counts = _counts(entry, added)
            manifest = Manifest(model_entry, vectors, kept, (entry,), typical, rejected=counts)
            remarks: tuple[str, ...] = ("confidences are not calibrated and are left out",)
            if calibration is not None:
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
    executor: Executor | None = None,
    show: bool = False,
) -> Added:
    """Add molecules to an index as a new segment.

    What is there already, with the same identity, structure and spectra, is not added again; the remarks
    count it.

    Args:
        path: the index.
        source: see `build`; spectra of modalities that the index does not keep are left out, with a remark.
        model: a model that must be the one that made the index; None takes the copy in it.
        on_error: see `build`.
        device: where to compute.
        executor: see `build`.
        show: progress on standard error.

    Raises:
        InputError: no index, another model, or a bad record; the index is as before.
        MolspectraError: the workers do not start, or fail as a whole.
    """
    path = Path(path)
    read_manifest(path)
    with exclusive_lock(path, "changing this index"):
        manifest = read_manifest(path)
        search_model = model_of(path, manifest, model, device)
        _remove_left_over(path, manifest)
        number = int(manifest.segments[-1].name.rpartition("-")[2]) + 1
        maker = PartMaker(
            path, search_model.hash, search_model.similarity, device, manifest.modalities, manifest
        )
        added, entry, _, _ = _add_segment(
            maker, number, source, search_model, manifest.vectors, on_error, executor, show
        )
        if entry is not None:
            counts = manifest.rejected | _counts(entry, added)
            replace(manifest, segments=(*manifest.segments, entry), rejected=counts).write(path)
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


def _add_segment(
    maker: PartMaker,
    number: int,
    source: Source,
    model: SearchModel,
    vectors: str,
    on_error: OnError,
    executor: Executor | None,
    show: bool,
) -> tuple[Added, SegmentEntry | None, tuple[str, ...], dict[str, list[float]]]:
    """Write a segment under a hidden name and rename it; also returns its modalities and typical spectra.

    There is none if all molecules are present already in an index that is appended to.
    """
    policy = ErrorPolicy(on_error)
    rejected, folder = policy.rejected, maker.folder
    present = maker.present()
    if executor is None:
        stream = maker.parts(source, model, policy, present, show)
    else:
        stream = maker.shared_parts(source, policy, present, show, executor)
    first = next(stream, None)
    if first is None and present is not None and present.repeated:
        return Added(0, tuple(rejected), tuple(present.remarks(source_name(source)))), None, (), {}
    if first is None:
        reason = f"no molecule of it can be indexed: {rejected[0]}" if rejected else "it holds no molecules"
        raise NotFoundError(f"{source_name(source)}: {reason}")
    available = set(first.modalities)
    kept = maker.kept(available)
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
    if present is not None:
        remarks += present.remarks(source_name(source))
    return Added(rows, tuple(rejected), tuple(remarks)), entry, kept, typical


def _counts(entry: SegmentEntry, added: Added) -> dict[str, dict[str, int]]:
    """What was left out of a segment, by kind of reason, as in the manifest; empty if nothing was."""
    counts: dict[str, int] = {}
    for rejection in added.rejected:
        count(counts, kind_of(rejection.reason))
    return {entry.name: counts} if counts else {}


def _calibrated(
    folder: Path, manifest: Manifest, model: SearchModel, molecules: HeldOut | None
) -> tuple[Manifest, tuple[str, ...]]:
    """The manifest with a calibration, and typical spectra of the held-out molecules where it has none."""
    names: tuple[str, ...] = ()
    missing = "there are no molecules that the model was not trained on"
    if molecules is not None:
        names = tuple(name for name in molecules.store.metadata.modalities if name in model.modalities)
        missing = f"fewer than {MIN_QUERIES} held-out molecules with all spectra"
    block = molecules.block(names, model.elements) if molecules is not None and names else None
    (segment,) = open_segments(folder, manifest)
    rows = sample(len(segment))
    arrays = {name: np.asarray(array[rows], np.float32) for name, array in segment.arrays.items()}
    identities, formulas = (segment.table[name].take(rows).to_pylist() for name in ("identity", "formula"))
    answers = len(Answers(segment.table["identity"]))
    source = molecules.source if molecules is not None else ""
    calibration = calibrate(block, model, arrays, identities, formulas, answers, source)
    typical = dict(manifest.typical)
    for name, spectra in (block.spectra if block is not None else {}).items():
        typical.setdefault(name, _rounded(coarse(spectra, modality(name)).mean(0, dtype=np.float64)))
    remarks = (
        ("confidences of embedding and learned are not calibrated and are left out: " + missing,)
        if block is None
        else ()
    )
    return replace(manifest, typical=typical, calibration=calibration), remarks


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
