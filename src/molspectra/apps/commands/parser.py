"""Argument parsing shared by the plain commands: one-line errors with a suggestion, no abbreviations."""

import argparse
import difflib
import re
from typing import Any, NoReturn

from molspectra.errors import InputError


class CommandParser(argparse.ArgumentParser):
    """An `argparse` parser that raises `InputError` instead of printing its usage."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(
            prog=f"molspectra {name}",
            allow_abbrev=False,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
            **options,
        )

    def error(self, message: str) -> NoReturn:
        """Raise `InputError` with a suggestion for an unknown option."""
        unknown = re.search(r"unrecognized arguments: (--?[\w-]+)", message)
        if unknown:
            known = [option for action in self._actions for option in action.option_strings]
            close = difflib.get_close_matches(unknown[1], known, n=1)
            message += f"; did you mean {close[0]}?" if close else f"; see {self.prog} --help"
        raise InputError(message)
