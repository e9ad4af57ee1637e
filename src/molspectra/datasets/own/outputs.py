"""A folder of outputs of Gaussian, ORCA and their like: one molecule per file, or per group of files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from molspectra.data.store.schema import Metadata, Quantity
from molspectra.data.store.writer import Candidate, Row
from molspectra.datasets.importer import Opened, choice
from molspectra.datasets.own.shared import OPTIONS as COMMON
from molspectra.datasets.own.shared import Built, Known, OwnImporter, own_options, row_of
from molspectra.errors import InputError
from molspectra.spectra.files.calculation import Output
from molspectra.spectra.files.outputs import read_output
from molspectra.spectra.files.read import OUTPUT
from molspectra.spectra.modality import MODALITIES

OPTIONS: dict[str, str] = {
    "merge": "sign before the last part of the file names of one molecule: _ joins dvb_ir.out and dvb_td.out",
    "imaginary": "structures with imaginary modes: reject (default) or keep",
    "level": "level of the structures; that of the first output if not given",
    "source": COMMON["source"],
    "licence": COMMON["licence"],
}

_TOLERANCE = 0.02  # Å, between the distances of two outputs of one molecule
_ENERGY = "scf_energy"

Groups = list[tuple[str, list[Path]]]


def _open(raw: Path, options: Mapping[str, str]) -> Opened:
    """List the outputs; of each modality, the store takes the level that most of them have."""
    own = own_options(options, raw.name)
    keep = choice(options, "imaginary", {"reject": 1, "keep": 1}, "reject") == "keep"
    groups = _groups(raw, options.get("merge"))
    levels = _levels(groups)
    structure = levels.pop("")
    metadata = Metadata(
        source=own.source,
        licence=own.licence,
        level=own.level or structure,
        lines={name: levels[name] for name in MODALITIES if name in levels},
        properties={_ENERGY: Quantity("Hartree", structure)},
    )
    return Opened(metadata, partial(_candidates, groups, metadata, keep), total=len(groups))


def _groups(raw: Path, sign: str | None) -> Groups:
    """Files of each molecule, by its name."""
    if sign == "":
        raise InputError("option merge must be a sign such as _")
    files = (
        [raw] if raw.is_file() else sorted(path for path in raw.rglob("*") if path.suffix.lower() in OUTPUT)
    )
    if not files:
        raise InputError(f"{raw}: no files {' or '.join(OUTPUT)} in this folder")
    groups: dict[Path, list[Path]] = {}
    for path in files:
        stem = path.stem.rpartition(sign)[0] or path.stem if sign else path.stem
        groups.setdefault(path.with_name(stem), []).append(path)
    names = Counter(path.name for path in groups)
    return [
        (path.name if names[path.name] == 1 else path.relative_to(raw).as_posix(), found)
        for path, found in groups.items()
    ]


def _levels(groups: Groups) -> dict[str, str]:
    """The commonest level of each modality, and under "" that of the structures; reads every file once.

    Raises:
        InputError: if no output can be read.
    """
    found: dict[str, Counter[str]] = {}
    reason = ""
    for path in (path for _, paths in groups for path in paths):
        try:
            output = read_output(path)
        except InputError as error:
            reason = reason or str(error)
            continue
        for name, level in {
            "": output.level,
            **{kind: each.level for kind, each in output.spectra.items()},
        }.items():
            found.setdefault(name, Counter())[level] += 1
    if not found:
        raise InputError(f"none of the outputs can be read; the first: {reason}")
    return {name: levels.most_common(1)[0][0] for name, levels in found.items()}


def _candidates(groups: Groups, metadata: Metadata, keep: bool, start: int) -> Iterator[Candidate]:
    """Every molecule from number `start` on."""
    for name, paths in islice(groups, start, None):
        yield Candidate(name, partial(_row, name, paths, metadata, keep))


def _row(name: str, paths: list[Path], metadata: Metadata, keep: bool) -> Row:
    """The row of one molecule: the structure of its first output with vibrations, else of its first."""
    outputs = [read_output(path) for path in paths]
    main = next((each for each in outputs if {"ir", "raman"} & set(each.spectra)), outputs[0])
    spectra: dict[str, Callable[[], Built]] = {}
    for path, output in zip(paths, outputs, strict=True):
        _check_same(main, output, path)
        if output.imaginary and not keep:
            modes = ", ".join(f"{value:.1f}" for value in output.imaginary[:5])
            advice = "not a minimum; imaginary=keep takes it all the same"
            raise InputError(f"{path.name}: imaginary modes at {modes} cm⁻¹: {advice}")
        for kind in output.spectra:
            spectra.setdefault(kind, partial(_lines, output, kind, metadata.lines.get(kind, "")))
    same = main.level == metadata.properties[_ENERGY].level
    energy = {_ENERGY: main.scf_energy} if main.scf_energy is not None and same else {}
    return row_of(Known(partial(replace, main.molecule, name=name), energy, spectra=spectra))


def _lines(output: Output, kind: str, level: str) -> Built:
    """The lines of one output, if they are of the level of the store."""
    lines = output.spectra[kind]
    if lines.level != level:
        raise InputError(f"its level is {lines.level!r}, that of the store {level!r}")
    return Built(lines)


def _check_same(main: Output, other: Output, path: Path) -> None:
    """Refuse to join outputs of different molecules, atom orders or structures."""
    one, two = main.molecule, other.molecule
    if one.charge != two.charge or not np.array_equal(one.numbers, two.numbers):
        raise InputError(f"{path.name} is of {two!r}, the other outputs of {one!r}: not the same molecule")
    apart = [np.linalg.norm(m.positions[:, None] - m.positions[None], axis=-1) for m in (one, two)]
    worst = float(np.abs(apart[0] - apart[1]).max())
    if worst > _TOLERANCE:
        raise InputError(f"{path.name}: a distance differs by {worst:.3f} Å from that in the other outputs")


OUTPUTS = OwnImporter(
    "outputs",
    "own data: a folder of outputs",
    f"a folder of outputs ({', '.join(OUTPUT)}) of Gaussian, ORCA or another program that cclib reads",
    OPTIONS,
    _open,
)
"""Importer `outputs`."""
