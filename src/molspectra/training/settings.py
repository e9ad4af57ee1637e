"""Settings dataclasses from plain values of YAML (recipes of the package, files), JSON or a command line.

Strict: unknown names, wrong types and duplicate keys are refused in one line that names the setting. Values
are only ever compared with the annotations of the dataclass, so nothing that stands in a file is imported or
run.
"""

import ast
import dataclasses
import functools
import inspect
import math
import re
import sys
import textwrap
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from operator import getitem, or_
from os import PathLike, fspath
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from molspectra.errors import FormatError, InputError, NotFoundError, SettingError, closest, hint

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    T = TypeVar("T", bound=DataclassInstance)
else:
    T = TypeVar("T")

_PLAIN = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}
_TOO_LARGE = 1 << 63
_MANY = {int: "integers", float: "numbers", bool: "truth values", str: "texts"}


OFTEN_CALLED = {
    "lr": "learning_rate",
    "wd": "weight_decay",
    "bs": "batch_size",
    "batch": "batch_size",
    "epochs": "steps",
    "max_steps": "steps",
    "device": "accelerator",
    "num_workers": "workers",
    "gpus": "devices",
    "nnodes": "nodes",
    "num_nodes": "nodes",
    "frozen": "freeze",
    "freeze_encoder": "freeze",
    "early_stopping": "patience",
}
"""What other programs call settings, by the last part of their name."""

MAX_YAML = 1 << 17
"""Longest text that is read as YAML, characters; settings take a few thousand."""


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses duplicate keys and aliases, and reads 4e-4 as a number.

    Aliases of aliases make values of any size from a few characters.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose the next value unless it is an alias."""
        if self.check_event(yaml.AliasEvent):
            event: Any = self.get_event()  # type: ignore[no-untyped-call]
            line = event.start_mark.line + 1
            raise yaml.YAMLError(f"alias *{event.anchor} in line {line}: write its value out instead")
        return super().compose_node(parent, index)


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    values: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.YAMLError(f"{key!r} in line {key_node.start_mark.line + 1} cannot be a name")
        if key in values:
            raise yaml.YAMLError(f"duplicate key {key!r} in line {key_node.start_mark.line + 1}")
        values[key] = loader.construct_object(value_node, deep=True)
    return values


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def load_yaml(text: str) -> Any:
    """Return the plain values in YAML text.

    Raises:
        yaml.YAMLError: not YAML, a tag that would make an object, an alias, a key given twice, or a text
            longer than any settings are.
    """
    if len(text) > MAX_YAML:
        raise yaml.YAMLError(f"more than {MAX_YAML} characters, which no settings take")
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except (ValueError, RecursionError) as error:  # such as a date that no calendar has
        raise yaml.YAMLError(str(error)) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        FormatError: the file cannot be read, is not YAML, or holds something else.
    """
    try:
        with path.open(encoding="utf-8") as file:
            values = load_yaml(file.read(MAX_YAML + 1))
    except Exception as error:
        raise FormatError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise FormatError(f"{path}: a mapping of settings is needed")
    return values


def recipes() -> dict[str, Path]:
    """Return the paths of the recipes that come with the package, by name."""
    folder = files("molspectra.training") / "recipes"
    return {Path(str(path)).stem: Path(str(path)) for path in folder.iterdir() if path.name.endswith(".yaml")}


def read_recipe(name: str) -> dict[str, Any]:
    """Return the settings in a YAML file or of a shipped recipe.

    Raises:
        NotFoundError: no such file or recipe.
        FormatError: not a mapping in YAML.
    """
    path, shipped = Path(name), recipes()
    if not path.is_file():
        if name not in shipped:
            near = hint(name, sorted(shipped), label="recipes")
            raise NotFoundError(f"{name}: no such file or recipe; {near}")
        path = shipped[name]
    return read_yaml(path)


def from_dict(cls: type[T], values: object, where: str, base: T | None = None) -> T:
    """Build a (nested) settings dataclass, all of whose fields have defaults, from plain values.

    Args:
        cls: the dataclass.
        values: a mapping; settings that are not in it keep their defaults.
        where: what to call the mapping in errors, such as the name of its file.
        base: settings that others keep instead of their defaults.

    Raises:
        SettingError: unknown name (with a suggestion), wrong type, or a value that the dataclass refuses.
    """
    try:
        return _updated(cls() if base is None else base, values, "", cls)
    except InputError as error:
        raise error.with_context(where) from error


