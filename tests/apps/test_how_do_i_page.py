"""Every command on docs/how_do_i.md is one that the program takes, with options and settings that exist."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from molspectra.apps.cli import main
from molspectra.apps.commands.parser import CommandParser

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how_do_i.md"
TEXT = PAGE.read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL) for line in block.strip().splitlines()
]


class Parsed(Exception):
    """The options were understood."""


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_the_command_is_understood(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    parse = CommandParser.parse_args

    def then_stop(self: CommandParser, *arguments: Any, **options: Any) -> Any:
        parse(self, *arguments, **options)
        raise Parsed

    monkeypatch.setattr(CommandParser, "parse_args", then_stop)
    monkeypatch.chdir(tmp_path)
    program, *arguments = shlex.split(command)
    assert program == "molspectra"
    with pytest.raises(Parsed):
        main(arguments)


def test_it_answers_many_questions() -> None:
    questions = re.findall(r"^\*\*… (.+?)\?\*\*", TEXT, re.MULTILINE)
    assert len(questions) == len(set(questions)) >= 35
