"""Exceptions that a user of the package may meet; each message is one clear line."""

from collections.abc import Iterable
from typing import Self


class MolspectraError(Exception):
    """Base of every error that the package raises on purpose."""

    exit_code = 2
    """That of a command which it ends."""
    is_said = False
    """Another process of the same run says it; this one ends in silence."""


class InputError(MolspectraError):
    """Something that the user can mend: a file, an element, an option.

    The message is one line that says what is wrong, where (file and record), and what to do. A subclass says
    which kind of fault it is; programs and tests look at the class and at the facts in the message, not at
    its wording.
    """

    def with_context(self, context: object) -> Self:
        """Return the same kind of error with a context (a file, a row) and a colon put before its message."""
        return type(self)(f"{context}: {self}")


class NotFoundError(InputError):
    """A file, dataset, model, column, row or name that does not exist."""


class ExistsError(InputError):
    """An output that is there already and would be overwritten, or that another process is writing."""


class WriteError(InputError):
    """An output that cannot be written: permission, disk space, a folder that does not exist."""


class FormatError(InputError):
    """Content that cannot be read as what it claims to be: syntax, missing parts, an unknown kind of file."""


class NewerFormatError(FormatError):
    """A file that a newer version of this package wrote."""


class DamagedError(InputError):
    """A file that was written whole and is not any more: a wrong checksum, a cut end, offsets beyond it."""


class ValueRangeError(InputError):
    """A value that cannot be right: not finite, out of range, of a wrong length or sign."""


class UnitError(InputError):
    """A unit, axis or quantity that is missing, unknown or contradicts another."""


class ElementError(InputError):
    """A chemical element that does not exist, or that a model or method does not cover."""


class SettingError(InputError):
    """An option or setting that is unknown, of the wrong type, or contradicts another."""


class MismatchError(InputError):
    """Things that do not belong together: weights and model, run and data, training and test molecules."""


class MissingExtraError(InputError):
    """An optional package that is needed and not installed; the message says what to install."""


def check_format(where: object, found: object, known: int) -> None:
    """Refuse a file whose format number is not the one that this version reads.

    Args:
        where: the file, and what it should be.
        found: its number.
        known: the number that this version reads.

    Raises:
        NewerFormatError: it is a higher one.
        FormatError: it is any other.
    """
    if type(found) is int and found > known:
        raise NewerFormatError(
            f"{where}: its format {found} is newer than this version of molspectra, which reads {known}; "
            "install a newer version (pip install --upgrade molspectra)"
        )
    if type(found) is not int or found != known:
        raise FormatError(f"{where}: its format is {str(found)[:40]!r}, and {known} is read")


class LostProcessError(MolspectraError):
    """Another process of a run, perhaps on another machine, died or cannot be reached any more."""

    exit_code = 1


class SimulationError(MolspectraError):
    """A quantum-chemical calculation did not reach a result for a valid input."""


def closest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known word that is most similar to a given one; None below a similarity of `cutoff`."""
    import difflib  # not needed until something is wrong

    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return matches[0] if matches else None


def hint(word: str, known: Iterable[str], *, cutoff: float = 0.6, label: str = "known") -> str:
    """Return a suggestion for an unknown word: the most similar known one, or else all of them.

    Args:
        word: the unknown word, spelt as the known words are.
        known: words that would do.
        cutoff: similarity (0 to 1) that a suggestion needs.
        label: what to call the known words.
    """
    words = list(known)
    match = closest(word, words, cutoff)
    return f"did you mean {match!r}?" if match else f"{label}: {', '.join(words) or 'none'}"
