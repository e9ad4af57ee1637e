"""Spectra in files of their own, matched to molecules by name."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from molspectra.datasets.importer import choice
from molspectra.datasets.own.shared import ParsedSpectrum, summary_of
from molspectra.errors import FormatError, InputError, MismatchError, NotFoundError, SettingError
from molspectra.spectra.files.instruments import ENDINGS
from molspectra.spectra.files.measured import (
    FLOOR,
    OUTSIDE,
    REFLECTANCES,
    Conversion,
    MeasuredSpectrum,
    onto_axis,
)
from molspectra.spectra.files.read import JCAMP, TEXT, named_as_measured, read_measured
from molspectra.spectra.files.units import QUANTITIES, asked_quantity, asked_unit
from molspectra.spectra.modality import MODALITIES, modality
from molspectra.spectra.spectrum import SampledSpectrum

OPTIONS: dict[str, str] = {
    "spectra": "folder of JCAMP-DX, two-column or instrument files: NAME.jdx, NAME.ir.csv, ir/NAME.0",
    "spectra_level": "what the spectra were measured with",
    "modality": "kind of the spectra, where neither the name nor the file tells it",
    "spectra_unit": "unit of the axis of text files, where the header does not tell it",
    "spectra_quantity": "quantity of the values of text files, where the header does not tell it",
    "outside": "points that a spectrum does not cover: refuse (default) or zero",
    "floor": f"smallest transmittance, {FLOOR:g} if not given",
    "reflectance": "refuse (default), log or kubelka-munk",
}
"""Options of importers that take spectra from files."""

_SAME = "linear interpolation onto the axis"


class Settings(NamedTuple):
    """`read_measured` and `onto_axis` with the user's options."""

    read: Callable[..., list[MeasuredSpectrum]]
    convert: Callable[..., Conversion]


@dataclass(frozen=True)
class Folder:
    """The spectra of a folder.

    Attributes:
        path: of the folder, None without spectra.
        files: name of a molecule -> modality -> file.
        level: level of the samples in the store's metadata.
        settings: how they are read.
        unusable: reasons by the names of the files whose modality is unknown.
    """

    path: Path | None
    files: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)
    level: str = ""
    settings: Settings | None = None
    unusable: Mapping[str, str] = field(default_factory=dict)

    def fingerprint(self) -> dict[str, str]:
        """Return a note that changes with the files: a hash of their names and sizes."""
        if self.path is None:
            return {}
        files = sorted(path for by_modality in self.files.values() for path in by_modality.values())
        words = [f"{path.relative_to(self.path).as_posix()} {path.stat().st_size}" for path in files]
        digest = hashlib.sha256("\n".join(words).encode(errors="replace")).hexdigest()
        return {"spectra_files": f"{len(files)} files, sha256 of their names and sizes {digest[:16]}"}

    def samples(self) -> dict[str, str]:
        """Return the level of the samples by modality."""
        kinds = {kind for by_modality in self.files.values() for kind in by_modality}
        return {kind: self.level for kind in MODALITIES if kind in kinds}

    def spectra(self, name: str | None) -> dict[str, Callable[[], ParsedSpectrum]]:
        """Return a reader for each spectrum of the molecule of that name."""
        if self.settings is None:
            return {}
        files = self.files.get(name or "", {})
        return {kind: partial(_sampled, path, kind, self.settings) for kind, path in files.items()}

    def notes(self, names: Counter[str]) -> dict[str, str]:
        """Return remarks on the match for the report, given the number of molecules by name."""
        if self.path is None:
            return {}
        unmatched = [
            str(path.name) for name in self.files if name not in names for path in self.files[name].values()
        ]
        twice = [name for name, count in names.items() if count > 1 and name in self.files]
        notes = {
            "spectra without a molecule": summary_of(unmatched),
            "molecules without a spectrum": summary_of(name for name in names if name not in self.files),
            "names of several molecules with one spectrum": summary_of(twice),
        }
        if self.unusable:
            notes["files that are no spectra"] = summary_of(
                f"{name} ({why})" for name, why in self.unusable.items()
            )
        return notes


