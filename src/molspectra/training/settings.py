"""Settings dataclasses from plain values of YAML, JSON or a command line.

Strict: unknown names, wrong types and duplicate keys are refused in one line that names the setting. Values
are only ever compared with the annotations of the dataclass, so nothing that stands in a file is imported or
run.
"""

import ast
import dataclasses
import difflib
import functools
import inspect
import math
import re
import textwrap
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from operator import getitem, or_
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from molspectra.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    T = TypeVar("T", bound=DataclassInstance)
else:
    T = TypeVar("T")

_PLAIN = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}
_MANY = {int: "integers", float: "numbers", bool: "truth values", str: "texts"}


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses duplicate keys and reads 4e-4 as a number."""


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
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def load_yaml(text: str) -> Any:
    """Plain values from YAML text.

    Raises:
        yaml.YAMLError: not YAML, a tag that would make an object, or a key that stands there twice.
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except (ValueError, RecursionError) as error:  # such as a date that no calendar has
        raise yaml.YAMLError(str(error)) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        InputError: the file cannot be read, is not YAML, or holds something else.
    """
    try:
        values = load_yaml(path.read_text(encoding="utf-8"))
    except Exception as error:
        raise InputError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: a mapping of settings is needed")
    return values


def from_dict(cls: type[T], values: object, where: str) -> T:
    """Build a (nested) settings dataclass, all of whose fields have defaults, from plain values.

    Args:
        cls: the dataclass.
        values: a mapping; what is not in it keeps its default.
        where: what to call the mapping in errors, such as the name of its file.

    Raises:
        InputError: unknown name (with a suggestion), wrong type, or a value that the dataclass refuses.
    """
    try:
        return _built(cls(), values, "", cls)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def to_dict(settings: Any) -> dict[str, Any]:
    """Plain values of a settings dataclass, for JSON and YAML."""
    return _plain(dataclasses.asdict(settings))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class Setting:
    """One setting by its full name."""

    name: str
    """Names of the fields that lead to it, joined by dots."""
    hint: Any
    """Annotation of its field."""
    default: Any
    """What it is if nothing else is said."""
    help: str
    """Docstring of its field."""

    @property
    def expected(self) -> str:
        """What its values look like, in words."""
        return _described(self.hint)

    def parse(self, text: str) -> Any:
        """The value that a text on the command line means: lists as `a,b,c`, nothing as `null`.

        Raises:
            InputError: not a value of this setting.
        """
        kind, optional = _without_none(self.hint)
        value: Any = text
        if optional and text == "null":
            return None
        if kind is not str and get_origin(kind) is not Literal:
            is_list = get_origin(kind) is tuple and not text.startswith("[")
            try:
                value = load_yaml(f"[{text}]" if is_list else text)
            except yaml.YAMLError:
                value = text
        if _groups(kind):
            return value if value is None else to_dict(_checked(self.hint, value, f"--{self.name}", None))
        return _checked(self.hint, value, f"--{self.name}", None)


def settings_of(cls: type[Any], *, documented: bool = False) -> list[Setting]:
    """All settings of a dataclass and those nested in it, in order.

    Args:
        cls: the dataclass.
        documented: read the docstrings of the fields from the source, too.
    """
    return list(_settings(cls(), "", documented))


def did_you_mean(name: str, known: Collection[str]) -> str:
    """An addition to an error about an unknown name: the closest known one, by the whole or its last part."""
    if name in known:  # as one key, not as keys in one another
        return f"; write it as {': {'.join(name.split('.'))}: ...{'}' * name.count('.')}"
    ordered = sorted(known)
    tails = {other.rpartition(".")[2]: other for other in ordered}
    close = difflib.get_close_matches(name, ordered, n=1, cutoff=0.75)
    close += [
        tails[found] for found in difflib.get_close_matches(name.rpartition(".")[2], tails, n=1, cutoff=0.7)
    ]
    return f"; did you mean {close[0]}?" if close else ""


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
    """Settings of nested groups; of several to choose from, those that are common once, with all `kind`s."""
    first = groups[0]() if default is None else default
    others = [group() for group in groups if group is not type(first)]
    found = {setting.name: setting for setting in _settings(first, prefix, documented)}
    for other in others:
        for setting in _settings(other, prefix, documented):
            found.setdefault(setting.name, setting)
    if others:
        name = f"{prefix}kind"
        found[name] = dataclasses.replace(found[name], hint=_kinds(groups))
    yield from found.values()


def _docstrings(cls: type[Any]) -> dict[str, str]:
    """The string below each field in the source of a dataclass."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, text in pairwise(definition.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            value = text.value if isinstance(text, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found[field.target.id] = " ".join(value.value.split())
    return found


