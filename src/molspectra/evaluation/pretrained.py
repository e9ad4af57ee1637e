"""Test of a pre-training run: its losses on held-out molecules, retrieval, and reconstructed spectra."""

from __future__ import annotations

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
from molspectra.evaluation.csv_tables import read_table, write_table
from molspectra.evaluation.disturbances import disturbed_retrieval, typical_preparation
from molspectra.evaluation.predict import on_device
from molspectra.evaluation.predicted_retrieval import predicted_spectra, retrieve_by_prediction
from molspectra.evaluation.reconstruct import reconstruct, reconstruction_errors
from molspectra.evaluation.retrieval import Gallery, Retrieval, figures_of, retrieve, subsets
from molspectra.evaluation.subject import Subject, rows_of
from molspectra.objectives.loss import NoiseKey
from molspectra.objectives.reconstruction import MaskedReconstruction
from molspectra.training.checkpoint import find_checkpoint, read_resume
from molspectra.training.config import PretrainConfig
from molspectra.training.data import in_order
from molspectra.training.stages import PretrainStage, has_spectrum

MIN_GALLERY = 100
"""The gallery of a part with fewer different molecules also gets the other held-out part."""

RECONSTRUCTED = (0.1, 0.5, 0.9)
"""Quantiles of the reconstruction error whose molecules are shown, best first."""

SEARCHED = (0.25, 0.5, 0.75, 1.0)
"""Quantiles of the rank whose queries are shown, the worst last."""


def assess_pretraining(
    subject: Subject, config: PretrainConfig, *, disturbances: bool = False
) -> dict[str, Any]:
    """Compute the losses; for stage 2 also retrieval (on request with disturbances) and reconstruction."""
    stage = PretrainStage(subject.model, config)
    _restore_normaliser(subject, stage)
    losses, no_skill = _losses(subject, stage)
    result: dict[str, Any] = {"losses": losses, "no_skill": no_skill}
    if stage.reconstructs and stage.reconstruction is not None:
        result |= _reconstruction(subject, config, stage.reconstruction, no_skill)
    if not (stage.aligns or stage.predicts_spectra):
        return result
    gallery, parts = _gallery(subject)
    if stage.aligns:
        result["retrieval"] = _retrieval(subject, config, stage.modalities, gallery, parts)
    if stage.predicts_spectra:
        result["predicted_retrieval"] = _predicted_retrieval(subject, stage.modalities, gallery)
    if disturbances:
        result["disturbances"] = _disturbances(subject, config, stage.modalities, gallery)
    return result


def _reconstruction(
    subject: Subject, config: PretrainConfig, objective: MaskedReconstruction, no_skill: dict[str, float]
) -> dict[str, Any]:
    """Return molecules with their masked patches; adds the losses of a constant to those without skill."""
    errors = reconstruction_errors(
        subject.model, subject.selection.store, subject.rows, objective, subject.batch_size
    )
    no_skill |= {f"reconstruction_{name}": value for name, value in errors.flat.items()}
    return {
        "mask_ratio": config.reconstruction.mask_ratio,
        "reconstructed": _reconstructed(subject, objective, errors.per_row),
    }


def _restore_normaliser(subject: Subject, stage: PretrainStage) -> None:
    """Load the running statistics of the noise, which are saved with the run's state, not with the model."""
    normaliser = stage.denoising.normaliser
    if normaliser is None:
        return
    state = read_resume(find_checkpoint(subject.directory, "last"))["stage"]
    normaliser.load_state_dict(
        {name: state[f"denoising.normaliser.{name}"] for name in normaliser.state_dict()}
    )


