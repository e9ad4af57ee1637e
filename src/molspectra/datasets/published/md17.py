"""MD17 and rMD17: frames of molecular dynamics with energies and forces, one `.npz` file per molecule.

rMD17 is a selection of MD17's frames with recomputed labels. The two sets of labels differ by more than the
errors of current models, so a store holds one set and names it in its metadata.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from molspectra.chem.molecule import Molecule
from molspectra.datasets.formats.archives import is_tar
from molspectra.datasets.formats.npy_stream import Column, chunks, names, opened
from molspectra.datasets.frames import frame_row, trajectory_metadata
from molspectra.datasets.importer import Candidate, Importer, Opened, choice
from molspectra.datasets.published.trajectory import check_labels
from molspectra.errors import (
    FormatError,
    InputError,
    MismatchError,
    NotFoundError,
    SettingError,
)

_CHUNK_BYTES = 4 << 20  # of positions read at once
_MAX_ATOMS = 10_000
_DYNAMICS = "PBE+vdW-TS molecular dynamics at 500 K"
_CHMIELA = "Chmiela et al., Sci. Adv. 3 (2017) e1603015"
_CHRISTENSEN = "Christensen and von Lilienfeld, Mach. Learn.: Sci. Technol. 1 (2020) 045018"


@dataclass(frozen=True)
class Layout:
    """Keys of the arrays of one kind of file, and the origin of its labels.

    Attributes:
        title: name of the dataset in messages.
        numbers: key of the atomic numbers [N].
        positions: key of the coordinates [T, N, 3], Å.
        energies: key of the energies [T] or [T, 1], kcal/mol.
        forces: key of the forces [T, N, 3], kcal/mol/Å.
        frames: key of the number of each frame in MD17's trajectory, used where the file has it.
        level: level of theory of energies and forces.
        source: citation.
        licence: terms of the dataset.
    """

    title: str
    numbers: str
    positions: str
    energies: str
    forces: str
    frames: str
    level: str
    source: str
    licence: str

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the required arrays."""
        return self.numbers, self.positions, self.energies, self.forces


_MD17 = Layout(
    "MD17", "z", "R", "E", "F", "frame", "PBE+vdW-TS (MD17)", f"MD17: {_CHMIELA}", "not stated by its authors"
)
_RMD17 = Layout(
    "rMD17",
    "nuclear_charges",
    "coords",
    "energies",
    "forces",
    "old_indices",
    "PBE/def2-SVP (rMD17)",
    f"rMD17: {_CHRISTENSEN}; frames of MD17: {_CHMIELA}",
    "CC0",
)
_BOTH = Layout(
    "rMD17", "z", "R", "E_revised", "F_revised", "frame", _RMD17.level, _RMD17.source, _RMD17.licence
)

FRAMES = {
    "md17": {
        "aspirin": 211_762,
        "benzene": 627_983,
        "ethanol": 555_092,
        "malonaldehyde": 993_237,
        "naphthalene": 326_250,
        "salicylic": 320_231,
        "toluene": 442_790,
        "uracil": 133_770,
    },
    "rmd17": {"azobenzene": 99_988},
}
"""Frames of the published files; the other molecules of rMD17 have 100,000."""


def _open(name: str, raw: Path, options: Mapping[str, str]) -> Opened:
    """Open the file of one molecule; `name` is the dataset, with which the names of its files begin."""
    path = _file_of(raw, name, options.get("molecule"))
    with opened(path) as archive:
        layout = _LAYOUTS[name](path, set(names(archive, path)), options)
    file = _File(path, layout, _molecule_of(path, name))
    expected = FRAMES[name].get(file.molecule.name or "", 100_000 if name == "rmd17" else None)
    return Opened(
        metadata=trajectory_metadata(
            source=layout.source,
            licence=layout.licence,
            level=_DYNAMICS,
            labels=layout.level,
            notes={
                "molecule": file.molecule.name or "",
                "labels": f"{layout.level}; never to be mixed with those of the other set",
                "positions": "each frame is moved to its mean position; nothing is rotated",
            },
        ),
        candidates=file.candidates,
        total=file.total,
        expected=None if file.subset else expected,
    )


