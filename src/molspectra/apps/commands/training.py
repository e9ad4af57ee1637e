"""Options shared by `pretrain` and `finetune`: recipes, `--config`, one per setting, `--out`, `--resume`."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from molspectra.apps.commands.parser import CommandParser
from molspectra.errors import FormatError, SettingError
from molspectra.printable import say
from molspectra.training.checkpoint import encoder_of
from molspectra.training.config import FinetuneConfig, PretrainConfig
from molspectra.training.record import read_json
from molspectra.training.run import RunResult, finetune, pretrain
from molspectra.training.settings import (
    Setting,
    from_dict,
    read_recipe,
    recipes,
    settings_of,
    shown,
    to_dict,
)

_PURPOSES = {
    "pretrain": "Pre-train a 3D encoder: denoising, and with a spectrum encoder also reconstruction and "
    "alignment.",
    "finetune": "Fine-tune a 3D encoder on a property of the store, or on several at once.",
}

EVERYDAY = (
    "target", "forces", "init", "data.store", "data.train_rows", "loop.steps", "loop.batch_size",
    "optimizer.learning_rate", "loop.seed", "loop.accelerator",
)  # fmt: skip
"""Settings that `--help` shows, in this order; `--help-all` shows all."""

ALIASES = {"loop.accelerator": ["--device"]}
"""Other names of settings: the option that means the same in the other commands."""


def run_command(name: str, arguments: list[str]) -> int:
    """Parse the options of a training command and run it; returns the exit code."""
    cls: type[Any] = PretrainConfig if name == "pretrain" else FinetuneConfig
    run: Callable[..., RunResult] = pretrain if name == "pretrain" else finetune
    every = "--help-all" in arguments
    is_help = every or bool({"-h", "--help"} & set(arguments))
    settings = settings_of(cls, documented=is_help)
    options = vars(_parser(name, settings, every).parse_args(arguments))
    if "target" in options:  # --target gap homo alpha
        options["target"] = ",".join(options["target"])
    source, values = _base(name, options)
    _take_encoder(values, options)
    for setting in settings:
        if setting.name in options:
            _put(values, setting.name, options[setting.name], source)
    config = from_dict(cls, values, source)
    result = run(config, options["out"], resume=options["resume"], show=not options["quiet"])
    if result.rank == 0:
        for key, value in result.metrics.items():
            say(f"val/{key}: {value:.6g}")
        say(f"{result.directory} ({result.seconds:.1f} s)")
    return 0


def _parser(name: str, settings: list[Setting], every: bool) -> CommandParser:
    """Return the parser; its help shows every setting, in a group per prefix, or the everyday ones."""
    usage = f"molspectra {name} --out DIRECTORY [--config RECIPE] [--resume] [--quiet] [--SETTING VALUE ...]"
    parser = CommandParser(
        name,
        usage=usage,
        description=_PURPOSES[name],
        epilog=("" if every else f"--help-all shows all {len(settings)} settings. ")
        + f"Recipes: {', '.join(sorted(recipes()))}. Lists are written a,b,c and nothing is null. "
        "Ctrl-C, SIGTERM and SIGUSR1 (of SLURM: a requeue, --signal=USR1@120) save and exit with code 130; "
        "the same command with --resume continues.",
    )
    unset = argparse.SUPPRESS
    parser.add_argument("--help-all", action="help", default=unset, help="show all settings, in groups")
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
    rank = {} if every else {name: place for place, name in enumerate(EVERYDAY)}
    groups: dict[str, Any] = {}
    for setting in sorted(settings, key=lambda each: rank.get(each.name, len(rank))):
        prefix = setting.name.rpartition(".")[0] if every else ""
        if prefix not in groups:
            groups[prefix] = parser.add_argument_group(prefix or "settings")
        about = setting.help if every else _first_sentence(setting.help)
        about = f"{about} [{setting.expected}; default: {_shown(setting.default)}]".replace("%", "%%")
        groups[prefix].add_argument(
            *ALIASES.get(setting.name, []),
            f"--{setting.name}",
            dest=setting.name,
            metavar="VALUE",
            type=setting.parse,
            default=unset,
            help=about if every or setting.name in rank else argparse.SUPPRESS,
            nargs="+" if setting.name == "target" else None,
        )
    return parser


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=\.) (?=[A-Z])", text, maxsplit=1)[0]


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


def _take_encoder(values: dict[str, Any], options: dict[str, Any]) -> None:
    """Begin the settings with the encoder of what the run starts from, which wins over a shipped recipe's."""
    init, model = options.get("init"), values.setdefault("model", {})
    if init and isinstance(model, dict) and ("encoder" not in model or options.get("config") in recipes()):
        model["encoder"] = to_dict(encoder_of(init))


def _put(values: dict[str, Any], name: str, value: Any, source: str) -> None:
    """Set the setting with this dotted name in nested settings."""
    *groups, last = name.split(".")
    for group in groups:
        if values.get(group) is None:
            values[group] = {}
        values = values[group]
        if not isinstance(values, dict):
            raise SettingError(f"{source}: {group}: expected a mapping of settings, not {shown(values)}")
    values[last] = value


def _shown(default: Any) -> str:
    """Return a default as it is written on the command line."""
    if default is None or isinstance(default, bool):
        return "null" if default is None else str(default).lower()
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
