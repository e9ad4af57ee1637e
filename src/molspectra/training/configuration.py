"""Configurations from recipes, mappings and single settings: one way for Python and the command line."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Mapping
from typing import Any, TypeVar

from molspectra.errors import InputError, SettingError
from molspectra.training.config import FinetuneConfig, PretrainConfig, RunConfig
from molspectra.training.settings import flat, from_dict, put, read_recipe, recipes, to_dict

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
    config: RunConfig = configured(cls, values, changes, text, "recipe", shipped=text in recipes())
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
        return configured(cls, read_recipe(text), {}, text, command, shipped=text in recipes())
    if isinstance(given, Mapping):
        return configured(cls, {}, flat(given, command), command, command, shipped=False)
    other = next((name for name, kind in STAGES.items() if isinstance(given, kind)), None)
    advice = f"; {other} takes it" if other else ""
    raise SettingError(
        f"{command}: expected a {cls.__name__}, the name of a recipe or a mapping of settings, "
        f"not a {type(given).__name__}{advice}"
    )


def configured(
    cls: type[Config],
    values: dict[str, Any],
    changes: Mapping[str, Any],
    source: str,
    by: str,
    *,
    shipped: bool,
) -> Config:
    """Return a configuration from settings, and others by their full names that win over them.

    Where these name the model that the run starts from (`init`), its encoder is the run's, unless `values`
    have one of their own and are no shipped recipe.

    Args:
        cls: the kind of run.
        values: nested settings, which are changed here.
        changes: plain values by full name.
        source: what to call them in errors.
        by: what to call who has made the changes, in errors that are theirs alone.
        shipped: whether the values are those of a recipe that comes with the package.

    Raises:
        InputError: an unknown setting, a value that does not fit, or no checkpoint at `init`.
    """
    model = values.setdefault("model", {})
    if changes.get("init") and isinstance(model, dict) and ("encoder" not in model or shipped):
        from molspectra.training.checkpoint import encoder_of  # loads torch

        model["encoder"] = to_dict(encoder_of(changes["init"]))
    own = copy.deepcopy(values)
    put(values, changes, source)
    return from_dict(cls, values, by if changes and _are_valid(cls, own) else source)


def _are_valid(cls: type[Any], values: Mapping[str, Any]) -> bool:
    """Whether settings configure a run, so that what is wrong with changed ones lies in the changes."""
    try:
        from_dict(cls, values, "")
    except InputError:
        return False
    return True


def _names(cls: type[Any]) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)}