@torch.no_grad()
def _losses(subject: Subject, stage: PretrainStage) -> tuple[dict[str, float], dict[str, float]]:
    """Compute the mean losses with fixed noise, and those of a model without skill.

    Such a model predicts zero noise, and all pairs of a batch are equally likely to it. Alignment losses are
    means over batches of the run's batch size (the last one may be smaller).
    """
    stage.eval().to(next(subject.model.parameters()).device)
    sums: dict[str, list[float]] = {}
    no_skill = dict.fromkeys((*stage.denoising.losses, "alignment"), 0.0)
    store, rows = subject.selection.store, subject.rows
    store = with_internal(store) if stage.internal else store
    for micro in in_order(store, rows, subject.batch_size, stage.modalities):
        batch = on_device(micro.batch, subject.model)
        key = NoiseKey(micro.key.seed, micro.key.epoch.to(batch.ptr.device))
        for name, loss in stage(batch, key).items():
            total = sums.setdefault(name, [0.0, 0.0])
            total[0] += float(loss.sum)
            total[1] += float(loss.count)
        if stage.denoises:
            noised = stage.denoising.perturb(batch, key)
            zero = torch.zeros_like(noised.target)
            for name, loss in stage.denoising(dict.fromkeys(stage.denoising.losses, zero), noised).items():
                no_skill[name] += float(loss.sum)
        pairs = int(has_spectrum(batch).sum()) if batch.present else 0
        no_skill["alignment"] += pairs * math.log(max(pairs, 1))
    means = {name: total / count for name, (total, count) in sums.items() if count}
    weights = stage.weights()
    means = {"loss": sum(weights[name] * value for name, value in means.items()), **means}
    return means, {name: value / sums[name][1] for name, value in no_skill.items() if name in means}


def _reconstructed(
    subject: Subject, objective: MaskedReconstruction, errors: npt.NDArray[np.float64]
) -> list[dict[str, Any]]:
    """Choose molecules by their reconstruction errors [n], write their spectra, and return their facts."""
    store, rows = subject.selection.store, subject.rows
    known = np.flatnonzero(~np.isnan(errors))
    shown = known[at_quantiles(errors[known], RECONSTRUCTED)]
    arrays: dict[str, npt.NDArray[Any]] = {}
    for number, index in enumerate(shown):
        spectra = reconstruct(subject.model, store, int(rows[index]), objective)
        for name, spectrum in spectra.items():
            arrays[f"{number}.{name}.values"] = spectrum.values
            arrays[f"{number}.{name}.mask"] = spectrum.mask
            arrays[f"{number}.{name}.predicted"] = spectrum.predicted
    with atomic_file(subject.file("reconstruction", ".safetensors")) as file:
        file.write(save(arrays))
    return [
        {
            **about(store, int(rows[index])),
            "error": float(errors[index]),
            "chosen": f"{quantile:.0%} of the molecules have a smaller error",
        }
        for index, quantile in zip(shown, RECONSTRUCTED, strict=True)
    ]


def _gallery(subject: Subject) -> tuple[Gallery, list[str]]:
    """Return the structures to search in, and the parts of the split that they are from."""
    parts = [subject.part]
    identities = subject.selection.store.identities
    if subject.part != "train" and len({identities[row] for row in subject.rows}) < MIN_GALLERY:
        parts.append("val" if subject.part == "test" else "test")
    rows = np.concatenate([rows_of(subject.selection, part) for part in parts])
    return Gallery.of(subject.model, subject.selection.store, rows, subject.batch_size), parts


def _disturbances(
    subject: Subject, config: PretrainConfig, modalities: Sequence[str], gallery: Gallery
) -> dict[str, Any]:
    """Search with disturbed spectra; return the table and the settings of the pipeline."""
    store, rows = subject.selection.store, subject.rows
    used = _modalities_of(store, rows, modalities)
    settings = typical_preparation(store, subject.selection.train, used)
    table = disturbed_retrieval(
        subject.model, store, rows, gallery, settings, used,
        similarity=config.alignment.similarity, batch_size=subject.batch_size,
    )  # fmt: skip
    return {
        "gallery_size": len(gallery),
        "modalities": list(used),
        "preparation": {name: asdict(preparation) for name, preparation in settings.items()},
        "table": table,
    }


def _modalities_of(store: Store, rows: npt.NDArray[np.int64], modalities: Sequence[str]) -> Sequence[str]:
    """Return the modalities that at least one of the rows has; all where none has any."""
    return [name for name in modalities if store.has(name)[rows].any()] or modalities


