"""Test of a pre-training run: its losses on held-out molecules, retrieval, and reconstructed spectra."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save

from molspectra.data.atomic import atomic_file
from molspectra.data.store.internal import with_internal
from molspectra.data.store.store import Store
from molspectra.errors import InputError
from molspectra.evaluation.disturbances import disturbed_retrieval, typical_preparation
from molspectra.evaluation.predict import on_device
from molspectra.evaluation.reconstruct import reconstruct, reconstruction_errors
from molspectra.evaluation.retrieval import Gallery, Retrieval, retrieve, subsets
from molspectra.evaluation.subject import Subject, rows_of
from molspectra.objectives.loss import NoiseKey
from molspectra.training.checkpoint import newest, read_resume
from molspectra.training.config import PretrainConfig
from molspectra.training.data import in_order
from molspectra.training.stages import PretrainStage, has_spectrum

MIN_GALLERY = 100
"""A part with fewer different molecules is searched together with the other held-out part."""

RECONSTRUCTED = (0.1, 0.5, 0.9)
"""Which molecules are shown: those at these quantiles of the reconstruction error, best first."""

SEARCHED = (0.25, 0.5, 0.75, 1.0)
"""Which queries are shown: those at these quantiles of the rank, the worst of all last."""


def assess_pretraining(
    subject: Subject, config: PretrainConfig, *, disturbances: bool = False
) -> dict[str, Any]:
    """Losses; for stage 2 also retrieval and reconstruction, with their files.

    Args:
        subject: the run.
        config: its settings.
        disturbances: also search with disturbed spectra.

    Raises:
        InputError: `disturbances` for a run without a spectrum encoder.
    """
    if disturbances and not config.model.spectrum_encoder:
        raise InputError(f"{subject.directory}: only a stage-2 run is searched with disturbed spectra")
    stage = PretrainStage(subject.model, config)
    _restore_normaliser(subject, stage)
    found, no_skill = _losses(subject, stage)
    result: dict[str, Any] = {"losses": found, "no_skill": no_skill}
    if stage.reconstruction is None:
        return result
    store, rows, batch_size = subject.selection.store, subject.rows, subject.batch_size
    errors = reconstruction_errors(subject.model, store, rows, stage.reconstruction, batch_size)
    no_skill |= {f"reconstruction_{name}": value for name, value in errors.flat.items()}
    known = np.flatnonzero(~np.isnan(errors.per_row))
    places = known[at_quantiles(errors.per_row[known], RECONSTRUCTED)]
    result["mask_ratio"] = config.reconstruction.mask_ratio
    result["reconstructed"] = [
        {
            **about(store, int(rows[place])),
            "error": float(errors.per_row[place]),
            "chosen": f"{quantile:.0%} of the molecules have a smaller error",
        }
        for place, quantile in zip(places, RECONSTRUCTED, strict=True)
    ]
    arrays: dict[str, npt.NDArray[Any]] = {}
    for number, place in enumerate(places):
        for name, spectrum in reconstruct(
            subject.model, store, int(rows[place]), stage.reconstruction
        ).items():
            arrays[f"{number}.{name}.values"] = spectrum.values
            arrays[f"{number}.{name}.mask"] = spectrum.mask
            arrays[f"{number}.{name}.predicted"] = spectrum.predicted
    with atomic_file(subject.file("reconstruction", ".safetensors")) as file:
        file.write(save(arrays))
    gallery, parts = _gallery(subject)
    result["retrieval"] = _retrieval(subject, config, stage.modalities, gallery, parts)
    if disturbances:
        result["disturbances"] = _disturbances(subject, config, stage.modalities, gallery)
    return result


def _restore_normaliser(subject: Subject, stage: PretrainStage) -> None:
    """The running statistics of the noise belong to the run's state, not to the model."""
    normaliser = stage.denoising.normaliser
    if normaliser is None:
        return
    state = read_resume(newest(subject.directory / "checkpoints") or subject.directory)["stage"]
    own = {name: state[f"denoising.normaliser.{name}"] for name in normaliser.state_dict()}
    normaliser.load_state_dict(own)


@torch.no_grad()
def _losses(subject: Subject, stage: PretrainStage) -> tuple[dict[str, float], dict[str, float]]:
    """Mean losses with fixed noise, and those of a model that has learnt nothing.

    That is: zero noise predicted, and all pairs of a batch equally likely. The losses of the alignment are
    means over batches of the run's batch size (the last one may be smaller).
    """
    stage.eval().to(next(subject.model.parameters()).device)
    sums: dict[str, list[float]] = {}
    nothing = dict.fromkeys((*stage.denoising.losses, "alignment"), 0.0)
    store, rows = subject.selection.store, subject.rows
    store = with_internal(store) if stage.internal else store
    for micro in in_order(store, rows, subject.batch_size, stage.modalities):
        batch = on_device(micro.batch, subject.model)
        key = NoiseKey(micro.key.seed, micro.key.epoch.to(batch.ptr.device))
        for name, loss in stage(batch, key).items():
            total = sums.setdefault(name, [0.0, 0.0])
            total[0] += float(loss.sum)
            total[1] += loss.count
        noised = stage.denoising.perturb(batch, key)
        zero = torch.zeros_like(noised.target)
        for name, loss in stage.denoising(dict.fromkeys(stage.denoising.losses, zero), noised).items():
            nothing[name] += float(loss.sum)
        pairs = int(has_spectrum(batch).sum()) if batch.present else 0
        nothing["alignment"] += pairs * math.log(max(pairs, 1))
    means = {name: total / count for name, (total, count) in sums.items() if count}
    weights = stage.weights()
    means = {"loss": sum(weights[name] * value for name, value in means.items()), **means}
    return means, {name: value / sums[name][1] for name, value in nothing.items() if name in means}


