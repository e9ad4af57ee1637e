"""The total charge of a structure, in the forms in which programs write it beside the atoms."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from molspectra.chem.molecule import whole
from molspectra.errors import FormatError, MismatchError, ValueRangeError

_TOTAL = re.compile(
    r"(?:(?:total|tot|net|mol|molecule|molecular|system|formal)_?)?charge(?:_?(?:total|tot))?", re.ASCII
)
_OF_ATOMS = re.compile(r"(?!nuclear|core|effective)\w*charges?", re.ASCII)
_IN_WORDS = re.compile(r"\bcharge(?:\s*[:=])?\s*([+-]?[\d.]+)(?![\w.])", re.ASCII | re.IGNORECASE)
_WITH_MULTIPLICITY = re.compile(r"\s*([+-]?\d{1,4})[\s,]+(\d{1,4})\s*", re.ASCII)
_SIGNED = re.compile(r"\s*([+-]\d{1,4})(\s+\d{1,4}\s+\S.*|\s*)", re.ASCII)

_SUM_TOLERANCE = 0.05  # rounded partial charges add up to a whole number no better than this


def is_total_charge(key: str, text: str) -> bool:
    """Whether a named value is a total charge: `charge`, `total_charge` and so on, or `q` if it is whole."""
    word = key.lower()
    return _TOTAL.fullmatch(word) is not None or (
        word in ("q", "qtot", "q_tot") and re.fullmatch(r"[+-]?\d{1,4}", text) is not None
    )


def is_charge_of_atoms(column: str) -> bool:
    """Whether a column of this name holds a charge for each atom."""
    return _OF_ATOMS.fullmatch(column.lower()) is not None


def stated_charge(values: Mapping[str, str]) -> int | None:
    """Return the total charge that named values state, or None without one.

    Raises:
        FormatError: a total charge that is not a number.
        ValueRangeError: one that is not a whole number.
        MismatchError: two that differ.
    """
    charges = {key: _whole(key, text) for key, text in values.items() if is_total_charge(key, text)}
    if len(set(charges.values())) > 1:
        raise MismatchError("two different charges: " + ", ".join(f"{k}={v}" for k, v in charges.items()))
    return next(iter(charges.values()), None)


def _whole(key: str, text: str) -> int:
    try:
        value = float(text.rstrip("=,;"))  # some programs write `charge=-1=`
    except ValueError as error:
        raise FormatError(f"{key}={text[:40]} is not a number") from error
    if value != value:
        raise FormatError(f"{key}={text[:40]} is not a number")
    charge = whole(value)
    if charge is None:
        raise ValueRangeError(f"{key}={text[:40]} is not a whole number")
    return charge


def check_charge(values: Mapping[str, str], charge: int) -> None:
    """Check that the charge of a molecule is the one that named values state, if any of them is one.

    Raises:
        InputError: if it is another, or the stated one is not a whole number.
    """
    stated = stated_charge({key: text for key, text in values.items() if _is_number(text)})
    if stated is not None and stated != charge:
        raise MismatchError(
            f"the charge is stated as {stated:+d}, but those of the atoms add up to {charge:+d}"
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def is_charge_line(comment: str) -> bool:
    """Whether a comment is nothing but a charge, with a multiplicity or a sign: `-1 1`, `0,1`, `+1`."""
    signed = _SIGNED.fullmatch(comment)
    return _WITH_MULTIPLICITY.fullmatch(comment) is not None or bool(signed and not signed[2].strip())


def charge_in_words(comment: str, nuclear: int) -> int | None:
    """Return the charge in a comment without entries, such as `-1 1` or `charge: -1`; None without one.

    Args:
        comment: one line.
        nuclear: sum of the atomic numbers.

    Raises:
        ValueRangeError: a fraction, or a charge and multiplicity that contradict the number of electrons.
    """
    pair = _WITH_MULTIPLICITY.fullmatch(comment)
    if pair:
        charge, unpaired = int(pair[1]), int(pair[2]) - 1
        electrons = nuclear - charge
        if not 0 <= unpaired <= electrons or (electrons - unpaired) % 2:
            raise ValueRangeError(
                f"the comment {comment.strip()!r} reads as charge and multiplicity, which do not fit "
                f"{electrons} electrons; write charge=0, or whatever it is, as the comment"
            )
        return charge
    signed = _SIGNED.fullmatch(comment)
    if signed:
        return int(signed[1])
    words = _IN_WORDS.search(comment)
    return _whole("charge", words[1]) if words else None


def sum_of_charges(column: str, charges: Sequence[float]) -> int:
    """Return the total of the charges of the atoms.

    Raises:
        ValueRangeError: if it is not a whole number.
    """
    total = whole(sum(charges), _SUM_TOLERANCE)
    if total is None:
        raise ValueRangeError(
            f"the column {column!r} adds up to {sum(charges):.4g}, which is not a whole number; state "
            "the charge in the comment (charge=0)"
        )
    return total
