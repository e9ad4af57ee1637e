"""What `pretrain` and `finetune` share: recipes, `--config`, one option per setting, `--out`, `--resume`."""

import dataclasses
import difflib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from molspectra.errors import InputError
from molspectra.training.config import FinetuneConfig, PretrainConfig
from molspectra.training.run import RunResult
from molspectra.training.settings import SettingsParser, from_dict, load_yaml, to_dict

Config = TypeVar("Config", PretrainConfig, FinetuneConfig)


def recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = files("molspectra.training") / "recipes"
    return {Path(str(path)).stem: Path(str(path)) for path in folder.iterdir() if path.name.endswith(".yaml")}


def read_recipe(name: str) -> dict[str, Any]:
    """The settings in a YAML file or of a shipped recipe.

    Raises:
        InputError: no such file or recipe, or not a mapping in YAML.
    """
    path, known = Path(name), recipes()
    if not path.is_file():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"recipes: {', '.join(sorted(known))}"
            raise InputError(f"{name}: no such file or recipe; {hint}")
        path = known[name]
    try:
        values = load_yaml(path.read_text(encoding="utf-8"))
    except Exception as error:
        raise InputError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: a mapping of settings is needed")
    return values


def run_command(
    name: str, cls: type[Config], run: Callable[..., RunResult], purpose: str, arguments: list[str]
) -> int:
    """Parse the options of a training command and run it."""
    parser = SettingsParser(prog=f"molspectra {name}", description=purpose)
    parser.add_argument(
        "--config", help="YAML file or name of a recipe; options on the command line win over it"
    )
    parser.add_argument("--out", required=True, help="run directory to make")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    recipe = _option(arguments, "--config")
    defaults = from_dict(cls, {} if recipe is None else read_recipe(recipe), recipe or name)
    parser.add_class_arguments(cls, None)
    parser.set_defaults(to_dict(defaults))
    options = parser.parse_args(arguments)
    built = parser.instantiate(options)
    config = cls(**{field.name: built[field.name] for field in dataclasses.fields(cls)})
    result = run(config, options.out, resume=options.resume, show=not options.quiet)
    for key, value in result.metrics.items():
        print(f"val/{key}: {value:.6g}")
    print(f"{result.directory} ({result.seconds:.1f} s)")
    return 0


def _option(arguments: list[str], name: str) -> str | None:
    """The value of an option before the parser exists; the last one counts."""
    found = None
    for index, argument in enumerate(arguments):
        if argument == name and index + 1 < len(arguments):
            found = arguments[index + 1]
        elif argument.startswith(f"{name}="):
            found = argument.split("=", 1)[1]
    return found
