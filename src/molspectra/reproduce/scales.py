"""Scales of the experiments: YAML files with the settings of every stage, and changes by dotted name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from molspectra.errors import NotFoundError, SettingError
from molspectra.training.settings import did_you_mean, load_yaml, read_yaml, shown

SECTIONS = ("all", "pretrain", "stage1", "stage2", "qm9", "md17", "pilot")
"""Settings of every run, of every pre-training run, and of the kinds of runs; later ones take precedence.
The pilot, which has another encoder, has only its own."""

STORES = ("structures", "spectra", "labels", "trajectory")
"""Data of stage 1, of stage 2 and its control, of fine-tuning on a property, and on forces."""

_MAPPINGS = (*SECTIONS, "stores", "seconds_per_step", "experiments")

_KEYS = (*SECTIONS, "about", "seeds", "sizes", "stores", "seconds_per_step", "experiments")


@dataclass(frozen=True)
class Scale:
    """Settings and sizes of an experiment's runs.

    Attributes:
        name: of the scale, or the file that it was read from.
        stores: default data by kind (see `STORES`).
        sections: settings by section (see `SECTIONS`), nested as in a recipe.
        seconds_per_step: estimated time of an optimizer step in s, by kind of run, before any was measured.
        sizes: optimizer steps of fine-tuning by number of labels, for experiments that go over these.
        pretrain_directory: directory of pre-training runs within the experiments' directory.
        changes: of single settings, as given.
    """

    name: str
    about: str
    seeds: tuple[int, ...]
    stores: Mapping[str, str]
    sections: Mapping[str, Mapping[str, Any]]
    seconds_per_step: Mapping[str, float]
    sizes: Mapping[int, int] = field(default_factory=dict)
    pretrain_directory: str = "pretrain"
    changes: tuple[str, ...] = ()

    def settings(self, section: str) -> dict[str, Any]:
        """Return the settings of a kind of run: "stage1", "stage2", "qm9", "md17" or "pilot"."""
        groups = ["all", "pretrain", section] if section.startswith("stage") else ["all", section]
        if section == "pilot":
            groups = [section]
        settings: dict[str, Any] = {}
        for group in groups:
            settings = merged(settings, self.sections.get(group, {}))
        return settings


def scales() -> dict[str, Path]:
    """Return the files of the scales that come with the package, by name."""
    folder = files("molspectra.reproduce") / "scales"
    return {Path(str(path)).stem: Path(str(path)) for path in folder.iterdir() if path.name.endswith(".yaml")}


def read_scale(name: str, experiment: str, changes: Sequence[str] = ()) -> Scale:
    """Read a scale for one experiment.

    Args:
        name: of a shipped scale, or the path of a YAML file of the same form.
        experiment: key of the experiment, whose own changes in the file are applied.
        changes: `SECTION.SETTING=VALUE` texts, such as "stage1.loop.steps=10", which override the file.

    Raises:
        NotFoundError: no such scale.
        SettingError: an unknown section in the file, or a malformed change.
    """
    known = scales()
    path = Path(name) if name not in known else known[name]
    if not path.is_file():
        raise NotFoundError(f"no scale {name!r} and no such file; scales: {', '.join(sorted(known))}")
    values = read_yaml(path)
    for key in values:
        if key not in _KEYS:
            raise SettingError(f"{path}: unknown part {shown(key)}{did_you_mean(key, _KEYS)}")
    _check_kinds(values, path)
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
        sizes=_sizes(own.get("sizes") or values.get("sizes") or [], path),
        pretrain_directory=str(own.get("pretrain_directory", "pretrain")),
        changes=tuple(changes),
    )


def _check_kinds(values: Mapping[str, Any], path: Path) -> None:
    """Check the kinds of what no settings dataclass checks later.

    Raises:
        SettingError: naming the first part that is of another kind.
    """
    experiments = values.get("experiments")
    parts = {key: values.get(key) for key in _MAPPINGS}
    if isinstance(experiments, Mapping):
        parts |= {f"experiments.{name}": own for name, own in experiments.items()}
        for name, own in experiments.items():
            if isinstance(own, Mapping):
                parts |= {f"experiments.{name}.{key}": own.get(key) for key in SECTIONS}
    for name, part in parts.items():
        if part is not None and not isinstance(part, Mapping):
            raise SettingError(f"{path}: {name[:60]}: expected a mapping, not {shown(part)}")
    seeds, stores, seconds = (values.get(key) or {} for key in ("seeds", "stores", "seconds_per_step"))
    if seeds and not (isinstance(seeds, list) and all(type(seed) is int for seed in seeds)):
        raise SettingError(f"{path}: seeds: expected a list of integers, not {shown(seeds)}")
    for name, inner, kind in (("stores", stores, str), ("seconds_per_step", seconds, int | float)):
        for key, value in inner.items():
            if not isinstance(value, kind):
                raise SettingError(f"{path}: {name}.{key[:60]}: cannot be {shown(value)}")


def _sizes(values: Any, path: Path) -> dict[int, int]:
    """Check steps by number of labels.

    Raises:
        SettingError: they are no positive whole numbers.
    """
    pairs = values if isinstance(values, list) else [values]
    for pair in pairs:
        is_pair = isinstance(pair, list) and len(pair) == 2
        if not is_pair or not all(type(number) is int and number > 0 for number in pair):
            raise SettingError(f"{path}: sizes: write pairs of labels and steps, such as [[100, 400]]")
    return dict(pairs)


def parsed_change(text: str) -> dict[str, Any]:
    """Parse `SECTION.SETTING=VALUE` into nested settings; the value is read as YAML.

    Raises:
        SettingError: another form, an unknown section, or a value that is not YAML.
    """
    name, equals, value = text.partition("=")
    section, *rest = name.strip().split(".")
    if not equals or not rest or not all(rest):
        raise SettingError(f"--set {text}: write SECTION.SETTING=VALUE, such as stage1.loop.steps=10")
    if section not in SECTIONS:
        raise SettingError(f"--set {text}: the first name must be one of {', '.join(SECTIONS)}")
    try:
        setting: Any = load_yaml(value)
    except Exception as error:
        raise SettingError(f"--set {text}: the value is not readable as YAML") from error
    return nested(f"{section}.{'.'.join(rest)}", setting)


def nested(name: str, value: Any) -> dict[str, Any]:
    """Return nested mappings that hold a value under a dotted name."""
    for part in reversed(name.split(".")):
        value = {part: value}
    return dict(value)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings with changes applied; mappings are merged, everything else is replaced."""
    result = dict(base)
    for key, value in changes.items():
        before = result.get(key)
        nests = isinstance(before, Mapping) and isinstance(value, Mapping)
        result[key] = merged(base[key], value) if nests else value
    return result
