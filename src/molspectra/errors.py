"""Exceptions that a user of the package may meet; each message is one clear line."""

from collections.abc import Iterable


class MolspectraError(Exception):
    """Base of every error that the package raises on purpose."""


class InputError(MolspectraError):
    """Something that the user can mend: a file, an element, an option.

    The message is one line that says what is wrong, where (file and record), and what to do.
    """


class SimulationError(MolspectraError):
    """A quantum-chemical calculation did not reach a result for a valid input."""


def hint(word: str, known: Iterable[str], *, cutoff: float = 0.6, label: str = "known") -> str:
    """What to say of a word that is not known: the nearest one that is, or all of them.

    Args:
        word: what was given, spelt as the known words are.
        known: words that would do.
        cutoff: similarity (0 to 1) that the nearest needs.
        label: what to call the known words.
    """
    import difflib  # not needed until something is wrong

    words = list(known)
    close = difflib.get_close_matches(word, words, n=1, cutoff=cutoff)
    return f"did you mean {close[0]!r}?" if close else f"{label}: {', '.join(words) or 'none'}"