def _retrieval(
    subject: Subject, config: PretrainConfig, modalities: Sequence[str], gallery: Gallery, parts: list[str]
) -> dict[str, Any]:
    """Search with every subset of the modalities; return the figures, and examples with most of them.

    The queries of a subset are the molecules that have all of its spectra; a subset without any is left out.
    """
    store, rows, batch_size = subject.selection.store, subject.rows, subject.batch_size
    similarity = config.alignment.similarity
    searches = []
    for names in subsets(_modalities_of(store, rows, modalities)):
        complete = rows[np.stack([store.has(name)[rows] for name in names]).all(0)]
        if len(complete) or len(names) == 1:
            search = retrieve(
                subject.model, store, complete, gallery, names, similarity=similarity, batch_size=batch_size
            )
            searches.append(search)
    main = searches[-1]
    _write_ranks(subject.file("retrieval", ".csv"), main)
    return {
        "gallery_size": len(gallery),
        "gallery_parts": parts,
        "similarity": similarity,
        "ties": "count against the query",
        "modalities": list(main.modalities),
        "without_spectrum": len(rows) - len(main.rows),
        **figures_of(main.among),
        "subsets": {" + ".join(search.modalities): figures_of(search.among) for search in searches},
        "chosen": "queries at the quartiles of the rank, and last the one that was found worst of all",
        "examples": [
            _example(store, main, int(query)) for query in at_quantiles(main.rank.numpy(), SEARCHED)
        ],
    }


def _predicted_retrieval(subject: Subject, modalities: Sequence[str], gallery: Gallery) -> dict[str, Any]:
    """Search with every subset of the modalities among the spectra predicted for the gallery."""
    store, rows = subject.selection.store, subject.rows
    library = predicted_spectra(subject.model, store, gallery.rows, subject.batch_size)
    used = _modalities_of(store, rows, modalities)
    return {
        "gallery_size": len(gallery),
        "subsets": {
            label: figures_of(among)
            for label, among in retrieve_by_prediction(library, store, rows, gallery, used).items()
        },
    }


def _write_ranks(path: Path, search: Retrieval) -> None:
    """Write one row per query: its rank among all and among its isomers."""
    header = ("row", "identity", "rank", "similarity", "isomers", "isomer_rank")
    columns = (
        search.rows.tolist(),
        search.identities,
        search.rank.tolist(),
        [f"{score:.6f}" for score in search.own_score],
        search.isomers.tolist(),
        search.isomer_rank.tolist(),
    )
    write_table(path, header, zip(*columns, strict=True))


def read_ranks(path: Path) -> npt.NDArray[np.int64]:
    """Read the ranks [Q] of a `retrieval.csv`.

    Raises:
        FormatError: the file is missing or damaged.
    """
    with read_table(path, "ranks") as rows:
        return np.array([int(row["rank"]) for row in rows], dtype=np.int64)


def _example(store: Store, search: Retrieval, query: int) -> dict[str, Any]:
    """Return a query with its best candidates."""
    identities = store.identities
    candidates = [
        {**about(store, int(row)), "score": float(score), "true": identities[row] == search.identities[query]}
        for row, score in zip(search.best_rows[query], search.best_scores[query], strict=True)
    ]
    return {
        **about(store, int(search.rows[query])),
        "rank": int(search.rank[query]),
        "score": float(search.own_score[query]),
        "candidates": candidates,
    }


def about(store: Store, row: int) -> dict[str, Any]:
    """Return row, identity, name, SMILES and formula of a molecule."""
    molecule = store.molecule(row)
    return {
        "row": row,
        "identity": store.identities[row],
        "name": molecule.name,
        "smiles": molecule.smiles,
        "formula": molecule.formula,
    }


def at_quantiles(values: npt.NDArray[Any], quantiles: Sequence[float]) -> npt.NDArray[np.int64]:
    """Return the indices of the values at the given quantiles; equal values are ordered by index."""
    order = np.argsort(values, kind="stable")
    return np.asarray(order[[round(quantile * (len(order) - 1)) for quantile in quantiles]])
