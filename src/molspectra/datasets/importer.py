"""What an importer of a published dataset is: it opens the raw files and yields one candidate per record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from molspectra.data.store.schema import Metadata
from molspectra.data.store.writer import Candidate, Row
from molspectra.errors import InputError, MolspectraError, hint

__all__ = ["Candidate", "Excluded", "Importer", "Opened", "Row", "checked_options", "choice", "flag"]


class Excluded(MolspectraError):
    """Raised by a candidate that the dataset's own documentation tells to leave out; the message is the key.

    It is counted under that key (`Opened.excluded` holds the number documented for it) and is no rejection.
    """


@dataclass(frozen=True)
class Opened:
    """A raw dataset, opened and its layout checked.

    Attributes:
        metadata: what the columns of the store mean: source, licence, level, units.
        candidates: `candidates(start)` yields all records from number `start` on, in file order and in
            constant memory. Every record of the raw data is one candidate: a bad one raises `InputError` in
            `make()`, one that is left out on purpose raises `Excluded` there. What makes all later records
            unreadable (an archive cut short) is raised by the iteration itself.
        total: number of records expected, for progress and the count check.
        expected: rows that the published dataset has after its documented exclusions; a difference is
            reported.
        excluded: documented exclusions and how many records each takes, such as {"uncharacterised": 3054}.
        notes: called at the end, for remarks that only reading the data could give; they go in the report.
    """

    metadata: Metadata
    candidates: Callable[[int], Iterator[Candidate]]
    total: int | None = None
    expected: int | None = None
    excluded: Mapping[str, int] = field(default_factory=dict)
    notes: Callable[[], Mapping[str, str]] = dict


class Importer(Protocol):
    """Reads one published dataset.

    Attributes:
        name: what `molspectra prepare` calls it.
        title: its name for people.
        files: what `--raw` must hold, in words.
        options: names of its options, each with its help.
    """

    @property
    def name(self) -> str:
        """What `molspectra prepare` calls it."""

    @property
    def title(self) -> str:
        """Its name for people."""

    @property
    def files(self) -> str:
        """What `--raw` must hold, in words."""

    @property
    def options(self) -> Mapping[str, str]:
        """Names of its options, each with its help."""

    def open(self, raw: Path, options: Mapping[str, str]) -> Opened:
        """Open the raw files; the names of the options have been checked, their values have not.

        Raises:
            InputError: if a file is missing or is not what it should be, or an option has a wrong value.
        """


def checked_options(importer: Importer, given: Mapping[str, str]) -> dict[str, str]:
    """Return the options given to an importer, after checking that it knows their names.

    An option called `unit.NAME` stands for all names after the dot.

    Raises:
        InputError: at one that it does not know.
    """
    for name in given:
        family = f"{name.partition('.')[0]}.NAME"
        if name not in importer.options and (family not in importer.options or name.endswith(".")):
            near = hint(name, importer.options)
            raise InputError(f"dataset {importer.name!r} has no option {name!r}; {near}")
    return dict(given)


def choice(options: Mapping[str, str], name: str, known: Mapping[str, object], default: str) -> str:
    """Return the value of an option that must be one of the known words.

    Raises:
        InputError: if it is another.
    """
    value = options.get(name, default)
    if value not in known:
        raise InputError(f"option {name}={value!r} is not known; {hint(value, known)}")
    return value


def flag(options: Mapping[str, str], name: str, default: bool = False) -> bool:
    """Return the value of an option that is true or false.

    Raises:
        InputError: if it is neither.
    """
    return choice(options, name, {"true": 1, "false": 0}, str(default).lower()) == "true"
