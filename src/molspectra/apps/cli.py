"""The command line `molspectra COMMAND ...`; each command is a module, imported when it runs."""

import os
import sys
from importlib import import_module

from molspectra._version import __version__
from molspectra.apps.process import prepare_process, show_messages
from molspectra.errors import MolspectraError, NotFoundError, hint
from molspectra.printable import say

COMMANDS = {
    "download": "fetch the files of a published dataset",
    "prepare": "make a store of a published dataset or of your own files",
    "export": "write a store as a Parquet file",
    "prepare-internal": "rotatable bonds, angles and torsions of a store, for Frad and SliDe",
    "audit-splits": "tell which test molecules occur in pre-training sets",
    "simulate": "compute IR, Raman and UV-Vis spectra of molecules",
    "pretrain": "pre-train an encoder (stage 1: structures; stage 2: structures and spectra)",
    "finetune": "fine-tune an encoder on a property",
    "tune": "search for the settings of a fine-tuning",
    "evaluate": "test a finished run: property errors, retrieval by spectra",
    "md": "molecular dynamics with a fine-tuned energy",
    "index": "make a library of molecules searchable by spectra",
    "search": "find the molecules of an index that fit spectra of a sample",
    "embed": "turn molecules or spectra into vectors",
    "predict": "predict a property, and forces, with units",
    "predict-spectrum": "predict IR, Raman and UV-Vis spectra of molecules",
    "export-model": "write a model as a file that PyTorch runs without this package",
    "import-reference": "take over weights of the paper's reference implementation",
    "explore": "open a local page: identify spectra, look at molecules, libraries and runs",
    "report": "write an HTML page about runs",
    "reproduce": "repeat an experiment of the paper beside its published values",
    "demo": "the whole path on the bundled data, in minutes",
    "doctor": "check this installation and machine",
}
"""Commands and their purposes; `x-y` is the function `main` of `molspectra.apps.commands.x_y`."""

LONGEST = 1_200
"""Characters of a longer message that are shown."""


def usage() -> str:
    """Return the text of `molspectra --help`."""
    width = max(map(len, COMMANDS))
    lines = [
        f"molspectra {__version__}: pre-training of 3D molecular encoders with energy spectra",
        "",
        "usage: molspectra COMMAND [options]",
        "",
        *(f"  {name:<{width}}  {purpose}" for name, purpose in COMMANDS.items()),
        "",
        "molspectra COMMAND --help tells a command's options; molspectra --version the version.",
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code (0 done, 1 another process lost, 2 bad input, 130 interrupted)."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        return _dispatch(arguments)
    except MolspectraError as error:
        if not error.is_said:
            is_interrupted = error.exit_code == 130
            say(f"molspectra: {'' if is_interrupted else 'error: '}{_line(error)}", error=True)
        return error.exit_code
    except KeyboardInterrupt:
        say("molspectra: interrupted", error=True)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains again at exit
        return 1
    except (MemoryError, RuntimeError) as error:
        if not _is_memory(error):
            raise
        say("molspectra: error: not enough memory; use smaller batches or a smaller file", error=True)
        return 2
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        say(f"molspectra: error: {where}{error.strerror or error}", error=True)
        return 2


def _is_memory(error: Exception) -> bool:
    """Whether an error is the lack of memory, which torch reports as a RuntimeError."""
    return isinstance(error, MemoryError) or any(
        words in str(error) for words in ("can't allocate memory", "out of memory")
    )


def _line(error: MolspectraError) -> str:
    """Return the message of an error in one line, without the middle where names of its file make it long."""
    text = " ".join(str(error).splitlines())
    return text if len(text) <= LONGEST else f"{text[: LONGEST * 2 // 3]} … {text[-LONGEST // 3 :]}"


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        say(usage())
        return 0 if arguments else 2
    name, rest = arguments[0], arguments[1:]
    if name == "--version":
        say(f"molspectra {__version__}")
        return 0
    if name not in COMMANDS:
        raise NotFoundError(f"unknown command {name!r}; {hint(name, COMMANDS)}")
    prepare_process()
    show_messages()
    command = import_module(f"molspectra.apps.commands.{name.replace('-', '_')}")
    code: int = command.main(rest)
    return code