def to_dict(settings: Any) -> dict[str, Any]:
    """Return the plain values of a settings dataclass, for JSON and YAML."""
    return _plain(dataclasses.asdict(settings))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def flat(settings: Mapping[str, Any], source: str, prefix: str = "") -> dict[str, Any]:
    """Return settings by their full names, from full names, nested mappings or both.

    Paths become texts, a dataclass of settings the values of all of them, and a list of targets one text.

    Raises:
        SettingError: a setting that is given twice.
    """
    found: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        nested = flat(value, source, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
        for full, leaf in nested.items():
            if full in found:
                raise SettingError(f"{source}: {full} is given twice")
            found[full] = _plain_value(full, leaf)
    return found


def _plain_value(name: str, value: Any) -> Any:
    if isinstance(value, PathLike):
        return fspath(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if name == "target" and isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return ",".join(value)
    return value


def put(values: dict[str, Any], changes: Mapping[str, Any], source: str) -> None:
    """Set settings by their full names in nested settings, which are changed.

    Raises:
        SettingError: one within another that has no settings; it is found in `source`.
    """
    for name, value in changes.items():
        *groups, last = name.split(".")
        group = values
        for depth, part in enumerate(groups, start=1):
            if group.get(part) is None:
                group[part] = {}
            group = group[part]
            if not isinstance(group, dict):
                full = ".".join(groups[:depth])
                raise SettingError(f"{source}: {full}: expected a mapping of settings, not {shown(group)}")
        if value != {} or not isinstance(group.get(last), dict):  # an empty mapping changes no setting
            group[last] = value


@dataclass(frozen=True)
class Setting:
    """One setting by its full name."""

    name: str
    """Names of the fields that lead to it, joined by dots."""
    hint: Any
    """Annotation of its field."""
    default: Any
    """Its value unless another is given."""
    help: str
    """Docstring of its field."""

    @property
    def expected(self) -> str:
        """Its type, in words."""
        return _described(self.hint)

    def parse(self, text: str) -> Any:
        """Parse a text on the command line: lists are written `a,b,c`, None is written `null`.

        Raises:
            SettingError: not a value of this setting.
        """
        kind, optional = _without_none(self.hint)
        value: Any = text
        if optional and text == "null":
            return None
        if kind is not str and get_origin(kind) is not Literal:
            members = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
            is_word = any(get_origin(part) is Literal and text in get_args(part) for part in members)
            takes_list = any(get_origin(part) is tuple for part in members)
            is_list = takes_list and not is_word and not text.startswith("[")
            try:
                value = load_yaml(f"[{text}]" if is_list else text)
            except yaml.YAMLError:
                value = text
        if _groups(kind):
            return value if value is None else to_dict(_checked(self.hint, value, f"--{self.name}", None))
        return _checked(self.hint, value, f"--{self.name}", None)


def settings_of(cls: type[Any], *, documented: bool = False) -> list[Setting]:
    """Return all settings of a dataclass and of those nested in it, in order.

    Args:
        cls: the dataclass.
        documented: read the docstrings of the fields from the source, too.
    """
    return list(_settings(cls(), "", documented))


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Return what to add to an error about an unknown setting: the most similar by its whole or last part."""
    if name in known:  # as one key, not as keys in one another
        return f"; write it as {': {'.join(name.split('.'))}: ...{'}' * name.count('.')}"
    last_part = name.rpartition(".")[2]
    usual_name = last_part.replace("-", "_")
    meant = [
        setting for setting in sorted(known) if setting.rpartition(".")[2] == OFTEN_CALLED.get(usual_name)
    ]
    if meant:
        return f"; did you mean {closest(name, meant, cutoff=0.0)}?"
    by_last_part = {setting.rpartition(".")[2]: setting for setting in sorted(known)}
    match = closest(name, sorted(known), cutoff=0.75)
    if match is None:
        similar = closest(last_part, by_last_part, cutoff=0.7)
        match = None if similar is None else by_last_part[similar]
    return f"; did you mean {match}?" if match else ""


def _settings(base: Any, prefix: str, documented: bool) -> Iterator[Setting]:
    hints = get_type_hints(type(base))
    help_texts = _docstrings(type(base)) if documented else {}
    for field in dataclasses.fields(base):
        kind, optional = _without_none(hints[field.name])
        default = getattr(base, field.name)
        name = f"{prefix}{field.name}"
        groups = _groups(kind)
        if optional or not groups:
            yield Setting(name, hints[field.name], default, help_texts.get(field.name, ""))
        if groups:
            yield from _group_settings(groups, default, f"{name}.", documented)


def _group_settings(
    groups: tuple[type[Any], ...], default: Any, prefix: str, documented: bool
) -> Iterator[Setting]:
    """Yield the settings of a nested group; of alternatives, each setting once and `kind` with all kinds."""
    first = groups[0]() if default is None else default
    others = [group() for group in groups if group is not type(first)]
    settings = {setting.name: setting for setting in _settings(first, prefix, documented)}
    for other in others:
        for setting in _settings(other, prefix, documented):
            settings.setdefault(setting.name, setting)
    if others:
        name = f"{prefix}kind"
        settings[name] = dataclasses.replace(settings[name], hint=_kinds(groups))
    yield from settings.values()


def _docstrings(cls: type[Any]) -> dict[str, str]:
    """Return the docstring below each field in the source of a dataclass."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    texts = {}
    for field, text in pairwise(definition.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            value = text.value if isinstance(text, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                texts[field.target.id] = " ".join(value.value.split())
    return texts


def _updated(base: T, values: object, name: str, root: type[Any]) -> T:
    """Return a copy of `base`, the group called `name` of a `root` dataclass, with the given values."""
    if not isinstance(values, Mapping):
        prefix = f"{name}: " if name else ""
        raise SettingError(f"{prefix}expected a mapping of settings, not {shown(values)}")
    hints = get_type_hints(type(base))
    changes = {}
    for key, value in values.items():
        full = f"{name}.{key}" if name else str(key)
        if key not in hints:
            raise SettingError(f"unknown setting {shown(full)}{did_you_mean(full, _names(root))}")
        changes[key] = _checked(hints[key], value, full, getattr(base, key), root)
    return dataclasses.replace(base, **changes)


def _names(root: type[Any]) -> set[str]:
    """Return the full names of all settings and of their groups."""
    names = {setting.name for setting in settings_of(root)}
    return names | {name.rpartition(".")[0] for name in names if "." in name}


def _checked(hint: Any, value: Any, name: str, base: Any, root: type[Any] | None = None) -> Any:
    """Return the value of a setting, converted to the type of its annotation, or raise a SettingError."""
    kind, optional = _without_none(hint)
    if value is None and optional:
        return None
    groups = _groups(kind)
    if groups:
        start = _start(groups, value, name, base)
        return _updated(start, value, name, root or type(start))
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):  # a number or a word
        for part in parts:
            with suppress(SettingError):
                return _checked(part, value, name, base, root)
    if origin is Literal and isinstance(value, str) and value in parts:
        return value
    if origin is tuple and isinstance(value, list | tuple):
        kinds = [parts[0]] * len(value) if parts[-1] is Ellipsis else parts
        if len(kinds) == len(value):
            return tuple(_checked(part, item, name, None) for part, item in zip(kinds, value, strict=True))
    if kind is bool and isinstance(value, bool):
        return value
    if kind is str and isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf:
        if kind is float and abs(value) <= sys.float_info.max:
            return float(value)
        if kind is int and value == int(value) and abs(value) < _TOO_LARGE:
            return int(value)
    hint_at = did_you_mean(value, parts) if origin is Literal and isinstance(value, str) else ""
    raise SettingError(f"{name}: expected {_described(hint)}, not {shown(value)}{hint_at}")


def _start(groups: tuple[type[Any], ...], value: object, name: str, base: Any) -> Any:
    """Return the settings to change: the present ones, or the defaults of the `kind` that is asked for."""
    chosen = groups[0] if base is None else type(base)
    if len(groups) > 1 and isinstance(value, Mapping) and "kind" in value:
        kind = _checked(_kinds(groups), value["kind"], f"{name}.kind", None)
        (chosen,) = (group for group in groups if kind in get_args(get_type_hints(group)["kind"]))
    return base if type(base) is chosen else chosen()


def _kinds(groups: tuple[type[Any], ...]) -> Any:
    """Return the annotation of the field `kind` that tells alternative groups of settings apart."""
    kinds = (kind for group in groups for kind in get_args(get_type_hints(group)["kind"]))
    return getitem(Literal, tuple(kinds))


def _groups(kind: Any) -> tuple[type[Any], ...]:
    """Return the dataclasses that an annotation allows: one, or several told apart by their field `kind`."""
    members = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return tuple(
        member for member in members if isinstance(member, type) and dataclasses.is_dataclass(member)
    )


def _without_none(hint: Any) -> tuple[Any, bool]:
    """Return an annotation without None (a union of dataclasses stays one), and whether None was in it."""
    if get_origin(hint) not in (Union, UnionType):
        return hint, False
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    return functools.reduce(or_, kinds), len(kinds) < len(get_args(hint))


def _described(hint: Any) -> str:
    kind, optional = _without_none(hint)
    parts = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        text = " or ".join(map(_described, parts))
    elif get_origin(kind) is Literal:
        text = parts[0] if len(parts) == 1 else f"one of {', '.join(parts)}"
    elif get_origin(kind) is tuple:
        text = f"{'a list of' if parts[-1] is Ellipsis else len(parts)} {_MANY.get(parts[0], 'mappings')}"
    else:
        text = _PLAIN.get(kind, "a mapping of settings")
    return f"{text} or null" if optional else text


def shown(value: object) -> str:
    """Return a value for a message, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no integers of more than 4300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."


def as_typed(value: Any) -> str:
    """Return the value of a setting as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
