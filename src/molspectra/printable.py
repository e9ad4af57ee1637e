"""Text from files and names, made safe to show: on a terminal and in a report."""

import re
import sys

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and line feed
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # marks that turn the direction, separators of lines
    "\ud800-\udfff]"  # lone surrogates, which cannot be encoded
)


def printable(text: str) -> str:
    """Return a text with U+FFFD in place of characters that move the cursor, or turn or hide other text."""
    return _UNSAFE.sub("\ufffd", text)


def say(text: object, *, error: bool = False) -> None:
    """Print a text, made printable, at once; on standard error where it is not a result."""
    print(printable(str(text)), file=sys.stderr if error else sys.stdout, flush=True)
