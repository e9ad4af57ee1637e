"""Options shared by `pretrain` and `finetune`: recipes, `--config`, one per setting, `--out`, `--resume`."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from molspectra.apps.commands.parser import CommandParser
from molspectra.errors import FormatError
from molspectra.printable import say
from molspectra.training.configuration import STAGES, configured
from molspectra.training.record import read_json
from molspectra.training.run import RunResult, finetune, pretrain
from molspectra.training.settings import Setting, read_recipe, recipes, settings_of

_PURPOSES = {
    "pretrain": "Pre-train a 3D encoder: denoising, and with a spectrum encoder also reconstruction and "
    "alignment.",
    "finetune": "Fine-tune a 3D encoder on a property of the store, or on several at once.",
}


def run_command(name: str, arguments: list[str]) -> int:
    """Parse the options of a training command and run it; returns the exit code."""
    cls: type[Any] = STAGES[name]
    run: Callable[..., RunResult] = pretrain if name == "pretrain" else finetune
    is_help = bool({"-h", "--help"} & set(arguments))
    settings = settings_of(cls, documented=is_help)
    options = vars(_parser(name, settings).parse_args(arguments))
    source, values = _base(name, options)
    given = {setting.name: options[setting.name] for setting in settings if setting.name in options}
    if "target" in given:  # --target gap homo alpha
        given["target"] = ",".join(given["target"])
    config = configured(cls, values, given, source, shipped=options.get("config") in recipes())
    result = run(config, options["out"], resume=options["resume"], show=not options["quiet"])
    if result.rank == 0:
        for key, value in result.metrics.items():
            say(f"val/{key}: {value:.6g}")
        say(f"{result.directory} ({result.seconds:.1f} s)")
    return 0


def _parser(name: str, settings: list[Setting]) -> CommandParser:
    usage = f"molspectra {name} --out DIRECTORY [--config RECIPE] [--resume] [--quiet] [--SETTING VALUE ...]"
    parser = CommandParser(
        name,
        usage=usage,
        description=_PURPOSES[name],
        epilog=f"Recipes: {', '.join(sorted(recipes()))}. Lists are written a,b,c and nothing is null. "
        "Ctrl-C, SIGTERM and SIGUSR1 (of SLURM: a requeue, --signal=USR1@120) save and exit with code 130; "
        "the same command with --resume continues.",
    )
    unset = argparse.SUPPRESS
    parser.add_argument(
        "--config", metavar="RECIPE", default=unset, help="YAML file or name of a recipe; options win over it"
    )
    parser.add_argument(
        "--out", required=True, metavar="DIRECTORY", default=unset, help="run directory to make"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the run in --out (with its settings), or start it"
    )
    parser.add_shared("--quiet")
    for setting in settings:
        about = f"{setting.help} [{setting.expected}; default: {_shown(setting.default)}]".replace("%", "%%")
        parser.add_argument(
            f"--{setting.name}",
            dest=setting.name,
            metavar="VALUE",
            type=setting.parse,
            default=unset,
            help=about,
            nargs="+" if setting.name == "target" else None,
        )
    return parser


def _base(name: str, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the source of the settings, for messages, and the settings that the options override."""
    earlier = Path(options["out"]) / "config.json"
    if "config" in options:
        return options["config"], read_recipe(options["config"])
    if options["resume"] and earlier.is_file():
        values = read_json(earlier)
        if not isinstance(values, dict):
            raise FormatError(f"{earlier}: not the settings of a run")
        return str(earlier), values
    return name, {}


def _shown(default: Any) -> str:
    """Return a default as it is written on the command line."""
    if default is None or isinstance(default, bool):
        return "null" if default is None else str(default).lower()
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
