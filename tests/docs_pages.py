"""Does what a page of the documentation shows, in its order."""

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from molspectra.apps.cli import main

DOCS = Path(__file__).resolve().parents[1] / "docs"
BLOCK = re.compile(r"```\{code-block\} (\w+)\n(?::caption: ([^\n]*)\n)?\n?(.*?)\n```", re.DOTALL)


def follow(
    name: str, capsys: pytest.CaptureFixture[str], shorter: Callable[[str], str] = lambda command: command
) -> Iterator[tuple[str, Any]]:
    """Run commands and programs of a page and write its files, in the current folder.

    Blocks in `sh` are left to the reader. One with the caption "output" is what the commands before it print.

    Yields:
        (subcommand, what it printed) and ("python", what the programs so far have named).
    """
    said = ""
    names: dict[str, Any] = {}
    for language, caption, body in BLOCK.findall((DOCS / f"{name}.md").read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(body, f"{name}.md", "exec"), names)
            capsys.readouterr()
            yield "python", names
        elif language == "bash":
            said = ""
            for command in body.splitlines():
                program, *arguments = shlex.split(shorter(command))
                assert program == "molspectra"
                assert main(arguments) == 0, capsys.readouterr().err
                printed = capsys.readouterr().out
                said += printed
                yield arguments[0], printed
        elif caption == "output":
            assert said == body + "\n"
        elif caption:
            Path(caption).write_text(body + "\n", encoding="utf-8")
