"""A folder of outputs of Gaussian, ORCA and their like: one molecule per file, or per group of files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

from molspectra.data.store.schema import Metadata, Quantity
from molspectra.data.store.writer import Candidate, Row
from molspectra.datasets.importer import Importer, Opened, choice
from molspectra.datasets.own.shared import OPTIONS as COMMON
from molspectra.datasets.own.shared import ParsedRecord, ParsedSpectrum, own_options, row_of
from molspectra.errors import (
    FormatError,
    InputError,
    MismatchError,
    NotFoundError,
    SettingError,
    ValueRangeError,
)
from molspectra.spectra.files.calculation import Output, check_same
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

_ENERGY = "scf_energy"

Groups = list[tuple[str, list[Path]]]


def _open(raw: Path, options: Mapping[str, str]) -> Opened:
    """List the outputs; of each modality, the store takes the commonest level of theory."""
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
    """Group the files by molecule; return the name and the files of each."""
    if sign == "":
        raise SettingError("option merge must be a sign such as _")
    files = (
        [raw] if raw.is_file() else sorted(path for path in raw.rglob("*") if path.suffix.lower() in OUTPUT)
    )
    if not files:
        raise NotFoundError(f"{raw}: no files {' or '.join(OUTPUT)} in this folder")
    groups: dict[Path, list[Path]] = {}
    for path in files:
        stem = path.stem.rpartition(sign)[0] or path.stem if sign else path.stem
        groups.setdefault(path.with_name(stem), []).append(path)
    names = Counter(path.name for path in groups)
    return [
        (path.name if names[path.name] == 1 else path.relative_to(raw).as_posix(), files)
        for path, files in groups.items()
    ]


def _levels(groups: Groups) -> dict[str, str]:
    """Read every file once; return the commonest level by modality, under "" that of the structures."""
    counts: dict[str, Counter[str]] = {}
    reason = ""
    for path in (path for _, paths in groups for path in paths):
        try:
            output = read_output(path)
        except InputError as error:
            reason = reason or str(error)
            continue
        counts.setdefault("", Counter())[output.level] += 1
        for kind, lines in output.spectra.items():
            counts.setdefault(kind, Counter())[lines.level] += 1
    if not counts:
        raise FormatError(f"none of the outputs can be read; the first: {reason}")
    return {name: levels.most_common(1)[0][0] for name, levels in counts.items()}


def _candidates(groups: Groups, metadata: Metadata, keep: bool, start: int) -> Iterator[Candidate]:
    """Yield the molecules from number `start` on."""
    for name, paths in islice(groups, start, None):
        yield Candidate(name, partial(_row, name, paths, metadata, keep))


def _row(name: str, paths: list[Path], metadata: Metadata, keep: bool) -> Row:
    """Return the row of one molecule, with the structure of its first output with vibrations, if any."""
    outputs = [read_output(path) for path in paths]
    main = next((output for output in outputs if {"ir", "raman"} & set(output.spectra)), outputs[0])
    spectra: dict[str, Callable[[], ParsedSpectrum]] = {}
    for path, output in zip(paths, outputs, strict=True):
        check_same(main.molecule, output.molecule, path.name)
        if output.imaginary and not keep:
            modes = ", ".join(f"{value:.1f}" for value in output.imaginary[:5])
            advice = "not a minimum; imaginary=keep takes it all the same"
            raise ValueRangeError(f"{path.name}: imaginary modes at {modes} cm⁻¹: {advice}")
    for kind, level in metadata.lines.items():
        having = [output for output in outputs if kind in output.spectra]
        if having:
            best = next((output for output in having if output.spectra[kind].level == level), having[0])
            spectra[kind] = partial(_lines, best, kind, level)
    same = main.level == metadata.properties[_ENERGY].level
    energy = {_ENERGY: main.scf_energy} if main.scf_energy is not None and same else {}
    return row_of(ParsedRecord(partial(replace, main.molecule, name=name), energy, spectra=spectra))


def _lines(output: Output, kind: str, level: str) -> ParsedSpectrum:
    """Return the lines of one output, which must be of the level of the store."""
    lines = output.spectra[kind]
    if lines.level != level:
        raise MismatchError(f"its level is {lines.level!r}, that of the store {level!r}")
    return ParsedSpectrum(lines)


OUTPUTS = Importer(
    "outputs",
    "own data: a folder of outputs",
    f"a folder of outputs ({', '.join(OUTPUT)}) of Gaussian, ORCA or another program that cclib reads",
    OPTIONS,
    _open,
)
"""Importer `outputs`."""
