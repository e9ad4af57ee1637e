"""What files and names say reaches neither a terminal nor a report as commands to it."""

import logging
from pathlib import Path

import pytest

from molspectra.apps.cli import main
from molspectra.apps.commands.parser import print_rejected
from molspectra.apps.process import show_messages
from molspectra.printable import printable
from molspectra.reporting.markup import element

COMMANDS = "\x1b\x9b\x07\r\x08\x7f\u202e\u2066\u200f\u061c\u2028\udc80"
HOSTILE = f"red {'a'.join(COMMANDS)} molecule"


def assert_harmless(text: str) -> None:
    assert not set(text) & set(COMMANDS)
    assert "\ufffd" in text


def test_characters_that_command_are_replaced_and_others_kept() -> None:
    assert_harmless(printable(HOSTILE))
    kept = "Å cm⁻¹ é\t水 עברית\n-"
    assert printable(kept) == kept


def test_an_error_is_one_harmless_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert (
        main(["export", str(tmp_path / f"a{HOSTILE}\nb.arrow"), "--out", str(tmp_path / "out.parquet")]) == 2
    )
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert_harmless(said.removesuffix("\n"))


def test_rejections_and_messages_are_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    print_rejected([f"row 1: {HOSTILE}"], "skipped")
    assert_harmless(capsys.readouterr().err)
    show_messages()
    logging.getLogger("molspectra").warning("%s", HOSTILE)
    assert_harmless(capsys.readouterr().err)


def test_a_report_is_harmless() -> None:
    assert_harmless(element("p", HOSTILE, title=HOSTILE))
