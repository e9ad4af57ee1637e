"""`molspectra reproduce`: an experiment of the paper, repeated."""

import shlex
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from molspectra.apps.commands.parser import CommandParser
from molspectra.errors import MolspectraError, SettingError
from molspectra.printable import say

UPDATE_INTERVAL = 30.0
"""Seconds between two updates of an unfinished page, whose figures take a second."""


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    options = _parser().parse_args(arguments)

    from molspectra.reproduce import attention, page, sizes
    from molspectra.reproduce.experiments import experiment
    from molspectra.reproduce.plan import Plan, check, make_plans
    from molspectra.reproduce.results import collect
    from molspectra.reproduce.run import execute, listed
    from molspectra.reproduce.scales import STORES, read_scale
    from molspectra.training.interrupt import Interrupted

    chosen = experiment(options.experiment)
    subject = _subject(chosen.kind, options.target, options.molecule)
    scale = read_scale(options.scale, chosen.key, options.set or ())
    stores = {kind: path for kind in STORES if (path := getattr(options, kind)) is not None}
    plans = make_plans(chosen, subject, scale, Path(options.out), stores, options.seeds or ())
    for plan in plans:
        check(plan)
    if options.plan:
        for plan in plans:
            say(listed(plan))
        return 0
    command = f"molspectra reproduce {shlex.join(arguments)}"
    plans[0].out.mkdir(parents=True, exist_ok=True)
    is_sized, written = chosen.is_sized, 0.0
    failures: dict[str, str] = {}

    def write(plan: Plan, failures: Mapping[str, str]) -> Path:
        results = collect(plan, failures)
        writer = attention.write if chosen.kind == "attention" else page.write
        path = writer(plan, results, command)
        return sizes.write(plans, command) if is_sized else path

    def write_regularly(plan: Plan, failures: Mapping[str, str]) -> None:
        nonlocal written
        if chosen.kind != "attention" and time.monotonic() - written > UPDATE_INTERVAL:
            write(plan, failures)
            written = time.monotonic()

    for plan in plans:
        try:
            failures |= execute(plan, partial(write_regularly, plan), show=not options.quiet)
        except Interrupted:
            write(plan, {})
            raise
        path = write(plan, failures)
        if chosen.kind != "attention" and not is_sized:
            say(page.text(collect(plan, failures)))
    if is_sized:
        say(sizes.text(plans))
    say(path)
    if failures:
        (name, reason), *others = failures.items()
        more = f" (and {len(others)} more)" if others else ""
        raise MolspectraError(f"{name} failed{more}: {reason}")
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(
        "reproduce",
        description="Repeat an experiment of the paper: make or continue its runs, and set the results "
        "beside the published ones. Interrupted, the same command continues. Experiments that share --out "
        "share their pre-training runs.",
    )
    parser.add_argument(
        "experiment",
        help="table2 (QM9), table3 (MD17), table4 to table7 (ablations), tableA1 (Frad), tableA2 (SliDe), "
        "pilot, attention; efficiency (errors by number of labels), forces (by number of frames), ablation "
        "(parts of stage 2 left out), base (the shipped model, by number of labels)",
    )
    parser.add_argument("--out", required=True, help="directory of the runs and results")
    parser.add_argument("--target", default=None, help="property; gap if not given")
    parser.add_argument("--molecule", default=None, help="molecule of MD17; aspirin if not given")
    parser.add_argument(
        "--scale", default="smoke", help="smoke, small, evidence, paper, or a YAML file like theirs"
    )
    parser.add_argument(
        "--seeds", type=_seeds, default=None, help="such as 0,1,2; those of the scale if not given"
    )
    parser.add_argument("--structures", default=None, metavar="STORE", help="structures of stage 1")
    parser.add_argument("--spectra", default=None, metavar="STORE", help="structures and spectra of stage 2")
    parser.add_argument(
        "--labels", default=None, metavar="STORE", help="structures and properties to fine-tune on"
    )
    parser.add_argument("--trajectory", default=None, metavar="STORE", help="frames with energy and forces")
    parser.add_argument(
        "--set",
        action="append",
        metavar="SECTION.SETTING=VALUE",
        help="change a setting of all, pretrain, stage1, stage2, qm9, md17 or pilot; may be given again",
    )
    parser.add_argument("--plan", action="store_true", help="only list the runs and their estimated time")
    parser.add_shared("--quiet")
    return parser


def _seeds(text: str) -> tuple[int, ...]:
    """Return the seeds of a list such as `0,1,2`."""
    try:
        seeds = tuple(int(number) for number in text.split(","))
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise SettingError(f"--seeds {text}: write different numbers from 0, such as 0,1,2")
    return seeds


def _subject(kind: str, target: str | None, molecule: str | None) -> str:
    """Return the property or molecule of the experiment; "" if it has none."""
    if molecule is not None and kind != "md17":
        what = "a property; give --target" if kind != "attention" else "no property and no molecule"
        raise SettingError(f"--molecule: this experiment is about {what}")
    if target is not None and kind in ("md17", "attention"):
        what = "the forces of a molecule; give --molecule" if kind == "md17" else "no property"
        raise SettingError(f"--target: this experiment is about {what}")
    if kind == "attention":
        return ""
    return (molecule or "aspirin") if kind == "md17" else (target or "gap")
