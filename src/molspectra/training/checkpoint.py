"""Checkpoints: weights as safetensors and settings as JSON for use, a resume state for training.

A checkpoint is a directory, written under a hidden name, flushed to disk and renamed: one that has its final
name is complete. Its `manifest.json`, written last, says which run, kind and step it is and the SHA-256 of
every file; a checkpoint that is not what its manifest says is refused, and an older one is taken. Those from
before there were manifests are read without. Nothing is unpickled; `resume.pt` is read with
`weights_only=True`. A few models come with the package and are found by name.
"""

import dataclasses
import hashlib
import io
import json
import logging
import re
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor

from molspectra.chem.elements import atomic_number
from molspectra.data.atomic import flush, naming
from molspectra.errors import (
    DamagedError,
    ElementError,
    FormatError,
    InputError,
    MismatchError,
    NotFoundError,
    check_format,
)
from molspectra.models.config import EGNNConfig, EquivariantTransformerConfig, ModelConfig, SpecFormerConfig
from molspectra.models.limit import AllocationLimit, largest_size
from molspectra.models.model import MolSpectra
from molspectra.spectra.modality import Modality
from molspectra.training.record import one_of_several, read_json
from molspectra.training.settings import from_dict, shown, to_dict

WEIGHTS, CONFIG, RESUME, MANIFEST = "model.safetensors", "config.json", "resume.pt", "manifest.json"
FORMAT = 1

SHIPPED = {"small": "scripts/build_small.py", "base": "scripts/build_base.py"}
"""Models that come with the package by name, and the script that makes each."""

_KINDS = dict.fromkeys(("stage", "target", "unit", "level", "name"), str) | {
    "elements": list,
    "alignment": dict,
    "forces": dict,
}
"""Kinds of the values in `config.json`, where they are there, that others than the model are read by."""
_WORDS = {str: "text", list: "list", dict: "mapping"}

_NUMBER = "[0-9]" * 9
_NAME = re.compile("(step|best)-([0-9]{9})")
_MANIFEST_TYPES: dict[str, type | tuple[type, ...]] = {
    "format": int,
    "run": (str, type(None)),
    "kind": str,
    "step": int,
    "files": dict,
}
_PARTS = ("encoder", "noise_head", "force_head", "spectrum_encoder", "spectrum_head")

Used = TypeVar("Used")

log = logging.getLogger(__name__)


def save_checkpoint(
    root: Path,
    kind: str,
    step: int,
    model: MolSpectra,
    about: Mapping[str, Any],
    resume: Mapping[str, Any] | None,
    *,
    run: str | None = None,
    keep: int = 1,
) -> Path:
    """Write `<root>/<kind>-<step>` atomically, then remove older checkpoints of that kind.

    Resume states of later steps, which were refused when the run went on, are renamed to `refused-...`.

    Args:
        root: the run's checkpoint directory; made where it is missing. One process at a time may save there.
        kind: "step" or "best".
        step: optimizer steps done.
        model: has the weights to use (the averaged ones where there is an average).
        about: JSON values for `config.json` beside the model's settings (target, unit, run ...).
        resume: state of a resumed run (tensors and plain values); None for a checkpoint only for use.
        run: identity of the run, that of its `record.json`.
        keep: how many checkpoints of the kind to keep, with this one.

    Raises:
        WriteError: no space, no permission; the earlier checkpoints are intact.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    config = {"format": FORMAT, "model": to_dict(model.config), **about}
    files = {
        WEIGHTS: to_safetensors(state, {"format": str(FORMAT)}),
        CONFIG: json.dumps(config, indent=1, ensure_ascii=False).encode(),
    }
    if resume is not None:
        buffer = io.BytesIO()
        torch.save(dict(resume), buffer)
        files[RESUME] = buffer.getvalue()
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    manifest = {"format": FORMAT, "run": run, "kind": kind, "step": step, "files": hashes}
    files[MANIFEST] = json.dumps(manifest, indent=1).encode()  # written last
    final = root / f"{kind}-{step:09d}"
    with naming(final):
        root.mkdir(parents=True, exist_ok=True)
        for left_over in (*root.glob(".new-*"), *root.glob(".old-*")):  # of a process that was killed
            shutil.rmtree(left_over)
        hidden = root / f".new-{final.name}"
        _write_directory(hidden, files)
        remove_checkpoint(final)  # the same step, reached again from an earlier one
        hidden.rename(final)
        flush(root)
        flush(root.parent)
        others = [other for other in saved(root, kind) if other != final]
        later = [other for other in others if other > final]
        for other in others[len(later) + keep - 1 :]:
            remove_checkpoint(other)
        for other in later:
            if kind == "step":
                refused = root / f"refused-{other.name}"
                remove_checkpoint(refused)
                other.rename(refused)
            else:  # from before the run went on from an older state
                remove_checkpoint(other)
    return final


def _write_directory(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a new directory and flush it to the disk; remove it if that fails."""
    directory.mkdir()
    try:
        for name, content in files.items():
            (directory / name).write_bytes(content)
            flush(directory / name)
        flush(directory)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def remove_checkpoint(checkpoint: Path) -> None:
    """Remove a checkpoint; it is renamed first, so that a directory with its name is always complete."""
    if checkpoint.exists():
        hidden = checkpoint.with_name(f".old-{checkpoint.name}")
        checkpoint.rename(hidden)
        shutil.rmtree(hidden)


