"""QM9: 133,885 molecules of up to nine C, N, O, F atoms with 19 targets, in both published forms."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path

from molspectra.chem.records import short_lines
from molspectra.data.store.schema import Metadata
from molspectra.datasets.formats.archives import first_name, is_tar
from molspectra.datasets.importer import Candidate, Importer, Opened, choice
from molspectra.datasets.published import qm9_sdf, qm9_xyz
from molspectra.datasets.published.qm9_targets import LEVEL, notes, quantities
from molspectra.errors import FormatError, NotFoundError

TOTAL = 133_885
"""Molecules in both published forms."""

UNCHARACTERISED = 3_054
"""Molecules whose relaxed geometry has another SMILES or InChI than the initial geometry."""

LIST = "uncharacterized.txt"
"""File with their indices, published beside the archive."""

_SOURCE = (
    "QM9: R. Ramakrishnan, P. O. Dral, M. Rupp, O. A. von Lilienfeld, Quantum chemistry structures and "
    "properties of 134 kilo molecules, Sci. Data 1, 140022 (2014), doi:10.1038/sdata.2014.22"
)

_Candidates = Callable[[Path, Collection[int], int], Iterator[Candidate]]


_FILES = (
    "a folder with uncharacterized.txt and with dsgdb9nsd.xyz.tar.bz2, or with gdb9.sdf and gdb9.sdf.csv "
    "(or the archive gdb9.tar.gz of both)"
)


def _open(raw: Path, options: Mapping[str, str]) -> Opened:
    """Open QM9 as `dsgdb9nsd.xyz.tar.bz2` or as `gdb9.sdf` with `gdb9.sdf.csv`."""
    keep = choice(options, "keep-uncharacterised", dict.fromkeys(("true", "false")), "false") == "true"
    form = choice(options, "form", dict.fromkeys(("auto", "xyz", "sdf")), "auto")
    path, candidates = _form_of(raw, form)
    folder = raw if raw.is_dir() else raw.parent
    left_out = frozenset[int]() if keep else uncharacterised(folder / LIST)
    about = "all molecules kept" if keep else f"{len(left_out)} uncharacterised molecules left out"
    metadata = Metadata(
        source=_SOURCE,
        licence="CC0",
        level=LEVEL,
        properties=quantities(),
        notes={**notes(), "molecules": about, "name": "gdb_ and the index in QM9, from 1"},
    )
    return Opened(
        metadata,
        partial(candidates, path, left_out),
        total=TOTAL,
        expected=TOTAL if keep else TOTAL - UNCHARACTERISED,
        excluded={} if keep else {"uncharacterised": UNCHARACTERISED},
    )


QM9 = Importer(
    "qm9",
    "QM9",
    _FILES,
    {
        "keep-uncharacterised": "true | false (default); true keeps the molecules of uncharacterized.txt",
        "form": "xyz | sdf | auto (default): which form to read; auto prefers xyz, which has more digits",
    },
    _open,
)
"""Importer `qm9`."""


def uncharacterised(path: Path) -> frozenset[int]:
    """Read QM9 indices from `uncharacterized.txt`.

    The file has nine lines of text before its rows and one after; a row begins with the index.

    Raises:
        InputError: if the file is missing, or names no molecule of QM9.
    """
    if not path.is_file():
        raise NotFoundError(
            f"{path} is missing, the list of {UNCHARACTERISED:,} molecules to leave out; fetch it from "
            "the source of QM9, or give --option keep-uncharacterised=true"
        )
    with short_lines(path.open("rb"), path, errors="replace") as lines:
        firsts = (line.split()[:1] for line in lines)
        indices = frozenset(
            int(word) for words in firsts for word in words if word.isdecimal() and len(word) < 10
        )
    if not indices or not indices <= frozenset(range(1, TOTAL + 1)):
        raise FormatError(f"{path} is not the list of QM9's uncharacterised molecules")
    return indices


def _form_of(raw: Path, form: str) -> tuple[Path, _Candidates]:
    """Return the archive or folder to read, and its reader."""
    if form != "sdf" and (path := _archive_of_xyz(raw)) is not None:
        return path, qm9_xyz.candidates
    if form != "xyz" and (path := _holder_of_sdf(raw)) is not None:
        qm9_sdf.columns(path)  # which raises if a target is missing
        return path, qm9_sdf.candidates
    raise NotFoundError(
        f"{raw} holds no QM9{'' if form == 'auto' else f' in form {form}'}; it must be {_FILES}"
    )


def _archive_of_xyz(raw: Path) -> Path | None:
    """Return the archive or folder of small files, which may be `raw` itself."""
    if raw.is_file():
        return raw if is_tar(raw) and qm9_xyz.is_molecule(first_name(raw)) else None
    for path in sorted(raw.iterdir()):
        if path.name.startswith("dsgdb9nsd") and (is_tar(path) or path.is_dir()):
            return path
    return raw if any(qm9_xyz.is_molecule(path.name) for path in raw.iterdir()) else None


def _holder_of_sdf(raw: Path) -> Path | None:
    """Return the folder or archive that holds `gdb9.sdf`, which may be `raw` itself."""
    if raw.is_file():
        return raw.parent if raw.name in (qm9_sdf.STRUCTURES, qm9_sdf.TABLE) else raw
    if (raw / qm9_sdf.STRUCTURES).is_file():
        return raw
    bundles = (f"{name}{suffix}" for name in ("gdb9", "qm9") for suffix in (".tar.gz", ".tar", ".zip"))
    return next((raw / name for name in bundles if (raw / name).is_file()), None)
