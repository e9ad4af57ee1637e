"""Which molecules a run and those that it started from have trained on: a small file in its directory.

`seen.safetensors` holds hashes of identities with flags, and of the geometry ids of training structures that
share an identity, as the frames of a trajectory do. 52 bits are enough: a molecule that is among n is always
found, and one that is not is taken for one of them with a probability of n / 2⁵², 1e-9 for 4 million.

The ascending hashes are stored as the differences between them: first the lowest bytes of all, then the next
ones. The upper bytes are small numbers, which an archive packs into few bits. All that a file holds is in its
arrays, so that equal contents are equal bytes. Format 1 held 64-bit hashes as they are, and is read.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from molspectra.chem.identity import GEOMETRY_PATTERN
from molspectra.data.atomic import atomic_file
from molspectra.errors import DamagedError, InputError, MismatchError, check_format
from molspectra.training.checkpoint import named
from molspectra.training.config import FinetuneConfig, RunConfig
from molspectra.training.data import Selection
from molspectra.training.record import read_run

FORMAT, PLAIN_FORMAT = 2, 1

SEEN = "seen.safetensors"
"""Name of the file in a run directory."""

STRUCTURE, SPECTRUM, VALIDATED, SPECTRUM_VALIDATED, LABEL = 1, 2, 4, 8, 16
"""Flags: trained on the structure, trained with a spectrum, the same for validation; trained on a label."""

Hashes = npt.NDArray[np.uint64]
Arrays = Mapping[str, npt.NDArray[Any]]
Columns = tuple[Hashes, npt.NDArray[np.uint8], Hashes]
BITS = 52
_DROPPED = np.uint64(64 - BITS)
_COLUMNS = ("molecules", "flags", "structures")


def hashes_of(identities: Iterable[str]) -> Hashes:
    """Hashes [n] of identities, in their order."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in identities)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64) >> _DROPPED


def structure_hashes(geometry_ids: npt.NDArray[np.int64]) -> Hashes:
    """Hashes [n] of geometry ids, in their order."""
    return geometry_ids.astype(np.uint64) >> _DROPPED


