"""Counts of a preparation, and the report that is written beside the store."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from molspectra.data.atomic import atomic_file, naming

MAX_REASONS = 100
"""Kinds of reasons that are counted separately; further kinds are counted together."""

NAMED = 20
"""Records that the report names; all of them are in `STORE.rejected.jsonl`."""

BESIDE = (".report.json", ".report.txt", ".rejected.jsonl")
"""Suffixes of the files beside a store."""

_OTHER = "other reasons"


@dataclass
class Tally:
    """Counts of one part of a dataset, or of all of it.

    Attributes:
        records: records read.
        rows: rows written.
        rejected: bad records, by kind of reason.
        repeated: records left out because an earlier one has the same elements and coordinates.
        excluded: records that the dataset's documentation excludes, by kind.
        spectra: spectra in the rows that were written.
        left_out: spectra left out of them, by "modality: kind of reason".
        changes: rows with converted or altered values, by kind of change.
        seconds: wall time.
        cpu_seconds: processor time.
    """

    records: int = 0
    rows: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    repeated: int = 0
    excluded: dict[str, int] = field(default_factory=dict)
    spectra: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    changes: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def add(self, other: Tally) -> None:
        """Add the counts of another part."""
        for name in ("records", "rows", "repeated", "spectra", "seconds", "cpu_seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("rejected", "excluded", "left_out", "changes"):
            for kind, number in getattr(other, name).items():
                count(getattr(self, name), kind, number)


def count(counts: dict[str, int], kind: str, number: int = 1) -> None:
    """Add to a count; beyond `MAX_REASONS` kinds, further ones are counted together."""
    key = kind if kind in counts or len(counts) < MAX_REASONS else _OTHER
    counts[key] = counts.get(key, 0) + number


def kind_of(reason: str) -> str:
    """Return a reason without what differs between records: files, numbers, quotations; QM9 stays QM9."""
    reason = re.sub(r"[^\s:]+\.\w+(?=: )", "…", reason)
    without = re.sub(r"'[^']*'|\"[^\"]*\"", "'…'", reason)
    return re.sub(r"(?<![A-Za-z0-9])[-+]?\d+(\.\d+)?([eE][-+]?\d+)?", "#", without)


@dataclass(frozen=True)
class Report:
    """Outcome of a preparation.

    Attributes:
        name: name of the dataset.
        title: its name in reports.
        out: path of the store.
        hash: SHA-256 of its content.
        options: options given to the importer.
        limit: largest number of records to read, None for all.
        tally: all counts.
        same_identity: rows that share their identity with an earlier row.
        by_geometry: rows whose identity is a hash of their geometry.
        total: records expected, None where unknown.
        expected: rows expected, None where unknown.
        documented: documented exclusions with the number expected.
        units: unit of each property and of positions and forces.
        remarks: remarks of the importer.
        resumed: parts taken over from an earlier, interrupted run.
        peak_mebibytes: largest memory of this process so far.
        named: the first rejections and left-out spectra, with record, name and reason.
    """

    name: str
    title: str
    out: str
    hash: str
    options: Mapping[str, str]
    limit: int | None
    tally: Tally
    same_identity: int
    by_geometry: int
    total: int | None
    expected: int | None
    documented: Mapping[str, int]
    units: Mapping[str, str]
    remarks: Mapping[str, str]
    resumed: int
    peak_mebibytes: float
    named: tuple[Mapping[str, object], ...]

    @property
    def differences(self) -> tuple[str, ...]:
        """Counts that differ from the expected ones, as text; nothing is expected of a run with a limit."""
        if self.limit is not None:
            return ()
        differences = []
        if self.total is not None and self.tally.records != self.total:
            differences.append(f"{self.tally.records:,} records read, {self.total:,} expected")
        for kind, number in self.documented.items():
            excluded = self.tally.excluded.get(kind, 0)
            if excluded != number:
                differences.append(f"{excluded:,} records {kind}, {number:,} documented")
        if self.expected is not None and self.tally.rows != self.expected:
            differences.append(
                f"{self.tally.rows:,} rows written, {self.expected:,} in the published dataset"
            )
        return tuple(differences)

    def write(self, rejected: Iterator[str]) -> None:
        """Write `STORE.report.json`, `STORE.report.txt` and, if there are any, `STORE.rejected.jsonl`.

        Args:
            rejected: lines of the third file.
        """
        out = Path(self.out)
        facts = {**asdict(self), "differences": self.differences}
        texts = (json.dumps(facts, ensure_ascii=False, indent=1) + "\n", self.text())
        for suffix, text in zip(BESIDE, texts, strict=False):
            path = out.with_name(out.name + suffix)
            with atomic_file(path) as file, naming(path):
                file.write(text.encode())
        listing = out.with_name(out.name + BESIDE[2])
        listing.unlink(missing_ok=True)
        if self.named:
            with atomic_file(listing) as file, naming(listing):
                file.writelines(line.encode() for line in rejected)

    def text(self) -> str:
        """Return the report as plain text."""
        tally = self.tally
        lines = [
            f"{self.title}: {tally.rows:,} rows in {self.out}",
            f"content hash {self.hash}",
            *(f"option {key} = {value}" for key, value in self.options.items()),
            *([f"only the first {self.limit:,} records were asked for"] if self.limit is not None else []),
            "",
            *(f"DIFFERENCE: {difference}" for difference in self.differences),
            f"records read            {tally.records:>12,}",
            *(f"left out, {kind:<13} {number:>12,}" for kind, number in tally.excluded.items()),
            f"rejected as bad         {sum(tally.rejected.values()):>12,}",
            *(f"    {number:>8,}  {kind}" for kind, number in _by_number(tally.rejected)),
            f"same geometry again     {tally.repeated:>12,}   (left out)",
            f"rows written            {tally.rows:>12,}",
            f"same identity again     {self.same_identity:>12,}   (kept)",
            f"identity from geometry  {self.by_geometry:>12,}   (no bonds were found)",
            f"spectra left out        {sum(tally.left_out.values()):>12,}",
            *(f"    {number:>8,}  {kind}" for kind, number in _by_number(tally.left_out)),
            *(f"rows altered            {number:>12,}   ({kind})" for kind, number in tally.changes.items()),
            "",
            "checked: structures (elements, coordinates, atoms too near), Å and not bohr, finite numbers,",
            "    columns and lengths, spectra (zero, negative, absurd), same geometry, same identity, counts",
            "units: " + ", ".join(f"{name} {unit or '1'}" for name, unit in self.units.items()),
            *(f"{key}: {value}" for key, value in self.remarks.items()),
            f"{tally.seconds:.1f} s, {tally.cpu_seconds:.1f} s of processor time, "
            f"{self.resumed} parts from an earlier run, at most {self.peak_mebibytes:.0f} MiB of memory",
        ]
        if self.named:
            lines += ["", f"the first {len(self.named)} that were rejected or lost a spectrum:"]
            lines += [
                f"    record {entry['record']} ({entry['name']}): {entry['reason']}" for entry in self.named
            ]
        return "\n".join(lines) + "\n"


def _by_number(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: -item[1])
