"""Molecules and spectra as vectors that can be compared with each other."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from molspectra._version import __version__
from molspectra.apps.loading import LoadedModel, load, loaded
from molspectra.apps.molecules import (
    Candidate,
    CheckedMolecule,
    Molecules,
    candidate_batches,
    checked_batches,
    identity_columns,
    usable_of,
)
from molspectra.apps.tables import Tabular, table_of, write_rejected
from molspectra.chem.readers import ErrorPolicy, OnError, Rejection
from molspectra.data.atomic import atomic_files, naming
from molspectra.data.batch import Batch
from molspectra.data.output import free_path, vectors_in, vectors_of, write_table
from molspectra.errors import MismatchError, SettingError, ValueRangeError
from molspectra.evaluation.embedding import batch_on_device, comparable, embed_batch, pooled_batch
from molspectra.evaluation.predict import moved
from molspectra.evaluation.shared_batches import Work, shared_batches
from molspectra.models.model import MolSpectra
from molspectra.workers.executors import Executor

SUFFIXES = (".parquet", ".csv", ".npy")
"""Files that embeddings can be written to."""

Length = Literal["auto", "unit", "raw"]
"""Whether embeddings are scaled to length 1: see `embed`."""


@dataclass(frozen=True, eq=False, repr=False)
class Embeddings(Tabular):
    """Vectors of n molecules or samples.

    Attributes:
        vectors: [n, D] float32.
        columns: source, identity and so on of each, by name [n].
        about: model, kind ("structure", "pooled structure" or "spectrum"), length ("unit" or "raw"), version.
        rejected: molecules or samples that were left out, with the reason.
    """

    vectors: npt.NDArray[np.float32]
    columns: Mapping[str, list[str | None]]
    about: Mapping[str, str]
    rejected: tuple[Rejection, ...] = ()

    def __len__(self) -> int:
        return len(self.vectors)

    def __repr__(self) -> str:
        """Return a short description for people."""
        n, width = self.vectors.shape
        left_out = f", {len(self.rejected)} left out" if self.rejected else ""
        return f"Embeddings({n} of a {self.about['kind']}, length {width}, {self.about['length']}{left_out})"

    def table(self) -> pa.Table:
        """The columns and `embedding`, a list of D numbers, as an Arrow table."""
        return table_of({**self.columns, "embedding": vectors_of(self.vectors)}, self.about)

    def save(self, out: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write a file: `.parquet` (as `table`), `.csv` (a column per component), or `.npy`.

        Beside a `.npy` file, which holds only the vectors, the table `NAME.columns.csv` has the columns.
        What was left out is listed in `FILE.rejected.jsonl`.

        Raises:
            InputError: another suffix, a file that exists, or one that cannot be written.
        """
        path, beside = free_paths(out, overwrite=overwrite)
        if path.suffix.lower() == ".parquet":
            write_table(self.table(), path)
        elif path.suffix.lower() == ".csv":
            components = {f"e{number}": column for number, column in enumerate(self.vectors.T)}
            write_table(table_of({**self.columns, **components}, self.about), path)
        else:
            from pyarrow.csv import write_csv

            with atomic_files(beside, path) as (table_file, file):
                write_csv(table_of(self.columns, self.about), table_file)
                with naming(path):
                    np.save(file, self.vectors, allow_pickle=False)
        write_rejected(path, self.rejected)


def free_paths(out: str | os.PathLike[str], *, overwrite: bool = False) -> tuple[Path, Path]:
    """The path of a file for embeddings, and of the table beside it that a `.npy` file needs.

    Raises:
        InputError: another suffix, a file that exists, or no such directory.
    """
    path = free_path(out, SUFFIXES, overwrite=overwrite)
    beside = path.with_suffix(".columns.csv")
    if path.suffix.lower() == ".npy":
        free_path(beside, overwrite=overwrite)
    return path, beside


def embed(
    molecules: Molecules,
    model: str | os.PathLike[str] | LoadedModel = "base",
    *,
    pooled: bool = False,
    length: Length = "auto",
    batch_size: int = 64,
    device: str = "cpu",
    on_error: OnError = "raise",
    smiles: str = "smiles",
    show: bool = False,
    executor: Executor | None = None,
    folder: str | os.PathLike[str] = ".",
) -> Embeddings:
    """Embed structures: Σ_i x_i over the atoms, which the alignment compares with spectra.

    Or, with `pooled`, the mean and standard deviation over the atoms of x_i and ‖v_i‖, four times as long:
    the better input of a property model of one's own (see `molspectra.models.heads.pooled_features`).

    Args:
        molecules: a file (SMILES, CSV, SDF, XYZ, extxyz, Parquet, store), a `Store`, a list or column (a
            pandas series) of SMILES, `Molecule`s, RDKit molecules and ASE atoms, or a frame with a column of
            SMILES. SMILES get the conformer of `from_smiles`.
        model: see `load`.
        pooled: statistics instead of sums; they are never compared with spectra.
        length: "raw" sums as they are; "unit" divides each by its Euclidean norm; "auto" is what the model's
            alignment compares, so that a scalar product of structure and spectrum is its score: "unit" for
            cosine similarity (the default of training), else "raw", also where `pooled`.
        batch_size: molecules per pass; results depend on it by rounding only.
        device: where to compute; a loaded model moves there.
        on_error: "raise" stops at the first bad molecule, "skip" lists it in `rejected`.
        smiles: column of a frame with SMILES.
        show: progress on standard error.
        executor: reads the molecules and computes on its workers, which load the model from its directory.
            The result is the same; a molecule that ends its worker again and again is a bad one.
        folder: for the files of the workers, which all of them see; they are gone afterwards.

    Raises:
        InputError: no such model or file, a bad molecule, an element that the model was not trained on, or
            no molecule that could be embedded.
        MolspectraError: the workers do not start, or fail as a whole; or their model is another one.
    """
    model, policy = loaded(model), ErrorPolicy(on_error)
    scaling = scaling_of(model, "raw" if pooled and length == "auto" else length)
    parts: Iterable[_Part]
    if executor is None:
        net = moved(model.model, device).eval()
        parts = (
            _part(net, usable, batch, pooled, scaling, policy)
            for usable, batch in checked_batches(
                molecules, model, policy, batch_size, smiles=smiles, title="embed", show=show
            )
        )
    else:
        path, batches, _ = candidate_batches(molecules, batch_size, smiles)
        opened = partial(
            _open_work, path, model.path.absolute(), _fingerprint(model.model), device, pooled, scaling
        )
        tables = shared_batches(
            executor, Path(folder), path, batches, opened, policy, title="embed", show=show
        )
        parts = map(_part_of, tables)
    columns: dict[str, list[str | None]] = {}
    vectors: list[npt.NDArray[np.float32]] = []
    for more, finite in parts:
        for name, values in more.items():
            columns.setdefault(name, []).extend(values)
        vectors.append(finite)
    return joined(vectors, columns, model, "pooled structure" if pooled else "structure", scaling, policy)


