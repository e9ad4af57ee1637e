"""What the embeddings of a model are worth by themselves: probes, galleries of every size, alignment.

For a run, a checkpoint, or a shipped model; nothing is trained but the probes. Tested are molecules that the
model has not seen.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from molspectra.data.store.schema import SPLIT
from molspectra.data.store.store import Store
from molspectra.errors import MismatchError, NotFoundError, SettingError, ValueRangeError
from molspectra.evaluation import hypersphere
from molspectra.evaluation.disturbances import disturbed_retrieval, typical_preparation
from molspectra.evaluation.embedding import alignment_similarity, embed_batch, pooled_batch
from molspectra.evaluation.evaluate import plain_json
from molspectra.evaluation.predict import moved, on_device
from molspectra.evaluation.predicted_retrieval import predicted_spectra, retrieve_by_prediction
from molspectra.evaluation.probes import Flags, Floats, probe_column
from molspectra.evaluation.ranking import recall_by_size
from molspectra.evaluation.retrieval import AmongPeers, Gallery, embed_spectra, retrieve, subsets
from molspectra.evaluation.spectral_floor import floor_spectra
from molspectra.models.model import MolSpectra
from molspectra.training.checkpoint import find_checkpoint, load_model
from molspectra.training.config import DataConfig
from molspectra.training.data import Rows, Selection
from molspectra.training.leaks import exposure
from molspectra.training.record import commit, machine, read_run, versions, write_json
from molspectra.training.seen import hashes_of, seen_by

RESULT = "representation.json"
"""Name of the file of results."""

KINDS = ("probes", "galleries", "alignment", "disturbances")
"""What can be asked for."""

GALLERIES = {"all": "all molecules", "mass": "same mass (10 ppm)", "formula": "same formula"}
"""Kinds of galleries, and what they are called."""

METHODS = {
    "embedding": "by embedding",
    "prediction": "against predicted spectra",
    "floor": "against spectra of a kernel ridge regression",
}
"""Ways to search, and what they are called."""

BATCH = 64


@dataclass(frozen=True, eq=False)
class Held:
    """Rows of a store to fit probes to, and rows that the model has not seen.

    Attributes:
        store: all of it is the gallery.
        fit: rows of the training and validation parts of the split.
        test: rows of the test part of molecules that were seen neither in training nor in validation.
        left_out: test rows that are not among them.
        sentence: what the test part before that has in common with the training.
    """

    store: Store
    fit: Rows
    test: Rows
    left_out: int
    sentence: str

    @classmethod
    def of(cls, path: Path, data: DataConfig) -> Held:
        """Split a store, and leave out of its test part what the model at a path has seen.

        Raises:
            MismatchError: nothing is left of it.
        """
        selection = Selection.of(data)
        store, seen = selection.store, seen_by(path)
        fit = np.sort(np.concatenate([selection.train, selection.val]))
        identities = np.array(store.identities, dtype=object)
        is_new = seen.flags_of(hashes_of(identities[selection.test])) == 0
        is_new &= ~np.isin(identities[selection.test].astype(str), identities[fit].astype(str))
        sentence = exposure(store, selection.test, seen).said_of("training")
        if not is_new.any():
            raise MismatchError(f"{data.store}: no test molecule is new to {path}: {sentence}")
        return cls(store, fit, selection.test[is_new], int((~is_new).sum()), sentence)


def assess_representation(
    path: str | Path,
    out: str | Path | None = None,
    kinds: Sequence[str] = KINDS,
    *,
    store: str | None = None,
    device: str = "cpu",
    checkpoint: Literal["best", "last"] = "best",
) -> dict[str, Any]:
    """Test a model's embeddings and write `representation.json`; the model's weights stay as they are.

    Earlier results of this kind are replaced, so ask at once for all that is to be kept or reported.

    Args:
        path: a run, a checkpoint, or the name of a shipped model.
        out: directory of the results; None takes that of the run.
        kinds: of `KINDS`: probes of every property of the store, see `probes`; recall by the size of the
            gallery, see `recall_by_size`; alignment and uniformity, see `hypersphere`; searches with each
            kind of spectrum, disturbed, among all structures of the store, see `disturbances`.
        store: None takes the one that the run names. A run's own split is used, else the default one by
            identity; molecules that were seen in training or validation are not tested.
        device: where to compute.
        checkpoint: of a run, the weights with the lowest validation loss, or the newest.

    Returns:
        What the file holds.

    Raises:
        InputError: no such model or store, no directory or store where one is needed, a store without what
            is asked for, or one whose molecules were all seen.
    """
    began = time.perf_counter()
    unknown = set(kinds) - set(KINDS)
    if unknown or not kinds:
        raise SettingError(f"kinds: any of {', '.join(KINDS)}, not {', '.join(sorted(unknown)) or 'none'}")
    path = Path(path)
    is_run = (path / "record.json").is_file() and (path / "config.json").is_file()
    if is_run:
        config = read_run(path)[0].data
        data = config if store is None else dataclasses.replace(config, store=store)
    elif store is None:
        raise SettingError(f"{path}: not a run with a store of its own; name one with --store")
    else:
        data = DataConfig(store=store)
    if out is None and not is_run:
        raise SettingError(f"{path}: not a run directory to keep results in; name one with --out")
    target = path if out is None else Path(out)
    model, about = load_model(path, checkpoint)
    model = moved(model, device)
    if model.spectrum_encoder is None and set(kinds) != {"probes"}:
        raise MismatchError(f"{path}: no spectrum encoder; only --probes can be had of its embeddings")
    directory = find_checkpoint(path, checkpoint)
    held = Held.of(path, data)
    result: dict[str, Any] = {
        "model": str(path),
        "checkpoint": directory.name,
        "store": data.store,
        "hash": held.store.hash,
        "fitted": len(held.fit),
        "tested": len(held.test),
        "left_out": held.left_out,
        "seen": held.sentence,
        "commit": commit(),
        "versions": versions(),
        "machine": machine(),
    }
    if "probes" in kinds:
        result |= _probes(model, held)
    if set(kinds) & {"galleries", "alignment", "disturbances"}:
        names = _modalities(model, held)
        similarity = alignment_similarity(directory, about)
        if "galleries" in kinds:
            result["galleries"] = _galleries(model, held, names, similarity)
        if "alignment" in kinds:
            result["alignment"] = _alignment(model, held, names)
        if "disturbances" in kinds:
            result["disturbances"] = _disturbances(model, held, names, similarity)
    result["seconds"] = round(time.perf_counter() - began, 2)
    result = plain_json(result)
    target.mkdir(parents=True, exist_ok=True)
    write_json(target / RESULT, result)
    return result


def _modalities(model: MolSpectra, held: Held) -> list[str]:
    """Return the modalities that the model reads and some held-out molecule has."""
    assert model.spectrum_encoder is not None
    known = [name for name in model.spectrum_encoder.kinds if name in held.store.metadata.modalities]
    names = [name for name in known if held.store.has(name)[held.test].any()]
    if not names:
        raise NotFoundError(f"{held.store.path}: no held-out molecule has a spectrum that the model reads")
    return names


def _probes(model: MolSpectra, held: Held) -> dict[str, Any]:
    """Probe every property of the store; those that cannot be probed are named with the reason."""
    store = held.store
    quantities = {name: one for name, one in store.metadata.properties.items() if one != SPLIT}
    if not quantities:
        raise NotFoundError(f"{store.path}: no property to probe in it")
    rows = np.concatenate([held.fit, held.test])
    is_test = np.arange(len(rows)) >= len(held.fit)
    features = _features(model, store, rows)
    identities = store.identities
    groups = [identities[row] for row in rows]
    found, skipped = {}, {}
    for name, quantity in quantities.items():
        try:
            one = probe_column(features, store.column(name)[rows], groups, ~is_test, is_test)
        except ValueRangeError as error:
            skipped[name] = str(error)
        else:
            found[name] = asdict(quantity) | one
    return {"probes": found, "not_probed": skipped}


def _features(model: MolSpectra, store: Store, rows: Rows) -> dict[str, Floats]:
    """Return frozen features of rows [n, D] by name: the sum over the atoms, and what a pooled head reads."""
    sums, pooled = [], []
    for start in range(0, len(rows), BATCH):
        batch = on_device(store.batch(rows[start : start + BATCH]), model)
        sums.append(embed_batch(model, batch))
        pooled.append(pooled_batch(model, batch))
    return {"sum": torch.cat(sums).numpy(), "pooled": torch.cat(pooled).numpy()}


def _complete(held: Held, names: Sequence[str]) -> Flags:
    """Return which held-out rows [n] have all of some spectra."""
    return np.logical_and.reduce([held.store.has(name)[held.test] for name in names])


def _galleries(model: MolSpectra, held: Held, modalities: Sequence[str], similarity: str) -> dict[str, Any]:
    """Search every structure of the store by every subset of spectra; recall by the size of the gallery."""
    store = held.store
    gallery = Gallery.of(model, store, np.arange(len(store)), BATCH)
    by_embedding = {}
    for names in subsets(modalities):
        rows = held.test[_complete(held, names)]
        if len(rows):
            found = retrieve(model, store, rows, gallery, names, similarity=similarity, batch_size=BATCH)
            by_embedding[" + ".join(names)] = _by_size(found.among)
    result: dict[str, Any] = {"size": len(gallery), "embedding": by_embedding}
    if model.spectrum_head is not None:
        library = predicted_spectra(model, store, gallery.rows, BATCH)
        used = [name for name in modalities if name in library]
        found_by_prediction = retrieve_by_prediction(library, store, held.test, gallery, used)
        result["prediction"] = {label: _by_size(among) for label, among in found_by_prediction.items()}
    library = floor_spectra(store, held.fit, gallery.rows, modalities)
    used = [name for name in modalities if name in library]
    if used:
        found_by_floor = retrieve_by_prediction(library, store, held.test, gallery, used)
        result["floor"] = {label: _by_size(among) for label, among in found_by_floor.items()}
    return result


def _disturbances(
    model: MolSpectra, held: Held, modalities: Sequence[str], similarity: str
) -> dict[str, list[dict[str, Any]]]:
    """Return a table of searches with disturbed spectra, see `disturbed_retrieval`, by modality."""
    store, found = held.store, {}
    gallery = Gallery.of(model, store, np.arange(len(store)), BATCH)
    libraries = {"floor": floor_spectra(store, held.fit, gallery.rows, modalities)}
    if model.spectrum_head is not None:
        libraries = {"prediction": predicted_spectra(model, store, gallery.rows, BATCH), **libraries}
    for name in modalities:
        settings = typical_preparation(store, held.fit, [name])
        predicted = {method: library for method, library in libraries.items() if name in library}
        found[name] = disturbed_retrieval(
            model,
            store,
            held.test,
            gallery,
            settings,
            [name],
            similarity=similarity,
            batch_size=BATCH,
            predicted=predicted,
        )
    return found


def _by_size(among: AmongPeers) -> dict[str, list[Mapping[str, Any]]]:
    """Return recall by size, by the kind of the gallery."""
    return {kind: [asdict(one) for one in recall_by_size(*ranked)] for kind, ranked in among.items()}


def _alignment(model: MolSpectra, held: Held, modalities: Sequence[str]) -> dict[str, Any]:
    """Return alignment by subset of spectra, and uniformity of spectra and structures of the molecules."""
    found, every = {}, Gallery.of(model, held.store, held.test, BATCH).embeddings
    for names in subsets(modalities):
        has_all = _complete(held, names)
        rows, structures = held.test[has_all], every[torch.from_numpy(has_all)]
        if len(rows) < 2:
            continue
        spectra = embed_spectra(model, held.store, rows, names, BATCH)
        found[" + ".join(names)] = {
            "molecules": len(rows),
            "alignment": hypersphere.alignment(structures, spectra),
            "alignment_of_others": hypersphere.alignment(structures, spectra.roll(1, 0)),
            "uniformity_of_spectra": hypersphere.uniformity(spectra),
            "uniformity_of_structures": hypersphere.uniformity(structures),
        }
    if not found:
        raise NotFoundError(f"{held.store.path}: fewer than two held-out molecules have the same spectra")
    return found
