"""Protocol of the importers: each opens the raw files of a dataset and yields one candidate per record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from molspectra.data.store.schema import Metadata
from molspectra.data.store.writer import Candidate, Row
from molspectra.errors import MolspectraError, SettingError, hint

__all__ = ["Candidate", "Excluded", "Importer", "Opened", "Row", "checked_options", "choice"]


class Excluded(MolspectraError):
    """Raised by a candidate that the dataset's documentation excludes; the message is the kind of exclusion.

    It is counted under that kind (`Opened.excluded` holds the documented number) and is no rejection.
    """


@dataclass(frozen=True)
class Opened:
    """A raw dataset, opened and its layout checked.

    Attributes:
        metadata: description of the store: source, licence, level, units.
        candidates: `candidates(start)` yields all records from number `start` on, in file order and in
            constant memory. Every record of the raw data is one candidate: a bad one raises `InputError` in
            `make()`, one that is left out on purpose raises `Excluded` there. A fault that makes all later
            records unreadable (an archive cut short) is raised by the iteration itself.
        total: number of records expected, for progress and the count check.
        expected: rows that the published dataset has after its documented exclusions; a difference is
            reported.
        excluded: number of records by kind of documented exclusion, such as {"uncharacterised": 3054}.
        notes: remarks for the report.
    """

    metadata: Metadata
    candidates: Callable[[int], Iterator[Candidate]]
    total: int | None = None
    expected: int | None = None
    excluded: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Importer:
    """Reads one dataset.

    Attributes:
        name: name of the dataset in `molspectra prepare`.
        title: its name in reports.
        files: description of what `--raw` must hold.
        options: help texts by the names of its options.
        open: opens the raw files with the given options; raises `InputError` if the files are not what they
            should be, or an option has a wrong value.
    """

    name: str
    title: str
    files: str
    options: Mapping[str, str]
    open: Callable[[Path, Mapping[str, str]], Opened]


def checked_options(importer: Importer, given: Mapping[str, Any]) -> dict[str, str]:
    """Return the options given to an importer as texts, after checking their names.

    An option called `unit.NAME` stands for all names after the dot. Of a list the items are joined by commas.
    """
    for name in given:
        family = f"{name.partition('.')[0]}.NAME"
        if name not in importer.options and (family not in importer.options or name.endswith(".")):
            near = hint(name, importer.options)
            raise SettingError(f"dataset {importer.name!r} has no option {name!r}; {near}")
    return {
        name: ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        for name, value in given.items()
    }


def choice(options: Mapping[str, str], name: str, known: Mapping[str, object], default: str) -> str:
    """Return the value of an option that must be one of the known words."""
    value = options.get(name, default)
    if value not in known:
        raise SettingError(f"option {name}={value!r} is not known; {hint(value, known)}")
    return value
