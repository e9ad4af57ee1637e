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
import torch

from molspectra.apps.embed import Embeddings, Length, chosen_length, finished, gathered
from molspectra.apps.loading import LoadedModel, loaded
from molspectra.apps.molecules import OnError, Policy
from molspectra.data.store.bundled import BUNDLED
from molspectra.data.store.store import Store
from molspectra.errors import InputError, MolspectraError
from molspectra.evaluation.predict import moved
from molspectra.evaluation.retrieval import embed_spectra as embed_rows
from molspectra.evaluation.retrieval import known_modalities
from molspectra.models.model import MolSpectra
from molspectra.models.specformer import SpecFormer
from molspectra.spectra.files.measured import FLOOR
from molspectra.spectra.files.read import read_spectra
from molspectra.spectra.spectrum import LineSpectrum, SampledSpectrum
from molspectra.training.data import open_store
from molspectra.training.progress import progress

Spectrum = SampledSpectrum | LineSpectrum
Sample = Mapping[str, Spectrum]
Read = Callable[..., list[Spectrum]]


@dataclass(frozen=True)
class _Found:
    """One sample: where it comes from, and its spectra by modality."""

    where: str
    source: str
    spectra: Sample


def embed_spectra(
    spectra: Any,
    model: str | os.PathLike[str] | LoadedModel = "small",
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
        modalities: use these alone; one name is also taken for text files that do not tell their kind.
        together: all of a list belong to one sample.
        unit: of files, see `molspectra.spectra.files.read.read_measured`.
        quantity: as there.
        outside: of files, see `molspectra.spectra.files.measured.onto_axis`.
        floor: as there.
        reflectance: as there.
        length: see `molspectra.apps.embed.embed`.
        batch_size: samples per pass; results depend on it by rounding only.
        device: where to compute; a loaded model moves there.
        on_error: "raise" stops at the first bad sample, "skip" lists it in `rejected`.
        show: progress on standard error.

    Raises:
        InputError: a model without a spectrum encoder, a file that is damaged or of another modality, or
            nothing that could be embedded.
    """
    ready, policy = loaded(model), Policy(on_error)
    way = chosen_length(ready, length)
    if ready.model.spectrum_encoder is None:
        raise InputError(f"{ready.name}: the model has no spectrum encoder; spectra need a stage-2 model")
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, not {batch_size}")
    names = known_modalities(ready.model, modalities)
    net = moved(ready.model, device).eval()
    store = _store(spectra)
    if store is not None:
        return _embed_store(store, ready, names, way, batch_size, policy, show)
    options: dict[str, Any] = {"unit": unit, "quantity": quantity, "outside": outside}
    only = names[0] if len(names) == 1 else None
    read = partial(read_spectra, modality=only, floor=floor, reflectance=reflectance, **options)
    items = _items(spectra, together)
    vectors, columns = [], dict[str, list[str | None]](source=[], modalities=[])
    with progress("embed", len(items), show=show) as advance:
        source = _samples(items, read, names, policy, advance)
        while block := list(islice(source, batch_size)):
            with torch.no_grad():
                found = _represent(net, [each.spectra for each in block], names)
            rows, places = finished(found, way, policy, [("spectra", each.where) for each in block])
            vectors.append(rows)
            columns["source"] += [block[place].source for place in places]
            columns["modalities"] += ["+".join(block[place].spectra) for place in places]
    return gathered(vectors, columns, ready, "spectrum", way, policy)


def _store(spectra: Any) -> Store | None:
    """The store that was given, None for anything else."""
    if isinstance(spectra, Store):
        return spectra
    if isinstance(spectra, str | os.PathLike):
        path = Path(spectra)
        if path.suffix.lower() == ".arrow" or (str(spectra) in BUNDLED and not path.exists()):
            return open_store(os.fspath(spectra))
    return None


def _items(spectra: Any, together: bool) -> list[Any]:
    """The samples, not yet read."""
    is_one = isinstance(spectra, str | os.PathLike | Mapping | SampledSpectrum | LineSpectrum)
    try:
        items = [spectra] if is_one else list(spectra)
    except TypeError as error:
        kind = type(spectra).__name__
        raise InputError(
            f"spectra: expected files, spectra or a store, not an object of type {kind}"
        ) from error
    if not items:
        raise InputError("there are no spectra in what was given")
    return [items] if together else items


def _samples(
    items: Sequence[Any], read: Read, names: tuple[str, ...], policy: Policy, advance: Callable[..., None]
) -> Iterator[_Found]:
    for number, item in enumerate(items, start=1):
        where = f"item {number}"
        try:
            found = _read(item, read)
            for place, sample in enumerate(found, start=1):
                spectra = {name: sample[name] for name in names if name in sample}
                if not spectra:
                    kinds = ", ".join(sample)
                    raise InputError(f"it holds {kinds}; the model was asked to read {', '.join(names)}")
                source = _label(item) or where
                yield _Found(where, source if len(found) == 1 else f"{source}#{place}", spectra)
        except MolspectraError as error:
            policy.refuse("spectra", where, error)
        advance(number)


def _label(item: Any) -> str | None:
    """What to call a file; None for spectra themselves."""
    return os.fspath(item) if isinstance(item, str | os.PathLike) else None


def _read(item: Any, read: Read) -> list[Sample]:
    """The samples in what was given: several only from a file with several spectra of one modality.

    Raises:
        InputError: a damaged file, something else, or two spectra of one modality in one sample.
    """
    found = list(_spectra_of(item, read))
    if not found:
        raise InputError("the sample has no spectra")
    kinds = [each.modality for each in found]
    if len(set(kinds)) == len(kinds):
        return [dict(zip(kinds, found, strict=True))]
    if _label(item) is not None:
        return [{each.modality: each} for each in found]
    twice = next(kind for kind in kinds if kinds.count(kind) > 1)
    raise InputError(f"a sample has one spectrum of a modality, this one has {kinds.count(twice)} of {twice}")


def _spectra_of(item: Any, read: Read) -> Iterable[Spectrum]:
    if isinstance(item, SampledSpectrum | LineSpectrum):
        yield item
    elif isinstance(item, str | os.PathLike):
        path = Path(item)
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        yield from read(path)
    elif isinstance(item, Mapping):
        for name, each in item.items():
            for spectrum in _spectra_of(each, partial(read, modality=name) if _label(each) else read):
                if spectrum.modality != name:
                    raise InputError(f"the spectrum given as {name} is one of {spectrum.modality}")
                yield spectrum
    elif isinstance(item, Sequence):
        for each in item:
            yield from _spectra_of(each, read)
    else:
        raise InputError(f"expected a file or a spectrum, not an object of type {type(item).__name__}")


def _represent(net: MolSpectra, samples: Sequence[Sample], names: tuple[str, ...]) -> torch.Tensor:
    """Representations [B, D] of samples; lines are broadened by the modality's own width."""
    encoder = net.spectrum_encoder
    assert isinstance(encoder, SpecFormer)
    weight = next(net.parameters())
    values = {name: torch.zeros(len(samples), encoder.kinds[name].points) for name in names}
    present = {name: torch.zeros(len(samples), dtype=torch.bool) for name in names}
    for row, sample in enumerate(samples):
        for name, spectrum in sample.items():
            sampled = spectrum.broadened() if isinstance(spectrum, LineSpectrum) else spectrum
            values[name][row] = torch.tensor(sampled.values, dtype=torch.float32)
            present[name][row] = True
    given = {name: each.to(weight.device, weight.dtype) for name, each in values.items()}
    output = encoder(given, {name: each.to(weight.device) for name, each in present.items()})
    representation: torch.Tensor = output.representation
    return representation


def _embed_store(
    store: Store,
    ready: LoadedModel,
    names: tuple[str, ...],
    length: str,
    batch_size: int,
    policy: Policy,
    show: bool,
) -> Embeddings:
    """One vector for each row that has one of the spectra."""
    here = tuple(name for name in names if name in store.metadata.modalities)
    if not here:
        known = ", ".join(store.metadata.modalities) or "no spectra"
        raise InputError(f"{store.path}: it has {known}; the model was asked to read {', '.join(names)}")
    has = {name: store.has(name) for name in here}
    rows = np.flatnonzero(np.stack(list(has.values())).any(0))
    for row in sorted({*range(len(store))} - {*rows.tolist()}):
        policy.refuse(str(store.path), f"row {row}", f"it has no spectrum ({', '.join(here)})")
    identities, kept, vectors = store.identities, list[int](), []
    with progress("embed", len(rows), show=show) as advance:
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            found = embed_rows(ready.model, store, part, here, batch_size)
            origins = [(str(store.path), f"row {row}") for row in part]
            values, places = finished(found, length, policy, origins)
            vectors.append(values)
            kept += part[places].tolist()
            advance(start + len(part))
    columns: dict[str, list[str | None]] = {
        "source": [f"row {row}" for row in kept],
        "identity": [identities[row] for row in kept],
        "modalities": ["+".join(name for name in here if has[name][row]) for row in kept],
    }
    return gathered(vectors, columns, ready, "spectrum", length, policy)