def folder(options: Mapping[str, str]) -> Folder:
    """Search the folder that the options name for spectra.

    Raises:
        InputError: if there is no such folder, it has no spectrum, two files claim the same spectrum, or an
            option has a wrong value.
    """
    settings = _settings(options)
    if "spectra" not in options:
        given = sorted(set(OPTIONS) & set(options))
        if given:
            raise SettingError(f"option {given[0]} needs option spectra, the folder of the spectra")
        return Folder(None)
    path = Path(options["spectra"])
    if not path.is_dir():
        raise NotFoundError(f"option spectra={path}: no such folder")
    asked = modality(options["modality"]).name if "modality" in options else None
    files: dict[str, dict[str, Path]] = {}
    unusable: dict[str, str] = {}
    for file in sorted(path.rglob("*")):
        if not named_as_measured(file) or not file.is_file():
            continue
        name, kind = _name_and_kind(path, file)
        try:
            kind = kind or asked or _stated_modality(file, settings)
        except InputError as error:
            unusable[file.name] = str(error)
            continue
        other = files.setdefault(name, {}).setdefault(kind, file)
        if other is not file:
            raise MismatchError(f"{file} and {other} are both the {kind} spectrum of {name!r}; remove one")
    if not files:
        reason = next(iter(unusable.values()), f"no files {' '.join((*JCAMP, *TEXT, *ENDINGS))} or .0")
        raise NotFoundError(f"option spectra={path}: no spectrum found: {reason}")
    words = (options.get("spectra_level", "measured"), _SAME)
    return Folder(path, files, "; ".join(words), settings, unusable)


def _settings(options: Mapping[str, str]) -> Settings:
    floor = options.get("floor", str(FLOOR))
    try:
        smallest = float(floor)
    except ValueError as error:
        raise SettingError(f"option floor={floor!r} is not a number") from error
    if not 0 < smallest < 1:
        raise SettingError(f"option floor={floor} must lie between 0 and 1")
    unit = asked_unit(options["spectra_unit"]) if "spectra_unit" in options else None
    quantity = asked_quantity(options["spectra_quantity"]) if "spectra_quantity" in options else None
    outside = choice(options, "outside", dict.fromkeys(OUTSIDE), OUTSIDE[0])
    reflectance = choice(options, "reflectance", dict.fromkeys(REFLECTANCES), REFLECTANCES[0])

    def read(path: Path, modality: str | None = None) -> list[MeasuredSpectrum]:
        """Read a file of the folder; the options are for text files, since the others tell."""
        given = {"unit": unit, "quantity": quantity} if path.suffix.lower() in TEXT else {}
        return read_measured(path, modality=modality, **given)

    return Settings(
        read,
        partial(onto_axis, outside=outside, floor=smallest, reflectance=reflectance),
    )


def _name_and_kind(path: Path, file: Path) -> tuple[str, str | None]:
    """Return the name of the molecule, and the modality if the name of file or folder states it."""
    name = file.stem
    for kind in MODALITIES:
        if name.lower().endswith((f".{kind}", f"_{kind}")):
            return name[: -len(kind) - 1], kind
    folder_name = file.parent.name.lower()
    return name, folder_name if file.parent != path and folder_name in MODALITIES else None


def _stated_modality(file: Path, settings: Settings) -> str:
    """Return the modality that the content of a file states."""
    kinds = {spectrum.modality for spectrum in settings.read(file) if spectrum.quantity in QUANTITIES}
    if len(kinds) != 1 or None in kinds:
        raise FormatError(
            f"{file} does not tell which kind of spectrum it is; name it {file.stem}.ir{file.suffix}"
        )
    return str(kinds.pop())


def _sampled(path: Path, kind: str, settings: Settings) -> ParsedSpectrum:
    """Read the only spectrum of that kind in a file and convert it to the axis of its modality."""
    spectra = [
        spectrum
        for spectrum in settings.read(path, modality=kind)
        if spectrum.quantity in QUANTITIES and spectrum.modality in (None, kind)
    ]
    if len(spectra) != 1:
        raise FormatError(f"{path.name} holds {len(spectra)} {kind} spectra, not one")
    conversion = settings.convert(spectra[0], kind)
    return ParsedSpectrum(SampledSpectrum(kind, conversion.spectrum.values), conversion.changes)