def saved(root: Path, kind: str = "step") -> list[Path]:
    """The complete checkpoints of a kind under a run's checkpoint directory, the newest first."""
    return sorted(root.glob(f"{kind}-{_NUMBER}"), reverse=True)


def newest(root: Path, kind: str = "step") -> Path | None:
    """The newest complete checkpoint of a kind under a run's checkpoint directory."""
    return next(iter(saved(root, kind)), None)


def step_of(checkpoint: Path) -> int | None:
    """The step in the name of a checkpoint; None where it has another name."""
    name = _NAME.fullmatch(checkpoint.name)
    return int(name[2]) if name else None


def check(checkpoint: Path, names: Iterable[str] = (CONFIG, WEIGHTS)) -> None:
    """Compare a checkpoint with its manifest: run, kind, step and the content of files.

    Args:
        checkpoint: directory; one from before there were manifests is let pass.
        names: files to compare.

    Raises:
        DamagedError: a file or the manifest is missing, or not what was written.
        MismatchError: it was renamed, or it is of another run than that in whose directory it is.
    """
    step, facts = step_of(checkpoint.absolute()), _run_facts(checkpoint)
    if not (checkpoint / MANIFEST).is_file():
        if step is not None and facts and "id" in facts and step > facts.get("manifests_after", 0):
            raise DamagedError(f"{checkpoint}: incomplete, its {MANIFEST} is missing")
        return
    manifest = _read_manifest(checkpoint / MANIFEST)
    name = f"{manifest['kind']}-{manifest['step']:09d}"
    if step is not None and checkpoint.absolute().name != name:
        raise MismatchError(f"{checkpoint}: was saved as {name} and renamed")
    if facts is not None and manifest["run"] != facts.get("id"):
        raise MismatchError(
            f"{checkpoint}: of another run (its {MANIFEST} says {manifest['run']}, the run's record.json "
            f"{facts.get('id')})"
        )
    for file in names:
        _check_content(checkpoint / file, manifest["files"].get(file))


def _run_facts(checkpoint: Path) -> dict[str, Any] | None:
    """The record of the run in whose directory a checkpoint is; None where it is in none."""
    root = checkpoint.absolute().parent
    path = root.parent / "record.json"
    if root.name != "checkpoints" or not path.is_file():
        return None
    facts = read_json(path)
    if not isinstance(facts, dict):
        raise DamagedError(f"{path}: not the record of a run")
    return facts


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.keys() != _MANIFEST_TYPES.keys():
        raise DamagedError(f"{path}: not the manifest of a checkpoint")
    for name, kind in _MANIFEST_TYPES.items():
        if not isinstance(manifest[name], kind) or isinstance(manifest[name], bool):
            raise DamagedError(f"{path}: impossible value of {name}: {str(manifest[name])[:80]!r}")
    check_format(f"{path}: no readable manifest", manifest["format"], FORMAT)
    return manifest


