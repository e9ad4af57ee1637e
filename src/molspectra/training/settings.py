"""Settings dataclasses from command lines, YAML and JSON, through jsonargparse: strict, and errors on one line."""

import dataclasses
import difflib
import re
from typing import Any, NoReturn, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser, set_loader

from molspectra.errors import InputError

T = TypeVar("T")


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses duplicate keys and reads 4e-4 as a number."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.YAMLError(f"duplicate key {key!r} in line {node.start_mark.line + 1}")
    return dict(loader.construct_pairs(node, deep=True))


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def load_yaml(text: str) -> Any:
    """Plain values from YAML text.

    Raises:
        yaml.YAMLError: not YAML, or a key that stands there twice.
    """
    return yaml.load(text, Loader=_StrictLoader)


set_loader("strict_yaml", load_yaml, exceptions=(yaml.YAMLError,))


class SettingsParser(ArgumentParser):
    """A parser whose errors are one line, with a suggestion for an unknown name."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"parser_mode": "strict_yaml", "allow_abbrev": False, **options})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise `InputError` instead of printing the usage."""
        raise InputError(self._one_line(message)) from ex

    def _one_line(self, message: str) -> str:
        line = re.sub(r"\s+", " ", message.replace("Parser key ", "")).strip()
        line = re.sub(r"<class '(\w+)'>", r"\1", line)
        unknown = re.search(
            r"(?:unrecognized arguments: --|does not accept option '|not accept nested key ')([\w.]+)", line
        )
        if unknown:
            known = [name for action in self._actions for name in self._names(action)]
            close = difflib.get_close_matches(unknown[1], known, n=1, cutoff=0.5)
            close = close or [name for name in known if name.split(".")[-1] == unknown[1]][:1]
            if not close:
                tails = {name.split(".")[-1]: name for name in known}
                close = [
                    tails[tail] for tail in difflib.get_close_matches(unknown[1], tails, n=1, cutoff=0.6)
                ]
            line += f"; did you mean {close[0]}?" if close else "; see --help"
        return line

    @staticmethod
    def _names(action: Any) -> list[str]:
        return [option.removeprefix("--") for option in action.option_strings if option.startswith("--")]


def from_dict(cls: type[T], values: Any, where: str) -> T:
    """Build a (nested) settings dataclass from plain values.

    Args:
        cls: the dataclass.
        values: a mapping; fields that are not in it keep their defaults.
        where: what to call the mapping in errors.

    Raises:
        InputError: unknown key (with a suggestion), wrong type, or a value the dataclass refuses.
    """
    if not isinstance(values, dict):
        raise InputError(f"{where}: a mapping of settings is needed, not {type(values).__name__}")
    parser = SettingsParser(exit_on_error=False)
    parser.add_class_arguments(cls, None)
    try:
        built = parser.instantiate(parser.parse_object(values))
    except (InputError, ArgumentError, TypeError) as error:
        raise InputError(f"{where}: {parser._one_line(str(error))}") from error
    return cls(**{field.name: built[field.name] for field in dataclasses.fields(cls)})  # type: ignore[arg-type]


def to_dict(settings: Any) -> dict[str, Any]:
    """Plain values of a settings dataclass, for JSON and YAML."""
    return _plain(dataclasses.asdict(settings))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
