"""Options shared by `pretrain` and `finetune`: recipes, `--config`, one per setting, `--out`, `--resume`.

What trains loads torch and is imported when it is needed, so that help and refused options come at once.
"""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from molspectra.apps.commands.parser import CommandParser
from molspectra.errors import FormatError, SettingError
from molspectra.printable import say
from molspectra.training.config import SPACE, TRIALS, FinetuneConfig
from molspectra.training.configuration import STAGES, configured
from molspectra.training.settings import Setting, as_typed, read_recipe, recipes, settings_of

_PURPOSES = {
    "pretrain": "Pre-train a 3D encoder: denoising, and with a spectrum encoder also reconstruction and "
    "alignment.",
    "finetune": "Fine-tune a 3D encoder on a property of the store, or on several at once.",
    "tune": "Search for the settings of a fine-tuning with the lowest validation loss (extra tune).",
}

EVERYDAY = (
    "target", "classes", "forces", "init", "data.store", "data.train_rows", "loop.steps", "loop.batch_size",
    "optimizer.learning_rate", "loop.patience", "loop.seed", "loop.accelerator",
)  # fmt: skip
"""Settings that `--help` shows, in this order; `--help-all` shows all."""

ALIASES = {"loop.accelerator": ["--device"]}
"""Other names of settings: the option that means the same in the other commands."""


def run_command(name: str, arguments: list[str]) -> int:
    """Parse the options of a training command and run it; returns the exit code."""
    cls: type[Any] = STAGES.get(name, FinetuneConfig)  # tune takes the settings of finetune
    every = "--help-all" in arguments
    is_help = every or bool({"-h", "--help"} & set(arguments))
    settings = settings_of(cls, documented=is_help)
    options = vars(_parser(name, settings, every).parse_args(arguments))
    source, values = _base(name, options)
    given = {setting.name: options[setting.name] for setting in settings if setting.name in options}
    if "target" in given:  # --target gap homo alpha
        given["target"] = ",".join(given["target"])
        if "config" not in options and "target" in values:  # those of the run that is resumed
            from molspectra.training.provenance import refuse_other_target

            refuse_other_target(Path(options["out"]), values["target"], given["target"])
    for kind in ("classes", "vectors", "tensors"):  # --classes active toxic
        if kind in given:
            given[kind] = [name for names in given[kind] for name in names]
    config = configured(cls, values, given, source, name, shipped=options.get("config") in recipes())
    if name == "tune":
        return _run_search(config, options)
    if name == "finetune":
        in_all_folds = config.data.folds and config.data.fold is None
        if options.get("members", 1) != 1:
            if in_all_folds:
                raise SettingError("members: an ensemble is trained on one fold; choose it with --data.fold")
            return _run_ensemble(config, options)
        if in_all_folds:
            return _run_folds(config, options)
    from molspectra.training.run import RunResult, finetune, pretrain

    run: Callable[..., RunResult] = pretrain if name == "pretrain" else finetune
    result = run(config, options["out"], resume=options["resume"], show=not options["quiet"])
    if result.rank == 0:
        for key, value in result.metrics.items():
            say(f"val/{key}: {value:.6g}")
        say(f"{result.directory} ({result.seconds:.1f} s)")
    return 0


def _run_folds(config: FinetuneConfig, options: dict[str, Any]) -> int:
    """Train and test with every fold, and print a table; returns the exit code."""
    from molspectra.evaluation.folds import finetune_folds, fold_table
    from molspectra.training.record import FOLDS

    out, show = Path(options["out"]), not options["quiet"]
    say("\n".join(fold_table(finetune_folds(config, out, resume=options["resume"], show=show))))
    say(out / FOLDS)
    return 0


def _run_ensemble(config: FinetuneConfig, options: dict[str, Any]) -> int:
    """Train the members of an ensemble and calibrate it; returns the exit code."""
    from molspectra.evaluation.ensemble import finetune_ensemble

    ensemble = finetune_ensemble(
        config, options["out"], options["members"], resume=options["resume"], show=not options["quiet"]
    )
    for target, calibration in ensemble.calibrations.items():
        count = len(calibration.ratios)
        say(f"{target}: uncertainty = {calibration.scale:.3g} × spread ({count} validation molecules)")
    say(f"{ensemble.directory}: {len(ensemble.members)} members; predict and evaluate take this directory")
    return 0


def _run_search(config: FinetuneConfig, options: dict[str, Any]) -> int:
    """Try settings and print the best; returns the exit code."""
    from molspectra.training.tune import BEST, TABLE, tune

    trials = tune(
        config,
        options["out"],
        options["search"],
        trials=options["trials"],
        metric=options["metric"],
        seed=options["search_seed"],
        resume=options["resume"],
        show=not options["quiet"],
    )
    best, folder = trials[0], Path(options["out"])
    for setting, value in best.settings.items():
        say(f"{setting}: {as_typed(value)}")
    say(f"{options['metric']} {best.value:.6g}, the best of {len(trials)} trials in {folder / TABLE}")
    say(f"molspectra finetune --config {folder / BEST} --out ... trains with it")
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
    if name == "finetune":
        parser.add_argument(
            "--members",
            type=int,
            default=1,
            metavar="N",
            help="train an ensemble of N runs, with the seeds from loop.seed on, and calibrate its spread",
        )
    if name == "tune":
        parser.add_argument(
            "--search",
            nargs="+",
            default=list(SPACE),
            metavar="NAME=RANGE",
            help="what to try: NAME=LOW:HIGH, NAME=LOW:HIGH:log or NAME=A|B|C",
        )
        parser.add_argument("--trials", type=int, default=TRIALS, help="how many, with those that are there")
        parser.add_argument("--metric", default="loss", help="of the validation, such as gap_mae")
        parser.add_argument("--search-seed", type=int, default=0, help="seed of the search")
    parser.add_shared("--quiet")
    rank = {} if every else {name: place for place, name in enumerate(EVERYDAY)}
    groups: dict[str, Any] = {}
    for setting in sorted(settings, key=lambda each: rank.get(each.name, len(rank))):
        prefix = setting.name.rpartition(".")[0] if every else ""
        if prefix not in groups:
            groups[prefix] = parser.add_argument_group(prefix or "settings")
        about = setting.help if every else _first_sentence(setting.help)
        about = f"{about} [{setting.expected}; default: {as_typed(setting.default)}]".replace("%", "%%")
        groups[prefix].add_argument(
            *ALIASES.get(setting.name, []),
            f"--{setting.name}",
            dest=setting.name,
            metavar="VALUE",
            type=setting.parse,
            default=unset,
            help=about if every or setting.name in rank else argparse.SUPPRESS,
            nargs="+" if setting.name in ("target", "classes", "vectors", "tensors") else None,
        )
    return parser


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=\.) (?=[A-Z])", text, maxsplit=1)[0]


def _base(name: str, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the source of the settings, for messages, and the settings that the options override."""
    folder = Path(options["out"])
    earlier = (folder / "member-0" if options.get("members", 1) != 1 else folder) / "config.json"
    if "config" in options:
        return options["config"], read_recipe(options["config"])
    if options["resume"] and earlier.is_file():
        from molspectra.training.record import read_json

        values = read_json(earlier)
        if not isinstance(values, dict):
            raise FormatError(f"{earlier}: not the settings of a run")
        return str(earlier), values
    return name, {}