def _md17_layout(path: Path, keys: set[str], options: Mapping[str, str]) -> Layout:
    """Return the layout of a file of MD17, which may carry original and revised labels of the same frames."""
    if not keys.isdisjoint((_RMD17.positions, _RMD17.energies, _RMD17.forces)):
        raise MismatchError(f"{path}: this is a file of rMD17; prepare it with the dataset 'rmd17'")
    both = not keys.isdisjoint((_BOTH.energies, _BOTH.forces))
    if both and "labels" not in options:
        raise SettingError(
            f"{path} carries original and revised labels; choose with --option labels=original or "
            "labels=revised"
        )
    labels = choice(options, "labels", {"original": _MD17, "revised": _BOTH}, "original")
    if labels == "revised" and not both:
        raise MismatchError(f"{path} has only the original labels; the revised ones come with 'rmd17'")
    return _checked(_BOTH if labels == "revised" else _MD17, path, keys)


def _rmd17_layout(path: Path, keys: set[str], _: Mapping[str, str]) -> Layout:
    """Return the layout of a file of rMD17; the original labels in it are not read."""
    if not keys.isdisjoint((_BOTH.energies, _BOTH.forces)):
        raise MismatchError(
            f"{path} carries both sets of labels; prepare it with the dataset 'md17' and --option "
            "labels=revised"
        )
    if not keys.isdisjoint(_MD17.keys):
        raise MismatchError(f"{path}: this is a file of MD17; prepare it with the dataset 'md17'")
    return _checked(_RMD17, path, keys)


_LAYOUTS = {"md17": _md17_layout, "rmd17": _rmd17_layout}
"""Return the layout of the file with the given keys, or refuse a file of the other dataset."""

_FILES = "{0}_<molecule>.npz, or the folder that holds such files"

MD17 = Importer(
    "md17",
    "MD17",
    _FILES.format("md17"),
    {
        "molecule": "which one, where --raw is a folder with several: aspirin, benzene, ...",
        "labels": "original or revised; needed for a file that carries both (E, F and E_revised, F_revised)",
    },
    partial(_open, "md17"),
)
RMD17 = Importer(
    "rmd17",
    "rMD17 (revised MD17)",
    _FILES.format("rmd17"),
    {"molecule": "which one, where --raw is a folder with several: aspirin, azobenzene, ..."},
    partial(_open, "rmd17"),
)


def _checked(layout: Layout, path: Path, keys: set[str]) -> Layout:
    missing = [key for key in layout.keys if key not in keys]
    if missing:
        listing = ", ".join(sorted(keys)[:12]) or "nothing"
        raise FormatError(
            f"{path}: no array {missing[0]!r}, which a file of {layout.title} has; it has: {listing}"
        )
    return layout


def _file_of(raw: Path, prefix: str, molecule: str | None) -> Path:
    """Return the file of the requested molecule."""
    if is_tar(raw):
        raise FormatError(f"{raw}: unpack this archive first (tar xf), then name the folder of its files")
    if not raw.is_dir():
        return raw
    paths: dict[str, Path] = {}
    for folder in (raw, raw / "npz_data", raw / prefix / "npz_data"):
        for path in sorted(folder.glob(f"{prefix}_*.npz")):
            paths.setdefault(_molecule_of(path, prefix), path)
    known = ", ".join(paths)
    if not paths:
        raise NotFoundError(f"{raw}: no file {prefix}_<molecule>.npz in this folder; unpack archives first")
    if molecule is None and len(paths) > 1:
        raise SettingError(
            f"{raw} holds several molecules; choose with --option molecule=..., one of: {known}"
        )
    if molecule is not None and molecule not in paths:
        raise NotFoundError(f"{raw}: no file {prefix}_{molecule}.npz; there are: {known}")
    return paths[molecule or next(iter(paths))]