@dataclass(frozen=True, eq=False)
class Seen:
    """Molecules and structures that a chain of runs (each started from the next by `init`) has seen.

    Attributes:
        molecules: [n] ascending hashes of identities.
        flags: [n] uint8, `STRUCTURE` and so on of each.
        structures: [m] ascending hashes of the structures trained on, of molecules with several of them.
        by_geometry: how many of the identities are geometry hashes, which other datasets may not share.
        runs: one mapping per run, the last one first: its directory, stage, store and counts.
        unknown: runs or files of the chain whose molecules are not known, each with the reason.
    """

    molecules: Hashes = field(default_factory=lambda: np.empty(0, np.uint64))
    flags: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    structures: Hashes = field(default_factory=lambda: np.empty(0, np.uint64))
    by_geometry: int = 0
    runs: tuple[Mapping[str, Any], ...] = ()
    unknown: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        selection: Selection,
        modalities: Iterable[str] = (),
        about: Mapping[str, Any] | None = None,
        *,
        labelled: bool = False,
    ) -> "Seen":
        """Return what a run on a selection sees: its training and validation parts.

        Args:
            selection: store and rows.
            modalities: spectra that the run uses; those that the store lacks do not count.
            about: what to tell about the run.
            labelled: the run trains on a property or on forces.
        """
        store = selection.store
        spectra = np.zeros(len(store), dtype=bool)
        for name in modalities:
            if name in store.metadata.modalities:
                spectra |= store.has(name)
        identities = np.array(store.identities, dtype=object)
        trained = STRUCTURE | (LABEL if labelled else 0)
        parts = ((selection.train, trained, SPECTRUM), (selection.val, VALIDATED, SPECTRUM_VALIDATED))
        rows = np.concatenate([part for part, _, _ in parts])
        flags = np.concatenate(
            [(plain | spectral * spectra[part]).astype(np.uint8) for part, plain, spectral in parts]
        )
        own = identities[selection.train]
        several = [name for name, count in Counter(own).items() if count > 1]
        frames = selection.train[np.isin(own, several)]
        facts = {
            "store": str(store.path),
            "hash": store.hash,
            "train": len(selection.train),
            "val": len(selection.val),
        }
        return cls(
            *_united(hashes_of(identities[rows]), flags),
            structures=np.unique(structure_hashes(store.geometry_ids[frames])),
            by_geometry=len(set(filter(GEOMETRY_PATTERN.fullmatch, identities[rows]))),
            runs=({**(about or {}), **facts},),
        )

    def merged(self, earlier: "Seen") -> "Seen":
        """Return the union with what earlier runs have seen."""
        return Seen(
            *_united(
                np.concatenate([self.molecules, earlier.molecules]),
                np.concatenate([self.flags, earlier.flags]),
            ),
            structures=np.union1d(self.structures, earlier.structures),
            by_geometry=max(self.by_geometry, earlier.by_geometry),
            runs=(*self.runs, *earlier.runs),
            unknown=(*self.unknown, *earlier.unknown),
        )

    def flags_of(self, hashes: Hashes) -> npt.NDArray[np.uint8]:
        """Return the flags [n] of molecules by their hashes [n], 0 where they were not seen."""
        if not len(self.molecules):
            return np.zeros(len(hashes), np.uint8)
        index = np.minimum(np.searchsorted(self.molecules, hashes), len(self.molecules) - 1)
        return np.where(self.molecules[index] == hashes, self.flags[index], 0).astype(np.uint8)

    def summary(self) -> dict[str, Any]:
        """Return counts for a record: different molecules, in training unless said otherwise.

        `structures` counts those of molecules with several of them.
        """
        return {
            "molecules": int(np.count_nonzero(self.flags & STRUCTURE)),
            "with_spectra": int(np.count_nonzero(self.flags & SPECTRUM)),
            "validation_only": int(np.count_nonzero(self.flags & (STRUCTURE | SPECTRUM) == 0)),
            "structures": len(self.structures),
            "by_geometry": self.by_geometry,
            "runs": [dict(run) for run in self.runs],
            "unknown": list(self.unknown),
        }

    def save(self, path: Path) -> None:
        """Write the file atomically.

        Raises:
            WriteError: it cannot be written.
        """
        planes = (_planes(self.molecules), self.flags, _planes(self.structures))
        arrays: dict[str, npt.NDArray[Any]] = dict(zip(_COLUMNS, planes, strict=True))
        about = {
            "by_geometry": self.by_geometry,
            "runs": [dict(run) for run in self.runs],
            "unknown": list(self.unknown),
            "crc32": _checksum(arrays),
        }
        # The description of a safetensors file has no order: more than one entry would lie there by chance.
        arrays |= {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)}
        with atomic_file(path) as file:
            file.write(save(arrays, {"format": str(FORMAT)}))

    @classmethod
    def read(cls, path: Path) -> "Seen":
        """Read the file.

        Raises:
            DamagedError: it is missing or damaged.
        """
        try:
            with safe_open(path, "numpy") as file:
                metadata = file.metadata() or {}
                if (number := int(metadata["format"])) != PLAIN_FORMAT:
                    check_format(f"{path}: no readable list of molecules seen", number, FORMAT)
                arrays = {name: file.get_tensor(name) for name in _COLUMNS}
                if number != PLAIN_FORMAT:
                    arrays["about"] = file.get_tensor("about")
            columns, about = _of_plain(arrays, metadata) if number == PLAIN_FORMAT else _of_planes(arrays)
            return cls(
                *columns,
                by_geometry=int(about["by_geometry"]),
                runs=tuple(map(dict, about["runs"])),
                unknown=tuple(map(str, about["unknown"])),
            )
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise DamagedError(
                f"{path}: not a readable list of molecules seen ({_line(error)}); remove it to have it remade"
            ) from error


def seen_by(path: str | Path) -> Seen:
    """Return what a run, a checkpoint's run or a shipped model has seen, with the runs that it started from.

    For runs without the file it is made again from record, settings and store, if the store is the same.

    Raises:
        DamagedError: the file is damaged.
    """
    return _seen_by(named(path), ())


def _seen_by(path: Path, before: tuple[Path, ...]) -> Seen:
    real = path.resolve()  # a checkpoint may be named by a link, or from within its folder
    run = real.parent.parent if real.parent.name == "checkpoints" else path
    if (run / SEEN).is_file():
        return Seen.read(run / SEEN)
    if run.resolve() in before:
        return Seen(unknown=(f"{path} (it starts from itself)",))
    if not ((run / "record.json").is_file() and (run / "config.json").is_file()):
        return Seen(unknown=(f"{path} (not a run directory, or gone)",))
    try:
        config, record = read_run(run)
    except (InputError, AttributeError) as error:
        return Seen(unknown=(f"{path} ({_line(error)})",))
    try:
        seen = own_seen(config, selection_of(config, record), run, record["about"]["stage"])
    except (InputError, KeyError, TypeError) as error:
        seen = Seen(unknown=(f"{path} ({_line(error)})",))
    if config.init is None:
        return seen
    return seen.merged(_seen_by(named(config.init), (*before, run.resolve())))


