"""Configurations from recipes, mappings and single settings: one way for Python and the command line."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, TypeVar

from molspectra.errors import SettingError
from molspectra.training.checkpoint import encoder_of
from molspectra.training.config import FinetuneConfig, PretrainConfig, RunConfig
from molspectra.training.settings import from_dict, read_recipe, recipes, shown, to_dict

Config = TypeVar("Config", PretrainConfig, FinetuneConfig)

STAGES = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}
"""What configures each kind of run, by the name of its command."""


def recipe(name: str | os.PathLike[str], /, **settings: Any) -> RunConfig:
    """Return the configuration of a recipe, with some settings of one's own.

    `print` shows it as YAML, its `replace` gives one with other settings, and `pretrain` or `finetune` takes
    it. It is a `FinetuneConfig` where a setting is there that only fine-tuning has, such as `target`, else a
    `PretrainConfig`.

    Args:
        name: of a recipe that comes with the package, or a YAML file, as for `--config`.
        settings: by the full names that the command line has, such as `**{"loop.steps": 500}`, or nested:
            `loop={"steps": 500}`. With `init` the encoder is that of the model that it names.

    Raises:
        InputError: no such recipe, an unknown setting, or a value that does not fit; as at the command line.
    """
    text = os.fspath(name)
    values, changes = read_recipe(text), flat(settings, text)
    of_finetuning = _names(FinetuneConfig) - _names(PretrainConfig)
    given = {*values, *(full.partition(".")[0] for full in changes)}
    cls: type[Any] = FinetuneConfig if given & of_finetuning else PretrainConfig
    config: RunConfig = configured(cls, values, changes, text, shipped=text in recipes())
    return config


def configuration_for(command: str, given: object, cls: type[Config]) -> Config:
    """Return what a run of a command is configured by: a configuration, a recipe's name, or a mapping.

    Raises:
        InputError: as in `recipe`; a configuration of the other kind of run, or anything else.
    """
    if isinstance(given, cls):
        return given
    if isinstance(given, str | os.PathLike):
        text = os.fspath(given)
        return configured(cls, read_recipe(text), {}, text, shipped=text in recipes())
    if isinstance(given, Mapping):
        return configured(cls, {}, flat(given, command), command, shipped=False)
    other = next((name for name, kind in STAGES.items() if isinstance(given, kind)), None)
    advice = f"; {other} takes it" if other else ""
    raise SettingError(
        f"{command}: expected a {cls.__name__}, the name of a recipe or a mapping of settings, "
        f"not a {type(given).__name__}{advice}"
    )


def configured(
    cls: type[Config], values: dict[str, Any], changes: Mapping[str, Any], source: str, *, shipped: bool
) -> Config:
    """Return a configuration from settings, and others by their full names that win over them.

    Where these name the model that the run starts from (`init`), its encoder is the run's, unless `values`
    have one of their own and are no shipped recipe.

    Args:
        cls: the kind of run.
        values: nested settings, which are changed here.
        changes: plain values by full name.
        source: what to call them in errors.
        shipped: whether the values are those of a recipe that comes with the package.

    Raises:
        InputError: an unknown setting, a value that does not fit, or no checkpoint at `init`.
    """
    model = values.setdefault("model", {})
    if changes.get("init") and isinstance(model, dict) and ("encoder" not in model or shipped):
        model["encoder"] = to_dict(encoder_of(changes["init"]))
    _put_all(values, changes, source)
    return from_dict(cls, values, source)


def replaced(config: Config, settings: Mapping[str, Any]) -> Config:
    """Return a configuration with some other settings; see `RunSettings.replace`."""
    source = type(config).__name__
    changes = flat(settings, source)
    values: dict[str, Any] = {}
    if changes.get("init"):
        values["model"] = {"encoder": to_dict(encoder_of(changes["init"]))}
    _put_all(values, changes, source)
    return from_dict(type(config), values, source, config)


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
            found[full] = _plain(full, leaf)
    return found


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if name == "target" and isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return ",".join(value)
    return value


def _put_all(values: dict[str, Any], changes: Mapping[str, Any], source: str) -> None:
    """Set settings by their full names in nested settings."""
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


def _names(cls: type[Any]) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)}
