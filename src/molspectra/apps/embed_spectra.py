"""Spectra as vectors that can be compared with those of structures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from molspectra.apps.embed import Embeddings, Length, finite_vectors, joined, scaling_of
from molspectra.apps.loading import LoadedModel, loaded
from molspectra.chem.readers import ErrorPolicy, OnError
from molspectra.data.store.bundled import BUNDLED
from molspectra.data.store.shards import is_store
from molspectra.data.store.store import Store
from molspectra.errors import (
    FormatError,
    InputError,
    MismatchError,
    MolspectraError,
    NotFoundError,
    SettingError,
    ValueRangeError,
)
from molspectra.evaluation.embedding import Sample, Spectrum, embed_intensities, stack_spectra
from molspectra.evaluation.predict import moved
from molspectra.evaluation.retrieval import embed_spectra as embed_rows
from molspectra.evaluation.retrieval import known_modalities
from molspectra.models.model import MolSpectra
from molspectra.spectra.files.measured import FLOOR
from molspectra.spectra.files.read import read_spectra
from molspectra.spectra.plausible import check_spectrum
from molspectra.spectra.spectrum import LineSpectrum, SampledSpectrum
from molspectra.training.data import CHUNK, open_store
from molspectra.training.progress import progress

Read = Callable[..., list[Spectrum]]
_Embedded = tuple[Tensor, list[tuple[str, str]], dict[str, list[str]]]
"""Embeddings [B, D] of a batch, the file and place of each, and columns [B] by name."""


@dataclass(frozen=True)
class _ReadSample:
    """The spectra of one sample by modality, and where they come from."""

    where: str
    source: str
    spectra: Sample


def embed_spectra(
    spectra: Any,
    model: str | os.PathLike[str] | LoadedModel = "base",
    *,
    modalities: Sequence[str] | None = None,
    together: bool = False,
    unit: str | None = None,
    quantity: str | None = None,
    outside: str = "refuse",
    floor: float = FLOOR,
    reflectance: str = "refuse",
    length: Length = "auto",
    batch_size: int = 64,
    device: str = "cpu",
    on_error: OnError = "raise",
    show: bool = False,
) -> Embeddings:
    """Embed spectra: one vector per sample, from all of its spectra that the model reads.

    Args:
        spectra: a store (or its path, or the name of a bundled one), of which each row is a sample; or a
            sample, or a list of samples. A sample is a spectrum, a mapping or list of spectra of different
            modalities, or a file (see `read_spectra`). A file with several spectra of one modality holds as
            many samples.
        model: a stage-2 model, see `load`.
        modalities: use only these; one name is also that of files that do not tell their modality.
        together: all of a list belong to one sample.
        unit: of the axis of files, see `molspectra.spectra.files.read.read_measured`.
        quantity: of the values of files, see `read_measured`.
        outside: points that a file does not cover, see `molspectra.spectra.files.measured.onto_axis`.
        floor: see `onto_axis`.
        reflectance: see `onto_axis`.
        length: see `molspectra.apps.embed.embed`.
        batch_size: samples per pass; results depend on it by rounding only.
        device: where to compute; a loaded model moves there.
        on_error: "raise" stops at the first bad sample, "skip" lists it in `rejected`.
        show: progress on standard error.

    Raises:
        InputError: a model without a spectrum encoder, a file that is damaged or of another modality, or
            nothing that could be embedded.
    """
    model, policy = loaded(model), ErrorPolicy(on_error)
    scaling = scaling_of(model, length)
    if model.model.spectrum_encoder is None:
        raise MismatchError(f"{model.name}: the model has no spectrum encoder; spectra need a stage-2 model")
    if batch_size < 1:
        raise SettingError(f"batch_size must be at least 1, not {batch_size}")
    names = known_modalities(model.model, modalities)
    net = moved(model.model, device).eval()
    store = _store(spectra)
    if store is not None:
        batches = _of_store(store, net, names, batch_size, policy, show)
    else:
        options: dict[str, Any] = {"unit": unit, "quantity": quantity, "outside": outside, "floor": floor}
        only = names[0] if len(names) == 1 else None
        read = partial(read_spectra, modality=only, reflectance=reflectance, **options)
        batches = _of_items(_items(spectra, together), read, net, names, batch_size, policy, show)
    vectors, columns = [], dict[str, list[str | None]]()
    for embeddings, origins, labels in batches:
        finite, indices = finite_vectors(embeddings, scaling, policy, origins)
        vectors.append(finite)
        for name, texts in labels.items():
            columns.setdefault(name, []).extend(texts[index] for index in indices)
    return joined(vectors, columns, model, "spectrum", scaling, policy)


def _store(spectra: Any) -> Store | None:
    """The store that is given as such, as a path or by name; None for anything else."""
    if isinstance(spectra, Store):
        return spectra
    if isinstance(spectra, str | os.PathLike):
        path = Path(spectra)
        if is_store(path) or (str(spectra) in BUNDLED and not path.exists()):
            return open_store(os.fspath(spectra))
    return None


def _items(spectra: Any, together: bool) -> list[Any]:
    """The samples, not yet read."""
    is_one = isinstance(spectra, str | os.PathLike | Mapping | SampledSpectrum | LineSpectrum)
    try:
        items = [spectra] if is_one else list(spectra)
    except TypeError as error:
        kind = type(spectra).__name__
        raise FormatError(
            f"spectra: expected files, spectra or a store, not an object of type {kind}"
        ) from error
    if not items:
        raise NotFoundError("there are no spectra in what was given")
    return [items] if together else items


def _of_items(
    items: Sequence[Any],
    read: Read,
    model: MolSpectra,
    names: tuple[str, ...],
    batch_size: int,
    policy: ErrorPolicy,
    show: bool,
) -> Iterator[_Embedded]:
    """Embed samples in batches."""
    with progress("embed", len(items), show=show) as advance:
        samples = _samples(items, read, names, policy, advance)
        while batch := list(islice(samples, batch_size)):
            embeddings = embed_intensities(model, *stack_spectra([sample.spectra for sample in batch], names))
            labels = {
                "source": [sample.source for sample in batch],
                "modalities": ["+".join(sample.spectra) for sample in batch],
            }
            yield embeddings, [("spectra", sample.where) for sample in batch], labels


def _samples(
    items: Sequence[Any],
    read: Read,
    names: tuple[str, ...],
    policy: ErrorPolicy,
    advance: Callable[..., None],
) -> Iterator[_ReadSample]:
    """Read samples, with those of their spectra that have one of the names."""
    for number, item in enumerate(items, start=1):
        where = f"item {number}"
        try:
            samples = _read(item, read)
            source = os.fspath(item) if _is_file(item) else where
            for part, sample in enumerate(samples, start=1):
                spectra = {name: sample[name] for name in names if name in sample}
                if not spectra:
                    kinds = ", ".join(sample)
                    raise MismatchError(f"it holds {kinds}; the model was asked to read {', '.join(names)}")
                yield _ReadSample(where, source if len(samples) == 1 else f"{source}#{part}", spectra)
        except MolspectraError as error:
            policy.reject("spectra", where, error)
        advance(number)


def _is_file(item: Any) -> bool:
    return isinstance(item, str | os.PathLike)


def _read(item: Any, read: Read) -> list[Sample]:
    """The samples of an item: several only from a file with several spectra of one modality."""
    spectra = list(_spectra_of(item, read))
    if not spectra:
        raise NotFoundError("the sample has no spectra")
    kinds = [spectrum.modality for spectrum in spectra]
    if len(set(kinds)) == len(kinds):
        return [dict(zip(kinds, spectra, strict=True))]
    if _is_file(item):
        return [{spectrum.modality: spectrum} for spectrum in spectra]
    twice = next(kind for kind in kinds if kinds.count(kind) > 1)
    raise MismatchError(
        f"a sample has one spectrum of a modality, this one has {kinds.count(twice)} of {twice}"
    )


def _spectra_of(item: Any, read: Read) -> Iterable[Spectrum]:
    if isinstance(item, SampledSpectrum | LineSpectrum):
        try:
            check_spectrum(item)
        except InputError as error:
            raise error.with_context(item.modality) from error
        yield item
    elif _is_file(item):
        path = Path(item)
        if not path.is_file():
            raise NotFoundError(f"{path}: no such file")
        for spectrum in read(path):
            yield from _spectra_of(spectrum, read)
    elif isinstance(item, Mapping):
        for name, value in item.items():
            for spectrum in _spectra_of(value, partial(read, modality=name) if _is_file(value) else read):
                if spectrum.modality != name:
                    raise MismatchError(f"the spectrum given as {name} is one of {spectrum.modality}")
                yield spectrum
    elif isinstance(item, Sequence):
        for value in item:
            yield from _spectra_of(value, read)
    else:
        raise FormatError(f"expected a file or a spectrum, not an object of type {type(item).__name__}")


def _of_store(
    store: Store,
    model: MolSpectra,
    names: tuple[str, ...],
    batch_size: int,
    policy: ErrorPolicy,
    show: bool,
) -> Iterator[_Embedded]:
    """Embed each row of a store that has at least one of the spectra, in batches."""
    modalities = tuple(name for name in names if name in store.metadata.modalities)
    if not modalities:
        known = ", ".join(store.metadata.modalities) or "no spectra"
        raise MismatchError(f"{store.path}: it has {known}; the model was asked to read {', '.join(names)}")
    has = {name: store.has(name) for name in modalities}
    has_any = np.stack(list(has.values())).any(0)
    for row in np.flatnonzero(~has_any):
        error = NotFoundError(f"it has no spectrum ({', '.join(modalities)})")
        policy.reject(str(store.path), f"row {row}", error)
    rows = _usable_rows(store, np.flatnonzero(has_any), modalities, policy)
    identities = store.identities
    with progress("embed", len(rows), show=show) as advance:
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            labels = {
                "source": [f"row {row}" for row in batch],
                "identity": [identities[row] for row in batch],
                "modalities": ["+".join(name for name in modalities if has[name][row]) for row in batch],
            }
            embeddings = embed_rows(model, store, batch, modalities, batch_size)
            yield embeddings, [(str(store.path), where) for where in labels["source"]], labels
            advance(start + len(batch))


def _usable_rows(
    store: Store, rows: npt.NDArray[np.int64], modalities: tuple[str, ...], policy: ErrorPolicy
) -> npt.NDArray[np.int64]:
    """The rows [n] none of whose spectra is one that cannot be right."""
    usable = np.ones(len(rows), bool)
    for start in range(0, len(rows), CHUNK):
        for name in modalities:
            for index, reason in store.unusable_spectra(rows[start : start + CHUNK], name).items():
                if usable[start + index]:
                    error = ValueRangeError(f"{name}: {reason}")
                    policy.reject(str(store.path), f"row {rows[start + index]}", error)
                usable[start + index] = False
    return rows[usable]
