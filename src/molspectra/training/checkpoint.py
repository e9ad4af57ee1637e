"""Checkpoints: weights as safetensors + JSON for everyone, resume state for the run; each save is atomic.

A checkpoint is a directory, written under a temporary name, flushed to disk and renamed: a directory with its
final name is complete. Nothing is unpickled; `resume.pt` is read with `weights_only=True`.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from molspectra.errors import InputError
from molspectra.models.model import ModelConfig, MolSpectra
from molspectra.training.settings import from_dict

WEIGHTS, CONFIG, RESUME = "model.safetensors", "config.json", "resume.pt"
FORMAT = 1
_NAME = re.compile(r"(step|best)-(\d{9})")


def save_model(directory: Path, model: MolSpectra, about: Mapping[str, Any] | None = None) -> None:
    """Write weights and configuration of a model into an existing directory.

    Args:
        directory: where `model.safetensors` and `config.json` go.
        model: the model.
        about: further JSON values for `config.json` (target, unit, run ...).
    """
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(state, directory / WEIGHTS, metadata={"format": str(FORMAT)})
    config = {"format": FORMAT, "model": asdict(model.config), **(about or {})}
    (directory / CONFIG).write_text(json.dumps(config, indent=1, ensure_ascii=False), encoding="utf-8")


def save_checkpoint(
    root: Path,
    kind: str,
    step: int,
    model: MolSpectra,
    about: Mapping[str, Any],
    resume: Mapping[str, Any] | None,
) -> Path:
    """Write `<root>/<kind>-<step>` atomically, then remove older checkpoints of that kind.

    Args:
        root: the run's checkpoint directory.
        kind: "step" or "best".
        step: optimizer steps done.
        model: holds the weights to use (the averaged ones where there is an average).
        about: goes to `config.json`.
        resume: what a resumed run needs (tensors and plain values); None where the checkpoint is for use only.
    """
    root.mkdir(parents=True, exist_ok=True)
    final = root / f"{kind}-{step:09d}"
    scratch = root / f".{final.name}.{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    save_model(scratch, model, about)
    if resume is not None:
        torch.save(dict(resume), scratch / RESUME)
    for file in scratch.iterdir():
        _flush(file)
    _flush(scratch)
    shutil.rmtree(final, ignore_errors=True)
    scratch.rename(final)
    _flush(root)
    for other in root.iterdir():
        match = _NAME.fullmatch(other.name)
        if match and match[1] == kind and other != final:
            shutil.rmtree(other)
    return final


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def newest(root: Path, kind: str = "step") -> Path | None:
    """The newest complete checkpoint of a kind under a run's checkpoint directory."""
    if not root.is_dir():
        return None
    found = [path for path in root.iterdir() if (match := _NAME.fullmatch(path.name)) and match[1] == kind]
    return max(found, key=lambda path: path.name, default=None)


def find_checkpoint(path: str | Path) -> Path:
    """The model directory that a path means: itself, or a run's best, else newest checkpoint.

    Raises:
        InputError: there is none.
    """
    path = Path(path)
    if (path / WEIGHTS).is_file():
        return path
    checkpoints = path / "checkpoints"
    found = newest(checkpoints, "best") or newest(checkpoints)
    if found is None:
        raise InputError(f"{path}: neither a run nor a checkpoint (no {WEIGHTS} and no checkpoints/ in it)")
    return found


def read_about(directory: Path) -> dict[str, Any]:
    """The content of a checkpoint's `config.json`.

    Raises:
        InputError: it is missing, damaged, or of a newer format.
    """
    try:
        about = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{directory / CONFIG}: cannot be read as JSON ({error})") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise InputError(
            f"{directory / CONFIG}: not a checkpoint of format {FORMAT}; a newer version may read it"
        )
    return about


def read_weights(directory: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        return load_file(directory / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{directory / WEIGHTS}: cannot be read ({error})") from error


def load_model(path: str | Path) -> tuple[MolSpectra, dict[str, Any]]:
    """The model of a run or checkpoint, in evaluation mode, and the content of its `config.json`.

    Raises:
        InputError: no checkpoint there, or weights that do not fit the configuration.
    """
    directory = find_checkpoint(path)
    about = read_about(directory)
    model = MolSpectra(from_dict(ModelConfig, about.get("model"), f"{directory / CONFIG}: model"))
    load_exactly(model, read_weights(directory), directory / WEIGHTS)
    return model.eval(), about


def load_exactly(model: torch.nn.Module, state: Mapping[str, Tensor], where: Path | str) -> None:
    """Load a state of which every key and shape must fit.

    Raises:
        InputError: naming the first key that is missing, unknown or of another shape.
    """
    own = model.state_dict()
    for name in own.keys() | state.keys():
        if name not in state:
            raise InputError(f"{where}: the weights lack {name!r}, which the configuration asks for")
        if name not in own:
            raise InputError(f"{where}: the weights hold {name!r}, which the configuration does not have")
        if own[name].shape != state[name].shape:
            theirs, ours = tuple(state[name].shape), tuple(own[name].shape)
            raise InputError(f"{where}: {name!r} has shape {theirs}, the configuration asks for {ours}")
    model.load_state_dict(dict(state))


def initialise(model: MolSpectra, path: str | Path) -> list[str]:
    """Start a model from a pre-trained one: every part that both have must fit key by key.

    The encoder must be there; the noise head and the spectrum encoder are taken where both models have them, a
    property head never (it belongs to its target).

    Returns:
        The names of the parts taken.

    Raises:
        InputError: no checkpoint there, or a part that does not fit.
    """
    directory = find_checkpoint(path)
    state = read_weights(directory)
    taken = []
    for part in ("encoder", "noise_head", "spectrum_encoder"):
        module = getattr(model, part)
        theirs = {
            name.removeprefix(f"{part}."): value
            for name, value in state.items()
            if name.startswith(f"{part}.")
        }
        if module is None or (not theirs and part != "encoder"):
            continue
        load_exactly(module, theirs, f"{directory / WEIGHTS} ({part})")
        taken.append(part)
    if "spectrum_encoder" in taken and "log_scale" in state:
        model.log_scale.data.copy_(state["log_scale"])
    return taken


def read_resume(directory: Path) -> dict[str, Any]:
    """The resume state of a checkpoint: tensors and plain values only.

    Raises:
        InputError: it is missing, damaged, or holds anything else.
    """
    path = directory / RESUME
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{path}: cannot be read as a resume state ({reason})") from error
    return state