def _molecule_of(path: Path, prefix: str) -> str:
    """Return the molecule of a file; MD17's benzene is published as `md17_benzene2017.npz`."""
    return path.stem.removeprefix(f"{prefix}_").removesuffix("2017")


class _File:
    """A file with consistent arrays, whose first frames are in the expected units."""

    def __init__(self, path: Path, layout: Layout, name: str) -> None:
        """Check the headers of the arrays and the first frames."""
        self._path, self._layout = path, layout
        with opened(path) as archive:
            has_frames = layout.frames in names(archive, path)
            self._keys = (*layout.keys, layout.frames) if has_frames else layout.keys
            columns = {key: Column(archive, path, key, whole=True) for key in self._keys}
            atoms, self.total = columns[layout.numbers].rows, columns[layout.positions].rows
            self._check_arrays(columns, atoms)
            numbers = columns[layout.numbers].take(atoms)
            first = min(self.total, 200)
            positions = _centred(columns[layout.positions].take(first))
            energies = columns[layout.energies].take(first).reshape(-1)
            forces = columns[layout.forces].take(first)
        try:
            self.molecule = Molecule(numbers, positions[0], name=name)
            check_labels(self.molecule.numbers, positions, energies, forces)
        except InputError as error:
            raise error.with_context(path) from error
        self.subset = has_frames and layout is not _RMD17
        _ = self.molecule.identity  # bonds are perceived once, in the first frame

    def _check_arrays(self, columns: Mapping[str, Column], atoms: int) -> None:
        layout, path = self._layout, self._path
        if not 0 < atoms <= _MAX_ATOMS or columns[layout.numbers].shape:
            raise FormatError(
                f"{path}: {layout.numbers!r} must be a list of at most {_MAX_ATOMS} atomic numbers"
            )
        if not self.total:
            raise FormatError(f"{path}: there are no frames in it")
        for key, column in list(columns.items())[1:]:
            shapes = [(atoms, 3)] if key in (layout.positions, layout.forces) else [(), (1,)]
            kinds = "iuf" if key == layout.frames else "f"
            if column.rows != self.total or column.shape not in shapes or column.dtype.kind not in kinds:
                raise FormatError(
                    f"{path}: {key!r} is {column.dtype} {(column.rows, *column.shape)}, which does not fit "
                    f"{self.total} frames of {atoms} atoms"
                )

        if layout.frames in columns and not all(
            np.isfinite(numbers).all() for numbers in chunks(columns[layout.frames])
        ):
            raise FormatError(f"{path}: {layout.frames!r} holds a value that is not a finite number")

    def candidates(self, start: int) -> Iterator[Candidate]:
        """Yield the frames from number `start` on, in the order of the file."""
        molecule = self.molecule
        with opened(self._path) as archive:
            columns = [Column(archive, self._path, key, whole=True) for key in self._keys[1:]]
            for column in columns:
                column.skip(start)
            size = max(1, _CHUNK_BYTES // (24 * len(molecule)))
            for begin in range(start, self.total, size):
                rows = min(size, self.total - begin)
                positions, energies, forces, *frames = (column.take(rows) for column in columns)
                numbers = frames[0].reshape(-1) if frames else np.arange(begin, begin + rows)
                for number, *frame in zip(
                    numbers, _centred(positions), energies.reshape(-1), forces, strict=True
                ):
                    yield Candidate(
                        f"{molecule.name} frame {number}", partial(frame_row, molecule, int(number), *frame)
                    )


def _centred(positions: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Move the mean of each frame [T, N, 3] to the origin: MD17's benzene drifts by hundreds of Å."""
    double = positions.astype(np.float64)
    centred: npt.NDArray[np.float64] = double - double.mean(axis=1, keepdims=True)
    return centred
