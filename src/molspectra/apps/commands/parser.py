"""Parser and options shared by the commands: one-line errors with a suggestion, no abbreviations."""

import argparse
import re
from collections.abc import Iterable
from typing import Any, NoReturn

from molspectra.errors import SettingError
from molspectra.printable import say
from molspectra.training.settings import did_you_mean
from molspectra.workers.executors import KINDS, Executor

_SHARED: dict[str, dict[str, Any]] = {
    "--device": {
        "default": "cpu",
        "help": "where to compute: cpu, cuda, a GPU by its number (cuda:1), mps, or auto: a CUDA GPU if "
        "there is one, else the CPU",
    },
    "--checkpoint": {
        "choices": ("best", "last"),
        "default": "best",
        "help": "weights with the lowest validation loss, or the newest",
    },
    "--overwrite": {"action": "store_true", "help": "replace --out"},
    "--plot": {"help": "figure to write: .png, .svg or .pdf; of the first 12 molecules"},
    "--quiet": {"action": "store_true", "help": "show no progress"},
}
"""Options that mean the same in every command."""


class CommandParser(argparse.ArgumentParser):
    """An `argparse` parser that raises `SettingError` instead of printing its usage and exiting."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(
            prog=f"molspectra {name}",
            allow_abbrev=False,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
            **options,
        )

    def add_shared(self, *names: str) -> None:
        """Add options of `_SHARED`, in this order."""
        for name in names:
            self.add_argument(name, **_SHARED[name])

    def add_molecules(self, option: str, files: str) -> Any:
        """Add the group of exclusive options `--smiles` and `option`, a file of molecules, and return it."""
        group = self.add_mutually_exclusive_group(required=True)
        group.add_argument(option, help=files)
        group.add_argument("--smiles", nargs="+", help="molecules as SMILES")
        return group

    def add_on_error(self, default: str, bad: str) -> None:
        """Add `--on-error`; `bad` names what is skipped, such as "bad records"."""
        self.add_argument(
            "--on-error", choices=("raise", "skip"), default=default, help=f"what to do with {bad}"
        )

    def add_executor(self) -> None:
        """Add `--executor` and `--workers`, which `executor_of` reads."""
        self.add_argument(
            "--executor",
            choices=("local", *KINDS),
            default="local",
            help="processes of this command, or workers here, in a SLURM or in a Flux allocation",
        )
        self.add_argument("--workers", type=int, default=None, help="number of workers of the executor")

    def error(self, message: str) -> NoReturn:
        """Raise a SettingError, with a suggestion for an unknown option."""
        unknown = re.search(r"unrecognized arguments: --?([\w.-]+)", message)
        if unknown:
            options = [option for action in self._actions for option in action.option_strings]
            known = {option.removeprefix("--") for option in options if option.startswith("--")}
            hint = did_you_mean(unknown[1], known).replace("mean ", "mean --")
            message += hint or f"; see {self.prog} --help"
        raise SettingError(message)


def executor_of(options: argparse.Namespace, cores: int = 1) -> Executor | None:
    """The executor that the options of `add_executor` ask for, with so many cores per worker; None for local.

    Raises:
        SettingError: an executor without a number of workers, or the reverse.
    """
    if options.executor == "local":
        if options.workers is not None:
            raise SettingError("--workers belongs to an executor; choose one with --executor")
        return None
    if options.workers is None:
        raise SettingError(f"--executor {options.executor} needs the number of workers: --workers")
    return Executor(options.executor, options.workers, cores)


def print_rejected(rejected: Iterable[object], verb: str) -> None:
    """Print rejected inputs on standard error; `verb` is what happened to them, such as "skipped"."""
    for rejection in rejected:
        say(f"molspectra: {verb}: {rejection}", error=True)


def print_figure(path: object, molecules: int) -> None:
    """Print where the figure of the spectra of so many molecules is, and how many of them it shows."""
    from molspectra.spectra.plots import DRAWN

    shown = f"the first {DRAWN} of {molecules}" if molecules > DRAWN else f"{molecules}"
    say(f"figure of {shown} molecules in {path}")
