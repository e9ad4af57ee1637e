"""Argument parsing shared by the commands: one-line errors with a suggestion, no abbreviations."""

import argparse
import re
from typing import Any, NoReturn

from molspectra.errors import InputError
from molspectra.training.settings import did_you_mean


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
        """Raise `InputError` with a suggestion for an unknown option.

        Raises:
            InputError: always.
        """
        unknown = re.search(r"unrecognized arguments: --?([\w.-]+)", message)
        if unknown:
            options = [option for action in self._actions for option in action.option_strings]
            known = {option.removeprefix("--") for option in options if option.startswith("--")}
            hint = did_you_mean(unknown[1], known).replace("mean ", "mean --")
            message += hint or f"; see {self.prog} --help"
        raise InputError(message)