def _check_content(path: Path, expected: object) -> None:
    """Compare the SHA-256 of a file with that in the manifest beside it."""
    if expected is None:
        raise DamagedError(f"{path}: is not in the checkpoint's {MANIFEST}")
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DamagedError(f"{path}: cannot be read ({error.strerror})") from error
    if found != expected:
        raise DamagedError(
            f"{path}: not what was saved (SHA-256 {found[:12]}, in {MANIFEST} {str(expected)[:12]})"
        )


def first_good(checkpoints: Iterable[Path], use: Callable[[Path], Used], *, say: bool = True) -> Used:
    """Use the first of several checkpoints that is in order.

    Args:
        checkpoints: at least one, the preferred first.
        use: raises an InputError for one that is not in order.
        say: log in one line which ones were refused and why.

    Returns:
        What `use` returns.

    Raises:
        InputError: none is in order; what is wrong with the first.
    """
    faults: list[InputError] = []
    for checkpoint in checkpoints:
        try:
            result = use(checkpoint)
        except InputError as error:
            faults.append(error)
            continue
        if faults and say:
            log.warning("%s; %s is taken instead", "; ".join(map(str, faults)), checkpoint.name)
        return result
    raise faults[0]


def shipped_path(name: str) -> Path:
    """Directory of a shipped model in this installation, whether it exists or not."""
    return Path(__file__).with_name("weights") / name


def named(path: str | Path) -> Path:
    """Resolve the name of a shipped model to its directory; a run or checkpoint of that name goes before it.

    Raises:
        NotFoundError: this installation came without the model.
    """
    known = WEIGHTS, CONFIG, "checkpoints"  # another folder may well be called "base"
    if str(path) not in SHIPPED or any((Path(path) / name).exists() for name in known):
        return Path(path)
    directory = shipped_path(str(path))
    if not directory.is_dir():
        raise NotFoundError(
            f"{directory}: the shipped model {str(path)!r} is missing; install the package again, or make it "
            f"with `python {SHIPPED[str(path)]}` from a checkout"
        )
    return directory


def find_checkpoint(path: str | Path, prefer: Literal["best", "last"] = "best") -> Path:
    """The checkpoint directory of a run, of a checkpoint (itself), or of a shipped model.

    Of a run, checkpoints that are not what their manifests say are passed over, which the log says.

    Args:
        path: a run, a checkpoint, or the name of a shipped model.
        prefer: of a run the one with the lowest validation loss ("best", else the newest), or the newest.

    Raises:
        NotFoundError: there is none.
        InputError: it, or every one of the run, is not what its manifest says.
    """
    path = named(path)
    if (path / WEIGHTS).is_file():
        check(path)
        return path
    root = path / "checkpoints"
    checkpoints = [*(saved(root, "best") if prefer == "best" else ()), *saved(root)]
    if not checkpoints:
        several = one_of_several(path).removeprefix("; ")
        raise NotFoundError(
            f"{path}: {several or f'neither a run nor a checkpoint (no {WEIGHTS} and no checkpoints/ in it)'}"
        )
    return first_good(checkpoints, _checked)


def _checked(checkpoint: Path) -> Path:
    check(checkpoint)
    return checkpoint


