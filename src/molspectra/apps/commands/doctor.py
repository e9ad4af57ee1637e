"""`molspectra doctor`: check this installation and machine."""

from molspectra.apps.commands.parser import CommandParser
from molspectra.printable import say

MARKS = {"ok": "ok     ", "missing": "missing", "failed": "FAILED "}


def main(arguments: list[str]) -> int:
    """Run the command; returns 0, or 1 where a check failed."""
    parser = CommandParser("doctor", description="Check versions, devices, optional parts; test in seconds.")
    parser.parse_args(arguments)

    from molspectra.apps.doctor import checks

    failed = False
    for check in checks():
        say(f"{MARKS[check.state]}  {check.name}: {check.detail}")
        failed = failed or check.state == "failed"
    return int(failed)