def _gallery(subject: Subject) -> tuple[Gallery, list[str]]:
    """The structures to search in, and the parts of the split that they are from."""
    parts = [subject.part]
    identities = subject.selection.store.identities
    if subject.part != "train" and len({identities[row] for row in subject.rows}) < MIN_GALLERY:
        parts.append("val" if subject.part == "test" else "test")
    searched = np.concatenate([rows_of(subject.selection, part) for part in parts])
    return Gallery.of(subject.model, subject.selection.store, searched, subject.batch_size), parts


def _disturbances(
    subject: Subject, config: PretrainConfig, modalities: Sequence[str], gallery: Gallery
) -> dict[str, Any]:
    """Search with disturbed spectra: the table, and the pipeline that prepared them."""
    store, rows = subject.selection.store, subject.rows
    used = [name for name in modalities if store.has(name)[rows].any()] or modalities
    settings = typical_preparation(store, subject.selection.train, used)
    found = disturbed_retrieval(
        subject.model, store, rows, gallery, settings, used,
        similarity=config.alignment.similarity, batch_size=subject.batch_size,
    )  # fmt: skip
    pipeline = {name: asdict(each) for name, each in settings.items()}
    return {"gallery_size": len(gallery), "modalities": list(used), "preparation": pipeline, "table": found}


def _retrieval(
    subject: Subject, config: PretrainConfig, modalities: Sequence[str], gallery: Gallery, parts: list[str]
) -> dict[str, Any]:
    """Search with every subset of the spectra; tables, and a few examples with all of them."""
    store, rows, batch_size = subject.selection.store, subject.rows, subject.batch_size
    used = [name for name in modalities if store.has(name)[rows].any()] or modalities
    similarity = config.alignment.similarity
    found = [
        retrieve(subject.model, store, rows, gallery, names, similarity=similarity, batch_size=batch_size)
        for names in subsets(used)
    ]
    main = found[-1]
    _write_ranks(subject.file("retrieval", ".csv"), main)
    return {
        "gallery_size": len(gallery),
        "gallery_parts": parts,
        "similarity": similarity,
        "ties": "count against the query",
        "modalities": list(main.modalities),
        "without_spectrum": main.without_spectrum,
        **_figures(main),
        "subsets": {" + ".join(each.modalities): _figures(each) for each in found},
        "chosen": "queries at the quartiles of the rank, and last the one that was found worst of all",
        "examples": [
            _example(store, main, int(place)) for place in at_quantiles(main.rank.numpy(), SEARCHED)
        ],
    }


def _figures(found: Retrieval) -> dict[str, Any]:
    """Figures among all molecules, and under "isomers" among those of the query's formula."""
    isomers = found.isomer_figures()
    return {**asdict(found.figures()), "isomers": None if isomers is None else asdict(isomers)}


def _write_ranks(path: Path, found: Retrieval) -> None:
    """One line per query: its rank among all and among its isomers."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("row", "identity", "rank", "similarity", "isomers", "isomer_rank"))
    columns = (found.rows, found.identities, found.rank, found.own_score, found.isomers, found.isomer_rank)
    for row, identity, rank, score, isomers, isomer_rank in zip(*columns, strict=True):
        writer.writerow((int(row), identity, int(rank), f"{score:.6f}", int(isomers), int(isomer_rank)))
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())


def read_ranks(path: Path) -> npt.NDArray[np.int64]:
    """Ranks [Q] of a `retrieval.csv`.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            ranks = [int(row["rank"]) for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(f"{path}: not a table of ranks ({error}); evaluate the run again") from error
    return np.array(ranks, dtype=np.int64)


def _example(store: Store, found: Retrieval, place: int) -> dict[str, Any]:
    """A query with its best candidates."""
    identities = store.identities
    candidates = [
        {**about(store, int(row)), "score": float(score), "true": identities[row] == found.identities[place]}
        for row, score in zip(found.best_rows[place], found.best_scores[place], strict=True)
    ]
    return {
        **about(store, int(found.rows[place])),
        "rank": int(found.rank[place]),
        "score": float(found.own_score[place]),
        "candidates": candidates,
    }


def about(store: Store, row: int) -> dict[str, Any]:
    """What a reader wants to know of a molecule."""
    molecule = store.molecule(row)
    return {
        "row": row,
        "identity": store.identities[row],
        "name": molecule.name,
        "smiles": molecule.smiles,
        "formula": molecule.formula,
    }


def at_quantiles(values: npt.NDArray[Any], quantiles: Sequence[float]) -> npt.NDArray[np.int64]:
    """Places of the values at the given quantiles, in ascending order of value (equal ones by place)."""
    order = np.argsort(values, kind="stable")
    return np.asarray(order[[round(quantile * (len(order) - 1)) for quantile in quantiles]])