def read_about(directory: Path) -> dict[str, Any]:
    """The content of a checkpoint's `config.json`.

    Raises:
        InputError: it is missing, damaged, or of a newer format.
    """
    path = directory / CONFIG
    about = read_json(path)
    if not isinstance(about, dict):
        raise FormatError(f"{path}: not the settings of a checkpoint")
    check_format(f"{path}: no readable checkpoint", about.get("format"), FORMAT)
    for name, kind in _KINDS.items():
        if not isinstance(about.get(name), kind | None):
            raise FormatError(f"{path}: {name} is {shown(about[name])}, which is no {_WORDS[kind]}")
    elements = about.get("elements") or []
    if not all(isinstance(symbol, str) for symbol in elements):
        raise FormatError(f"{path}: elements is {shown(elements)}, which is no list of symbols")
    try:
        list(map(atomic_number, elements))
    except ElementError as error:
        raise error.with_context(f"{path}: elements") from error
    return about


def read_model_config(directory: Path) -> ModelConfig:
    """The settings of a checkpoint's model.

    Raises:
        InputError: `config.json` is missing or damaged.
    """
    return from_dict(ModelConfig, read_about(directory).get("model"), f"{directory / CONFIG}: model")


def read_weights(directory: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint by name.

    Raises:
        DamagedError: the file is missing or damaged.
    """
    path = directory / WEIGHTS
    with _naming_damage(path):
        return load_file(path)


@contextmanager
def _naming_damage(path: Path) -> Iterator[None]:
    """Turn errors of reading weights into one line with the path of their file."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise DamagedError(f"{path}: cannot be read ({_first_line(error)})") from error


def load_model(
    path: str | Path, prefer: Literal["best", "last"] = "best"
) -> tuple[MolSpectra, dict[str, Any]]:
    """The model of a run or checkpoint, in evaluation mode, and the content of its `config.json`.

    Args:
        path: a run, a checkpoint, or the name of a shipped model, see `find_checkpoint`.
        prefer: see `find_checkpoint`.

    Raises:
        InputError: no checkpoint there, a damaged one, or weights that do not fit its configuration.
    """
    directory = find_checkpoint(path, prefer)
    config = read_model_config(directory)
    with _no_larger_than_weights(config, directory):
        model = MolSpectra(config)
    load_exactly(model, read_weights(directory), partial(_label, directory / WEIGHTS))
    return model.eval(), read_about(directory)


def _no_larger_than_weights(config: ModelConfig, directory: Path) -> AllocationLimit:
    """Context in which a model is not built larger than the shapes in the head of the weights' file tell.

    Twice their number is allowed, for buffers that are not saved.
    """
    path = directory / WEIGHTS
    with _naming_damage(path), safe_open(path, "pt") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118 - no mapping
    refusal = MismatchError(
        f"{directory / CONFIG}: asks for more weights than {WEIGHTS} beside it holds "
        f"({largest_size(config)}); take both from one checkpoint"
    )
    return AllocationLimit(2 * len(shapes), 2 * sum(map(prod, shapes)), refusal)


def load_exactly(module: torch.nn.Module, state: Mapping[str, Tensor], label: Callable[[str], str]) -> None:
    """Load a state after checking that its names and shapes are exactly those of the module.

    Args:
        module: receives the state, in the types of its own tensors.
        state: tensors by name.
        label: how a message calls the tensor of a name.

    Raises:
        MismatchError: naming the first tensor that is missing, left over or of another shape.
    """
    own = module.state_dict()
    for name in dict.fromkeys([*own, *state]):
        if name not in state:
            raise MismatchError(f"{label(name)} is missing")
        if name not in own:
            raise MismatchError(f"{label(name)} is left over: the settings have no such part")
        shape, expected = list(state[name].shape), list(own[name].shape)
        if shape != expected:
            raise MismatchError(f"{label(name)} has shape {shape}, the settings ask for {expected}")
    module.load_state_dict(dict(state))


def _label(where: Path | str, name: str) -> str:
    return f"{where}: {name!r}"


def initialise(model: MolSpectra, path: str | Path) -> list[str]:
    """Start a model from a pre-trained one: a part that both have must have the same settings and tensors.

    The encoder must be there; noise heads, spectrum encoder and spectrum head are taken where both have them,
    of these two all but the modalities that only one has.
    A property head never is: it belongs to its target.

    Returns:
        The names of the parts taken, with the modalities that start from scratch.

    Raises:
        InputError: no checkpoint there, or a part that does not fit.
    """
    directory = find_checkpoint(path)
    state, config = read_weights(directory), read_model_config(directory)
    there, here = _modalities(config), _modalities(model.config)
    new = [name for name in here if name not in there]
    taken = []
    for part in _PARTS:
        module, prefix = getattr(model, part), f"{part}."
        part_state = {
            name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)
        }
        if module is None or (not part_state and part != "encoder"):
            continue
        if part.endswith("encoder"):  # heads have no settings of their own
            _check_settings(getattr(config, part), getattr(model.config, part), f"{directory}: {part}")
        if part.startswith("spectrum"):
            left_out = {name for name in there if name not in here}
            part_state = {
                **{
                    name: tensor for name, tensor in part_state.items() if not left_out & set(name.split("."))
                },
                **{name: own for name, own in module.state_dict().items() if set(new) & set(name.split("."))},
            }
        load_exactly(module, part_state, partial(_label, f"{directory / WEIGHTS} ({part})"))
        taken.append(f"{part} without {', '.join(new)}" if new and part.startswith("spectrum") else part)
        if part == "spectrum_encoder" and "log_scale" in state:
            model.log_scale.data.copy_(state["log_scale"])
    return taken