_Part = tuple[dict[str, list[str | None]], npt.NDArray[np.float32]]
"""Columns and vectors [n, D] of some molecules."""


def _part(
    net: MolSpectra,
    usable: Sequence[CheckedMolecule],
    batch: Batch,
    pooled: bool,
    scaling: str,
    policy: ErrorPolicy,
) -> _Part:
    """Embed a batch."""
    embeddings = (pooled_batch if pooled else embed_batch)(net, batch)
    origins = [(molecule.path, molecule.where) for molecule in usable]
    finite, indices = finite_vectors(embeddings, scaling, policy, origins)
    return identity_columns([usable[index] for index in indices]), finite


def _open_work(path: str, directory: Path, fingerprint: str, device: str, pooled: bool, scaling: str) -> Work:
    """Load the model in a worker; molecules of a batch, not yet read, to the table of a `_Part`."""
    model = load(directory)
    if _fingerprint(model.model) != fingerprint:
        raise MismatchError(
            f"{directory}: the model there is not the one that was given; workers load it from there, "
            "so save what you changed and give its directory"
        )
    net = moved(model.model, device).eval()

    def work(candidates: Sequence[Candidate], policy: ErrorPolicy) -> pa.Table | None:
        usable = usable_of(path, candidates, model.elements, policy)
        if not usable:
            return None
        batch = batch_on_device([row.molecule for row in usable], net)
        columns, vectors = _part(net, usable, batch, pooled, scaling, policy)
        return table_of({**columns, "embedding": vectors_of(vectors)}, {})

    return work


def _part_of(table: pa.Table) -> _Part:
    """The part whose table a worker has made."""
    columns = {name: table[name].to_pylist() for name in table.column_names if name != "embedding"}
    return columns, vectors_in(table["embedding"])


def _fingerprint(model: MolSpectra) -> str:
    """SHA-256 of a model's settings and weights, whatever its device."""
    digest = hashlib.sha256(repr(model.config).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def scaling_of(model: LoadedModel, length: Length) -> Literal["unit", "raw"]:
    """The scaling of a model's embeddings, with "auto" resolved.

    Raises:
        SettingError: another word than "auto", "unit" or "raw".
    """
    if length not in ("auto", "unit", "raw"):
        raise SettingError(f"length must be auto, unit or raw, not {length!r}")
    if length != "auto":
        return length
    return "unit" if model.similarity == "cosine" else "raw"


def finite_vectors(
    embeddings: Tensor, scaling: str, policy: ErrorPolicy, origins: Sequence[tuple[str, str]]
) -> tuple[npt.NDArray[np.float32], list[int]]:
    """Scale the embeddings of a batch and reject those that are not finite.

    Args:
        embeddings: [B, D] float64, on the CPU.
        scaling: "unit" or "raw".
        policy: for embeddings that are not finite.
        origins: file and place in it of each of the B.

    Returns:
        The finite vectors [k, D], and their indices [k] in the batch.

    Raises:
        ValueRangeError: a vector that is not finite, where the policy says so.
    """
    vectors, is_finite = comparable(embeddings, unit=scaling == "unit")
    for (path, where), finite in zip(origins, is_finite, strict=True):
        if not finite:
            policy.reject(path, where, ValueRangeError("its embedding is not finite"))
    return vectors[is_finite], np.flatnonzero(is_finite).tolist()


def joined(
    vectors: Sequence[npt.NDArray[np.float32]],
    columns: Mapping[str, list[str | None]],
    model: LoadedModel,
    kind: str,
    scaling: str,
    policy: ErrorPolicy,
) -> Embeddings:
    """The embeddings of all batches; it is an error if there are none."""
    if not any(map(len, vectors)):
        raise policy.nothing_left("embedded")
    about = {"model": model.name, "kind": kind, "length": scaling, "molspectra": __version__}
    return Embeddings(np.concatenate(vectors), columns, about, tuple(policy.rejected))
