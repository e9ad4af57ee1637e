"""Molecules and spectra as vectors that can be compared with each other."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch.nn import functional

from molspectra._version import __version__
from molspectra.apps.loading import LoadedModel, loaded
from molspectra.apps.molecules import (
    Built,
    Molecules,
    OnError,
    Policy,
    batches,
    given_molecules,
    identity_columns,
)
from molspectra.apps.tables import (
    frame_of,
    free_path,
    table_of,
    vectors_of,
    write_csv,
    write_npy,
    write_parquet,
)
from molspectra.chem.readers import Rejection
from molspectra.data.batch import batch_of
from molspectra.errors import InputError
from molspectra.evaluation.predict import moved, on_device

SUFFIXES = (".parquet", ".csv", ".npy")
"""Files that embeddings can be written to."""

Length = Literal["auto", "unit", "raw"]
"""How long an embedding is: see `embed`."""


@dataclass(frozen=True, eq=False, repr=False)
class Embeddings:
    """Vectors of n molecules or samples.

    Attributes:
        vectors: [n, D] float32.
        columns: what tells which they are, by name, n texts (or None) each.
        about: model, kind ("structure" or "spectrum"), length ("unit" or "raw"), version.
        rejected: what was left out, each with the reason.
    """

    vectors: npt.NDArray[np.float32]
    columns: Mapping[str, list[str | None]]
    about: Mapping[str, str]
    rejected: tuple[Rejection, ...] = ()

    def __len__(self) -> int:
        return len(self.vectors)

    def __repr__(self) -> str:
        """Return a short description for people."""
        shape, facts = self.vectors.shape, self.about
        left = f", {len(self.rejected)} left out" if self.rejected else ""
        return f"Embeddings({shape[0]} of a {facts['kind']}, length {shape[1]}, {facts['length']}{left})"

    def table(self) -> pa.Table:
        """The columns and `embedding`, a list of D numbers, as an Arrow table."""
        return table_of({**self.columns, "embedding": vectors_of(self.vectors)}, self.about)

    def frame(self) -> Any:
        """The same as a pandas frame.

        Raises:
            InputError: pandas is not installed.
        """
        return frame_of(self.table())

    def save(self, out: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write a file: `.parquet` (as `table`), `.csv` (a column per component), or `.npy`.

        Beside a `.npy` file, which holds the vectors alone, a table `NAME.columns.csv` tells which they are.

        Raises:
            InputError: another suffix, a file that exists, or one that cannot be written.
        """
        path = free_path(out, SUFFIXES, overwrite)
        if path.suffix.lower() == ".parquet":
            write_parquet(self.table(), path)
        elif path.suffix.lower() == ".npy":
            write_npy(self.vectors, table_of(self.columns, self.about), path)
        else:
            components = {f"e{place}": self.vectors[:, place] for place in range(self.vectors.shape[1])}
            write_csv(table_of({**self.columns, **components}, self.about), path)


def embed(
    molecules: Molecules,
    model: str | os.PathLike[str] | LoadedModel = "small",
    *,
    length: Length = "auto",
    batch_size: int = 64,
    device: str = "cpu",
    on_error: OnError = "raise",
    smiles: str = "smiles",
    show: bool = False,
) -> Embeddings:
    """Embed structures: Σ_i x_i over the atoms, which the alignment compares with spectra.

    Args:
        molecules: a file (SMILES, CSV, SDF, XYZ, extxyz, Parquet, store), a `Store`, a list of SMILES and
            `Molecule`s, or a frame with a column of SMILES. SMILES get the conformer of `from_smiles`.
        model: see `load`.
        length: "raw" sums as they are; "unit" divides each by its Euclidean norm; "auto" is what the model's
            alignment compares, so that a scalar product of structure and spectrum is its score: "unit" for
            cosine similarity (the default of training), else "raw".
        batch_size: molecules per pass; results depend on it by rounding only.
        device: where to compute; a loaded model moves there.
        on_error: "raise" stops at the first bad molecule, "skip" lists it in `rejected`.
        smiles: column of a frame with SMILES.
        show: progress on standard error.

    Raises:
        InputError: no such model or file, a bad molecule, an element that the model was not trained on, or
            no molecule that could be embedded.
    """
    ready, policy = loaded(model), Policy(on_error)
    way = chosen_length(ready, length)
    given, total = given_molecules(molecules, smiles)
    net = moved(ready.model, device).eval()
    kept: list[Built] = []
    vectors: list[npt.NDArray[np.float32]] = []
    for block in batches(given, total, batch_size, policy, elements=ready.elements, title="embed", show=show):
        with torch.no_grad():
            found = net.embed(on_device(batch_of([each.molecule for each in block], torch.float64), net))
        rows, places = finished(found, way, policy, [(each.path, each.where) for each in block])
        kept += [block[place] for place in places]
        vectors.append(rows)
    return gathered(vectors, identity_columns(kept), ready, "structure", way, policy)


def finished(
    found: torch.Tensor, length: str, policy: Policy, origins: Sequence[tuple[str, str]]
) -> tuple[npt.NDArray[np.float32], list[int]]:
    """Vectors [k, D] of the given length, and their places among those found [B, D].

    Args:
        found: what a model makes of a batch.
        length: "unit" or "raw".
        policy: for vectors that are not finite.
        origins: file and place of each of the B.

    Raises:
        InputError: a vector that is not finite, where the policy says so.
    """
    wide = found.double().cpu()
    wide = functional.normalize(wide, dim=1) if length == "unit" else wide
    good = wide.isfinite().all(1)
    for place in (~good).nonzero().flatten().tolist():
        path, where = origins[place]
        policy.refuse(path, where, "its embedding is not finite")
    return wide[good].float().numpy(), good.nonzero().flatten().tolist()


def chosen_length(ready: LoadedModel, length: Length) -> str:
    """How long the embeddings of a model are: "unit" or "raw".

    Raises:
        InputError: another word than "auto", "unit" or "raw".
    """
    if length not in ("auto", "unit", "raw"):
        raise InputError(f"length must be auto, unit or raw, not {length!r}")
    if length != "auto":
        return length
    return "unit" if ready.similarity == "cosine" else "raw"


def gathered(
    vectors: Sequence[npt.NDArray[np.float32]],
    columns: Mapping[str, list[str | None]],
    ready: LoadedModel,
    kind: str,
    length: str,
    policy: Policy,
) -> Embeddings:
    """The embeddings of all batches.

    Raises:
        InputError: there are none.
    """
    if not sum(map(len, vectors)):
        first = policy.rejected[0] if policy.rejected else "nothing was given"
        raise InputError(f"nothing could be embedded: {first}")
    about = {"model": ready.name, "kind": kind, "length": length, "molspectra": __version__}
    return Embeddings(np.concatenate(vectors), columns, about, tuple(policy.rejected))