def encoder_of(path: str | Path) -> EquivariantTransformerConfig | EGNNConfig:
    """Return the settings of the encoder of a run, checkpoint or shipped model.

    Raises:
        InputError: no checkpoint there.
    """
    return read_model_config(find_checkpoint(path)).encoder


def with_encoder_of(model: ModelConfig, init: str | Path | None) -> ModelConfig:
    """Return a model's settings with the encoder of what it starts from, where they leave it at the default.

    Raises:
        InputError: no checkpoint there.
    """
    if init is None or model.encoder != ModelConfig().encoder:
        return model
    return dataclasses.replace(model, encoder=encoder_of(init))


def _modalities(config: ModelConfig) -> dict[str, Modality]:
    """The modalities of a model's spectrum encoder with their patches; {} without one."""
    return {} if config.spectrum_encoder is None else config.spectrum_encoder.kinds()


def _check_settings(pretrained: Any, own: Any, where: str) -> None:
    """Refuse settings that differ, also where no shape of a tensor shows it (cutoff, heads ...)."""
    before, now = _settings(pretrained), _settings(own)
    for name in now:
        is_new_modality = " of " in name and name not in before
        if before.get(name) != now[name] and not is_new_modality:
            raise MismatchError(
                f"{where}.{name} is {before.get(name)} there and {now[name]} in the run that starts from it; "
                f"leave model.{where.rpartition(' ')[2]}.{name} out, or start from another run"
            )


def _settings(part: Any) -> dict[str, Any]:
    """The settings of an encoder by name; of a spectrum encoder those of every modality apart."""
    settings = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
    if isinstance(part, SpecFormerConfig):
        per_modality = {"modalities", "patch", "stride"}
        settings = {name: value for name, value in settings.items() if name not in per_modality}
        for kind in part.kinds().values():
            settings |= {f"patch of {kind.name}": kind.patch, f"stride of {kind.name}": kind.stride}
    return settings


def read_resume(directory: Path) -> dict[str, Any]:
    """The resume state of a checkpoint: tensors and plain values only.

    Raises:
        InputError: it is missing, damaged, not that of the checkpoint's manifest, or holds anything else.
    """
    path = directory / RESUME
    check(directory, [RESUME])
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns about damaged files
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file may raise anything
        is_foreign = type(error).__name__ == "UnpicklingError"
        reason = "it holds more than tensors and plain values" if is_foreign else _first_line(error)
        raise DamagedError(f"{path}: cannot be read as a resume state ({reason})") from error
    if not isinstance(state, dict):
        raise DamagedError(f"{path}: cannot be read as a resume state (it holds a {type(state).__name__})")
    return state


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
