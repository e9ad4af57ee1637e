"""`molspectra doctor`: check this installation and machine."""

from molspectra.apps.commands.parser import CommandParser
from molspectra.printable import say

MARKS = {"ok": "ok     ", "missing": "missing", "failed": "FAILED "}


def main(arguments: list[str]) -> int:
    """Run the command; returns 0, or 1 where a check failed."""
    parser = CommandParser("doctor", description="Check versions, devices, optional parts; test in seconds.")
    parser.add_argument(
        "--gpu",
        action="store_true",
        help="check a CUDA GPU instead, in minutes: numbers of the CPU, physics, times; write --out",
    )
    parser.add_argument(
        "--out", default="doctor-gpu.json", help="with --gpu: report to write, which can be sent in"
    )
    parser.add_shared("--overwrite")
    options = parser.parse_args(arguments)
    if options.gpu:
        return _check_gpu(options.out, options.overwrite)

    from molspectra.apps.doctor import checks

    failed = False
    for check in checks():
        say(f"{MARKS[check.state]}  {check.name}: {check.detail}")
        failed = failed or check.state == "failed"
    return int(failed)


def _check_gpu(out: str, overwrite: bool) -> int:
    from molspectra.apps.doctor_gpu import gpu, report
    from molspectra.data.output import free_path
    from molspectra.training.record import write_json

    device = gpu()
    path = free_path(out, (".json",), overwrite=overwrite)
    found = report(device, show=True)
    write_json(path, found)
    for name in found["failed"]:
        say(f"{MARKS['failed']}  {name}")
    state = "all checks passed" if found["ok"] else f"{len(found['failed'])} checks failed"
    say(f"{found['device']['name']}: {state}; {path} has the numbers and no names or paths, send it in")
    return int(not found["ok"])
