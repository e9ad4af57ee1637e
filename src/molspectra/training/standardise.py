"""Statistics of the training rows for the property head: atom references, mean and standard deviation."""

from collections.abc import Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import logit

from molspectra.chem.elements import MAX_ATOMIC_NUMBER, SYMBOLS
from molspectra.data.store.store import Store
from molspectra.errors import ElementError
from molspectra.models.config import COMPONENTS, AtomReferences
from molspectra.models.model import MolSpectra, property_heads
from molspectra.training.data import CHUNK, Rows, Selection
from molspectra.training.targets import published_references

Floats = npt.NDArray[np.float64]


def standardise(model: MolSpectra, selection: Selection, targets: Sequence[str]) -> None:
    """Set references, mean and standard deviation of a model's heads from the training rows with a label.

    The head of a class gets the log-odds of the base rate as its mean. No direction is special, so that of a
    vector has the root mean square of all components as its standard deviation, and that of a tensor the same
    after a third of its mean trace is taken off, which is its mean.

    Args:
        model: has one head per property.
        selection: store and rows.
        targets: columns of the store, in the order of the heads; several for a vector or a tensor.

    Raises:
        ElementError: published references that do not cover the elements of the rows.
    """
    store, columns = selection.store, iter(targets)
    for head, settings in zip(model.property_heads, property_heads(model.config), strict=True):
        if head.kind in COMPONENTS:
            names = list(islice(columns, head.width))
            components = np.stack([store.column(name)[selection.train] for name in names], axis=1)
            mean = float(np.nanmean(components[:, :3])) if head.kind == "tensor" else 0.0
            trace = np.array([mean] * 3 + [0.0] * (head.width - 3))
            head.standardise(mean, float(np.sqrt(np.nanmean(np.square(components - trace)))))
            continue
        target = next(columns)
        rows = selection.labelled_rows(target)
        values = store.column(target)[rows]
        if head.kind == "binary":  # log-odds: at first the base rate is predicted
            head.standardise(float(logit(values.mean())), 1.0)
            continue
        if head.references is not None:
            counts = compositions(store, rows)
            references = atom_references(settings.atom_references, store, target, counts, values)
            head.references.copy_(torch.from_numpy(references))
            values = values - counts @ references
        head.standardise(float(values.mean()), float(values.std()))


def compositions(store: Store, rows: Rows) -> Floats:
    """Count the atoms of every element in the given rows: [n, 119] by atomic number."""
    width = MAX_ATOMIC_NUMBER + 1
    counts = np.zeros((len(rows), width))
    for start in range(0, len(rows), CHUNK):
        batch = store.batch(rows[start : start + CHUNK])
        cell = batch.molecule * width + batch.numbers
        cell_counts = torch.bincount(cell, minlength=len(batch) * width)
        counts[start : start + len(batch)] = cell_counts.reshape(-1, width).numpy()
    return counts


def atom_references(
    kind: AtomReferences, store: Store, target: str, counts: Floats, values: Floats
) -> Floats:
    """Return the energy of every element, [119] in the unit of the target; 0 for elements that do not occur.

    Args:
        kind: "fit" for the least-squares solution of smallest norm of counts @ energies = values (for the
            frames of one molecule that is their mean energy), or "published".
        store: holds the target.
        target: its column.
        counts: [n, 119] compositions of the training rows.
        values: [n] of the target.

    Raises:
        ElementError: an element without a published energy.
    """
    energies = np.zeros(counts.shape[1])
    present = np.flatnonzero(counts.any(0))
    if kind == "published":
        known = published_references(target, store.metadata.properties[target].unit)
        energies[list(known)] = list(known.values())
        missing = [SYMBOLS[number] for number in present if number not in known]
        if missing:
            raise ElementError(
                f"{store.path}: no published energy of {', '.join(missing)}; set model.atom_references: fit"
            )
        return energies
    energies[present] = np.linalg.lstsq(counts[:, present], values, rcond=None)[0]
    return energies