def _built(base: T, values: object, name: str, root: type[Any]) -> T:
    """A copy of `base` with the given values; `name` is the setting that it is, `root` the whole's class."""
    if not isinstance(values, Mapping):
        prefix = f"{name}: " if name else ""
        raise InputError(f"{prefix}expected a mapping of settings, not {_shown(values)}")
    hints = get_type_hints(type(base))
    changes = {}
    for key, value in values.items():
        full = f"{name}.{key}" if name else str(key)
        if key not in hints:
            raise InputError(f"unknown setting {full!r}{did_you_mean(full, _names(root))}")
        changes[key] = _checked(hints[key], value, full, getattr(base, key), root)
    return dataclasses.replace(base, **changes)


def _names(root: type[Any]) -> set[str]:
    """Full names of all settings, and of the groups that they are in."""
    names = {setting.name for setting in settings_of(root)}
    return names | {name.rpartition(".")[0] for name in names if "." in name}


def _checked(hint: Any, value: Any, name: str, base: Any, root: type[Any] | None = None) -> Any:
    """The value of a setting, of exactly the type that its annotation asks for."""
    kind, optional = _without_none(hint)
    if value is None and optional:
        return None
    groups = _groups(kind)
    if groups:
        start = _start(groups, value, name, base)
        return _built(start, value, name, root or type(start))
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal and isinstance(value, str) and value in parts:
        return value
    if origin is tuple and isinstance(value, list | tuple):
        kinds = [parts[0]] * len(value) if parts[-1] is Ellipsis else parts
        if len(kinds) == len(value):
            return tuple(_checked(each, item, name, None) for each, item in zip(kinds, value, strict=True))
    if kind is bool and isinstance(value, bool):
        return value
    if kind is str and isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        if kind is float:
            return float(value)
        if kind is int and value == int(value):
            return int(value)
    hint_at = did_you_mean(value, parts) if origin is Literal and isinstance(value, str) else ""
    raise InputError(f"{name}: expected {_described(hint)}, not {_shown(value)}{hint_at}")


def _start(groups: tuple[type[Any], ...], value: object, name: str, base: Any) -> Any:
    """The settings that given ones are added to: the present ones, or defaults of the `kind` asked for."""
    chosen = groups[0] if base is None else type(base)
    if len(groups) > 1 and isinstance(value, Mapping) and "kind" in value:
        kind = _checked(_kinds(groups), value["kind"], f"{name}.kind", None)
        (chosen,) = (group for group in groups if kind in get_args(get_type_hints(group)["kind"]))
    return base if type(base) is chosen else chosen()


def _kinds(groups: tuple[type[Any], ...]) -> Any:
    """The annotation of the field `kind` that tells several groups of settings apart."""
    return getitem(Literal, tuple(part for each in groups for part in get_args(get_type_hints(each)["kind"])))


def _groups(kind: Any) -> tuple[type[Any], ...]:
    """The dataclasses that an annotation allows: one, or several told apart by their field `kind`."""
    members = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return tuple(each for each in members if isinstance(each, type) and dataclasses.is_dataclass(each))


def _without_none(hint: Any) -> tuple[Any, bool]:
    """The kind of value that an annotation allows (a union of dataclasses is one), and whether also None."""
    if get_origin(hint) not in (Union, UnionType):
        return hint, False
    kinds = [each for each in get_args(hint) if each is not NoneType]
    return functools.reduce(or_, kinds), len(kinds) < len(get_args(hint))


def _described(hint: Any) -> str:
    kind, optional = _without_none(hint)
    parts = get_args(kind)
    if get_origin(kind) is Literal:
        text = f"one of {', '.join(parts)}"
    elif get_origin(kind) is tuple:
        text = f"{'a list of' if parts[-1] is Ellipsis else len(parts)} {_MANY[parts[0]]}"
    else:
        text = _PLAIN.get(kind, "a mapping of settings")
    return f"{text} or null" if optional else text


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
