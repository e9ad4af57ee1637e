"""Scales of an experiment: YAML files with the settings of every stage, and changes by dotted name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from molspectra.errors import InputError
from molspectra.training.settings import did_you_mean, load_yaml, read_yaml

SECTIONS = ("all", "pretrain", "stage1", "stage2", "qm9", "md17", "pilot")
"""Settings of every run, of every pre-training run, and of the kinds of runs; later ones win. The pilot,
which has another encoder, stands alone."""

STORES = ("structures", "spectra", "labels", "trajectory")
"""Data of stage 1, of stage 2 and its control, of fine-tuning on a property, and on forces."""

_KEYS = (*SECTIONS, "about", "seeds", "stores", "seconds_per_step", "experiments")


@dataclass(frozen=True)
class Scale:
    """How much of everything an experiment does.

    Attributes:
        name: of the scale, or the file that it was read from.
        about: in words.
        seeds: default seeds.
        stores: default data by kind (see `STORES`).
        sections: settings by section (see `SECTIONS`), nested as in a recipe.
        seconds_per_step: rough time of an optimizer step by kind of run, before any was measured.
        pretrain_directory: where pre-training runs go below the experiments' directory.
        changes: of single settings, as they were asked for.
    """

    name: str
    about: str
    seeds: tuple[int, ...]
    stores: Mapping[str, str]
    sections: Mapping[str, Mapping[str, Any]]
    seconds_per_step: Mapping[str, float]
    pretrain_directory: str = "pretrain"
    changes: tuple[str, ...] = ()

    def settings(self, section: str) -> dict[str, Any]:
        """Settings of a kind of run: "stage1", "stage2", "qm9", "md17" or "pilot"."""
        groups = ["all", "pretrain", section] if section.startswith("stage") else ["all", section]
        if section == "pilot":
            groups = [section]
        found: dict[str, Any] = {}
        for group in groups:
            found = merged(found, self.sections.get(group, {}))
        return found


def scales() -> dict[str, Path]:
    """The scales that come with the package, by name."""
    folder = files("molspectra.reproduce") / "scales"
    return {Path(str(path)).stem: Path(str(path)) for path in folder.iterdir() if path.name.endswith(".yaml")}


def read_scale(name: str, experiment: str, changes: Sequence[str] = ()) -> Scale:
    """A scale as one experiment uses it.

    Args:
        name: of a shipped scale, or a YAML file like theirs.
        experiment: its own changes in the file are made.
        changes: `SECTION.SETTING=VALUE` texts, such as "stage1.loop.steps=10", which win over the file.

    Raises:
        InputError: no such scale, not a scale, or a change that is none.
    """
    known = scales()
    path = Path(name) if name not in known else known[name]
    if not path.is_file():
        raise InputError(f"no scale {name!r} and no such file; scales: {', '.join(sorted(known))}")
    values = read_yaml(path)
    for key in values:
        if key not in _KEYS:
            raise InputError(f"{path}: unknown part {key!r}{did_you_mean(key, _KEYS)}")
    own = (values.get("experiments") or {}).get(experiment) or {}
    sections = {key: merged(values.get(key) or {}, own.get(key) or {}) for key in SECTIONS}
    for change in changes:
        sections = merged(sections, parsed_change(change))
    return Scale(
        name=name,
        about=str(values.get("about", "")),
        seeds=tuple(values.get("seeds") or (0,)),
        stores=dict(values.get("stores") or {}),
        sections=sections,
        seconds_per_step=dict(values.get("seconds_per_step") or {}),
        pretrain_directory=str(own.get("pretrain_directory", "pretrain")),
        changes=tuple(changes),
    )


def parsed_change(text: str) -> dict[str, Any]:
    """`SECTION.SETTING=VALUE` as nested settings; the value is read as YAML.

    Raises:
        InputError: no such form or section.
    """
    name, equals, value = text.partition("=")
    section, *rest = name.strip().split(".")
    if not equals or not rest or not all(rest):
        raise InputError(f"--set {text}: write SECTION.SETTING=VALUE, such as stage1.loop.steps=10")
    if section not in SECTIONS:
        raise InputError(f"--set {text}: the first name must be one of {', '.join(SECTIONS)}")
    try:
        found: Any = load_yaml(value)
    except Exception as error:
        raise InputError(f"--set {text}: the value is not readable as YAML") from error
    return nested(f"{section}.{'.'.join(rest)}", found)


def nested(name: str, value: Any) -> dict[str, Any]:
    """A value under a dotted name as nested mappings."""
    for part in reversed(name.split(".")):
        value = {part: value}
    found: dict[str, Any] = value
    return found


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with changes made; mappings are merged, everything else is replaced."""
    found = dict(base)
    for key, change in changes.items():
        value, before = change, found.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            value = merged(before, value)
        found[key] = value
    return found
