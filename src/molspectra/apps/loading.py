"""Models by name, directory, address or repository, ready for use."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from molspectra.apps.remote_models import HUB, from_hub, from_url
from molspectra.data.output import cache_folder
from molspectra.errors import MismatchError, NotFoundError, hint
from molspectra.evaluation.embedding import alignment_similarity, trained_elements
from molspectra.evaluation.ensemble import is_ensemble, load_members, read_ensemble
from molspectra.evaluation.uncertainty import Calibration
from molspectra.models.model import MolSpectra
from molspectra.training.checkpoint import SHIPPED, find_checkpoint, load_model
from molspectra.training.targets import quantities_of


@dataclass(frozen=True, eq=False, repr=False)
class LoadedModel:
    """A model ready for use.

    Attributes:
        name: as given to `load`.
        path: directory of its weights and settings.
        model: in evaluation mode.
        about: content of its `config.json`.
        similarity: how its alignment compares a structure with a spectrum: "cosine" or "inner"; None for a
            model that was not aligned.
    """

    name: str
    path: Path
    model: MolSpectra
    about: Mapping[str, Any]
    similarity: str | None

    def __repr__(self) -> str:
        """Return a short description for people."""
        parts = [self.name, str(self.about.get("stage", "model")), f"width {self.width}"]
        if self.model.spectrum_encoder is not None:
            parts.append("+".join(self.model.spectrum_encoder.kinds))
        if self.model.property_head is not None:
            parts.append(f"predicts {', '.join(quantities_of(self.about))}")
        return f"LoadedModel({', '.join(parts)})"

    @property
    def members(self) -> tuple[MolSpectra, ...]:
        """The models whose mean predicts a property: this one."""
        return (self.model,)

    @property
    def width(self) -> int:
        """Length D of an embedding."""
        return self.model.encoder.channels

    @property
    def elements(self) -> frozenset[int] | None:
        """Atomic numbers of its training set; None where its files do not tell."""
        return trained_elements(self.about)


@dataclass(frozen=True, eq=False, repr=False)
class LoadedEnsemble(LoadedModel):
    """An ensemble ready for predictions; `model` is its first member.

    Attributes:
        others: the other members.
        calibrations: of the spread of the members, by target.
    """

    others: tuple[MolSpectra, ...]
    calibrations: Mapping[str, Calibration]

    @property
    def members(self) -> tuple[MolSpectra, ...]:
        """The models whose mean predicts a property."""
        return (self.model, *self.others)

    def __repr__(self) -> str:
        """Return a short description for people."""
        return f"{super().__repr__()[:-1]}, mean of {len(self.members)} members)"


def load(
    name: str | os.PathLike[str] = "base",
    *,
    prefer: Literal["best", "last"] = "best",
    cache: str | os.PathLike[str] | None = None,
) -> LoadedModel:
    """A model in evaluation mode, from wherever it is.

    Args:
        name: one of
            "base", the model that comes with the package; "small", a smaller one for tests;
            a run directory, or a directory with `model.safetensors` and `config.json`;
            the directory of an ensemble, which gives a `LoadedEnsemble`;
            the address of a ZIP archive with these two files, its content pinned by
            `#sha256=` and 64 hexadecimal digits;
            `hf:owner/name` or `hf:owner/name@revision`, a Hugging Face repository (extra `hub`).
        prefer: of a run the checkpoint with the lowest validation loss ("best"), or the newest ("last").
        cache: where downloads are kept; None takes that of `cache_folder`.

    Raises:
        InputError: no such model, a damaged one, an address that is not pinned or cannot be reached.
    """
    text = os.fspath(name)
    if is_ensemble(text):
        return _load_ensemble(text, prefer)
    directory = find_checkpoint(_directory(text, Path(cache) if cache else cache_folder()), prefer)
    model, about = load_model(directory)
    aligned = model.spectrum_encoder is not None and not model.config.spectrum_input
    return LoadedModel(
        text, directory, model, about, alignment_similarity(directory, about) if aligned else None
    )


def loaded(model: str | os.PathLike[str] | LoadedModel) -> LoadedModel:
    """Return a loaded model as it is, and `load` one that is named; for all that takes one model.

    Raises:
        InputError: as in `load`, or an ensemble.
    """
    found = model if isinstance(model, LoadedModel) else load(model)
    if isinstance(found, LoadedEnsemble):
        raise MismatchError(
            f"{found.name}: an ensemble predicts properties, and its members differ in everything else; "
            f"give one of them, such as {found.path}"
        )
    return found


def _load_ensemble(text: str, prefer: Literal["best", "last"]) -> LoadedEnsemble:
    """Load the members of an ensemble."""
    ensemble = read_ensemble(text)
    first, others = ensemble.members[0], ensemble.members[1:]
    model, about = load_model(first, prefer)
    return LoadedEnsemble(
        text, first, model, about, None, load_members(others, prefer), ensemble.calibrations
    )


def _directory(text: str, cache: Path) -> Path | str:
    """The directory of a model, fetched where it is elsewhere; the name of a shipped one stays."""
    if text.startswith(HUB):
        return from_hub(text)
    if re.match(r"[a-z][a-z0-9+.-]*://", text, re.IGNORECASE):
        return from_url(text, cache / "models")
    if Path(text).exists() or text in SHIPPED:
        return text
    known = hint(text, SHIPPED, label="models that come with the package")
    raise NotFoundError(
        f"{text}: no such model; {known}; else give a run directory, https://…#sha256=… or hf:owner/name"
    )