def selection_of(config: RunConfig, record: Mapping[str, Any]) -> Selection:
    """Return the rows that a run was given, by its settings and record.

    Raises:
        InputError: its store is missing or has changed.
    """
    targets = config.targets if isinstance(config, FinetuneConfig) else ()
    selection = Selection.of(config.data, targets)
    if selection.store.hash != record["data"]["hash"]:
        raise MismatchError(f"{config.data.store} has changed since")
    return selection


def own_seen(config: RunConfig, selection: Selection, directory: Path, stage: str) -> Seen:
    """Return what a run itself sees, without the runs that it started from."""
    labelled = isinstance(config, FinetuneConfig)
    encoder = config.model.spectrum_encoder if not labelled or config.model.spectrum_input else None
    about = {"run": str(directory), "stage": stage}
    return Seen.of(selection, encoder.modalities if encoder else (), about, labelled=labelled)


def _planes(ascending: Hashes) -> npt.NDArray[np.uint8]:
    """Return bytes [k, n] of the differences between ascending hashes [n], lowest first, k ≥ 1 as needed."""
    gaps = np.diff(ascending, prepend=np.uint64(0))
    used = -(-int(gaps.max(initial=np.uint64(1))).bit_length() // 8)
    return np.ascontiguousarray(gaps.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :used].T)


def _hashes(planes: npt.NDArray[np.uint8]) -> Hashes:
    """Return the hashes [n] of which `_planes` made bytes [k, n]."""
    if planes.dtype != np.uint8 or planes.ndim != 2 or not 1 <= len(planes) <= 8:
        raise ValueError("its arrays are of other types")
    gaps = np.zeros((planes.shape[1], 8), np.uint8)
    gaps[:, : len(planes)] = planes.T
    return np.cumsum(gaps.view("<u8")[:, 0], dtype=np.uint64)


def _checksum(arrays: Arrays) -> int:
    """Return a checksum of the columns: one wrong byte of a difference would change every hash after it."""
    return crc32(b"".join(arrays[name].tobytes() for name in _COLUMNS))


def _of_planes(arrays: Arrays) -> tuple[Columns, Mapping[str, Any]]:
    """Return the columns of `Seen` and the rest of what a file of today's format holds."""
    about = json.loads(arrays["about"].tobytes())
    if _checksum(arrays) != about["crc32"]:
        raise ValueError("its checksum is wrong")
    molecules, structures = _hashes(arrays["molecules"]), _hashes(arrays["structures"])
    _check(molecules, arrays["flags"], structures)
    return (molecules, arrays["flags"], structures), about


def _of_plain(arrays: Arrays, metadata: Mapping[str, str]) -> tuple[Columns, Mapping[str, Any]]:
    """Return the same of a file of format 1, which holds 64-bit hashes, and geometry ids."""
    molecules, flags, structures = (arrays[name] for name in _COLUMNS)
    if molecules.dtype != np.uint64 or structures.dtype != np.int64:
        raise ValueError("its arrays are of other types")
    _check(molecules, flags, structures)
    about = json.loads(metadata["about"]) | {"by_geometry": metadata["by_geometry"]}
    return (*_united(molecules >> _DROPPED, flags), np.unique(structure_hashes(structures))), about


def _check(molecules: npt.NDArray[Any], flags: npt.NDArray[Any], structures: npt.NDArray[Any]) -> None:
    """Refuse columns that do not belong together."""
    if flags.dtype != np.uint8:
        raise ValueError("its arrays are of other types")
    is_ascending = all((column[1:] > column[:-1]).all() for column in (molecules, structures))
    if molecules.ndim != 1 or molecules.shape != flags.shape or not is_ascending:
        raise ValueError("its hashes are not in order")


def _united(hashes: Hashes, flags: npt.NDArray[np.uint8]) -> tuple[Hashes, npt.NDArray[np.uint8]]:
    """Return each hash once, ascending, with the flags of all its occurrences."""
    unique, inverse = np.unique(hashes, return_inverse=True)
    united = np.zeros(len(unique), np.uint8)
    np.bitwise_or.at(united, inverse, flags)
    return unique, united


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
