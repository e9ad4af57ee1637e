"""Checkpoints: complete or not there, refused in one line when damaged, taken over key by key."""

import io
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from molspectra.apps.cli import main
from molspectra.errors import DamagedError, InputError, MismatchError, NotFoundError
from molspectra.models.model import ModelConfig, MolSpectra
from molspectra.training import checkpoint
from molspectra.training.checkpoint import (
    find_checkpoint,
    initialise,
    load_model,
    newest,
    read_model_config,
    read_resume,
    save_checkpoint,
)
from molspectra.training.loop import Trainer
from molspectra.training.run import finetune, pretrain
from molspectra.training.settings import from_dict, to_dict

Make = Callable[..., Any]


@pytest.fixture
def model(stage1: Make) -> MolSpectra:
    torch.manual_seed(0)
    return MolSpectra(stage1().model)


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_the_newest_of_each_kind_is_kept(model: MolSpectra, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "best", 5, model, {}, None)
    save_checkpoint(tmp_path, "step", 5, model, {}, {"step": 5})
    save_checkpoint(tmp_path, "step", 10, model, {}, {"step": 10})
    assert names(tmp_path) == ["best-000000005", "step-000000010"]
    assert newest(tmp_path, "best") == tmp_path / "best-000000005"
    assert names(tmp_path / "best-000000005") == ["config.json", "manifest.json", "model.safetensors"]
    assert read_resume(tmp_path / "step-000000010") == {"step": 10}


def test_what_is_saved_is_loaded(model: MolSpectra, tmp_path: Path) -> None:
    directory = save_checkpoint(tmp_path / "checkpoints", "best", 3, model, {"stage": "stage1"}, None)
    loaded, about = load_model(tmp_path)  # as a run
    assert about["stage"] == "stage1"
    assert loaded.config == model.config
    assert not loaded.training
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert find_checkpoint(directory) == directory


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs, not even what cleans up."""


def survivors(monkeypatch: pytest.MonkeyPatch, save: Callable[[], object]) -> int:
    """Kill `save` before its first, second ... change of a directory entry; returns how many there are."""
    calls = 0

    def mortal(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == survivors.limit:  # type: ignore[attr-defined]
                raise Killed
            return function(*args, **options)

        return wrapped

    for owner, name in ((Path, "mkdir"), (Path, "rename"), (Path, "write_bytes"), (os, "fsync")):
        monkeypatch.setattr(owner, name, mortal(getattr(owner, name)))
    # the first file of a directory may go before the process is killed
    remove = shutil.rmtree

    def partly(path: Path, **options: Any) -> None:
        for file in sorted(Path(path).iterdir())[:1]:
            file.unlink()
        mortal(remove)(path, **options)

    monkeypatch.setattr(checkpoint.shutil, "rmtree", partly)
    save()
    return calls


@pytest.mark.parametrize("step", [10, 5])
def test_killed_at_any_moment_a_complete_checkpoint_is_there(
    model: MolSpectra, tmp_path: Path, step: int
) -> None:
    """Step 5 is reached again from an older state: what has its name must be replaced."""
    finished = False
    for limit in range(1, 40):
        root = tmp_path / str(limit)
        save_checkpoint(root, "best", 5, model, {"old": True}, None)
        save_checkpoint(root, "step", 4, model, {"old": True}, {"step": 4})
        survivors.limit = limit  # type: ignore[attr-defined]
        with pytest.MonkeyPatch.context() as patch:
            # a process that is killed does not clean up
            patch.setattr(checkpoint, "_write_directory", _without_cleaning)
            try:
                survivors(patch, lambda root=root: save_checkpoint(root, "best", step, model, {}, None))
                finished = True
            except Killed:
                pass
        for kind in ("best", "step"):
            found = newest(root, kind)
            if kind == "best" and step == 5 and found is None:
                continue  # for a moment neither has the name; a run's newest checkpoint serves
            assert found is not None
            load_model(found)
        save_checkpoint(root, "best", 20, model, {}, None)  # the next save sweeps up
        assert names(root) == ["best-000000020", "step-000000004"]
        if finished:
            break
    assert finished
    assert limit > 8


def _without_cleaning(directory: Path, files: Any) -> None:
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_bytes(content)
        checkpoint.flush(directory / name)
    checkpoint.flush(directory)


def test_a_failing_save_raises_and_leaves_nothing(
    model: MolSpectra, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, "step", 1, model, {}, {"step": 1})

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"step-000000002 cannot be written: No space left on device"):
        save_checkpoint(tmp_path, "step", 2, model, {}, {"step": 2})
    assert names(tmp_path) == ["step-000000001"]


@pytest.fixture(scope="module")
def run(stage2: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain(stage2(loop__steps=2), tmp_path_factory.mktemp("runs") / "run", show=False).directory


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A run that may be damaged; its newest checkpoint is its only one."""
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "best-000000002")
    return tmp_path / "run"


def one_line(error: pytest.ExceptionInfo[InputError]) -> str:
    said = str(error.value)
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors", b""),
        ("model.safetensors", b"\xff" * 64),
        ("config.json", b"{"),
        ("config.json", b"\xff\xfe"),
        ("config.json", b"[" * 100_000),
        ("config.json", b"[1]"),
        ("config.json", b'{"format": 2}'),
        ("config.json", b'{"format": 1}'),
        ("config.json", b'{"format": 1, "model": {"encoder": {"class_path": "os.system"}}}'),
    ],
)
def test_damaged_files_are_refused(copy: Path, file: str, content: bytes) -> None:
    (copy / "checkpoints" / "step-000000002" / file).write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_model(copy)
    assert file in one_line(caught)


@pytest.mark.parametrize("keep", [10, 1000, -1])
def test_truncated_weights_are_refused(copy: Path, keep: int) -> None:
    path = copy / "checkpoints" / "step-000000002" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DamagedError, match=r"model\.safetensors") as caught:
        load_model(copy)
    one_line(caught)


def unfinished(run: Path) -> Any:
    """Let a run be continued once more."""
    record = run / "record.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"finished": False}))


@pytest.mark.parametrize("keep", [0, 100, -100])
def test_a_truncated_state_is_refused(copy: Path, stage2: Make, keep: int) -> None:
    unfinished(copy)
    path = copy / "checkpoints" / "step-000000002" / "resume.pt"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DamagedError, match=r"resume\.pt") as caught:
        pretrain(stage2(loop__steps=2), copy, resume=True, show=False)
    one_line(caught)


class Payload:
    """Makes a directory when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("plain", [True, False])
def test_nothing_is_unpickled(
    copy: Path, stage2: Make, tmp_path: Path, made_before: Callable[[Path], None], plain: bool
) -> None:
    unfinished(copy)
    made_before(copy)
    made = tmp_path / "made by a pickle"
    content = io.BytesIO()
    if plain:
        pickle.dump({"step": Payload(made)}, content)
    else:
        torch.save({"step": Payload(made)}, content)
    path = copy / "checkpoints" / "step-000000002" / "resume.pt"
    path.write_bytes(content.getvalue())
    with pytest.raises(DamagedError, match=r"resume\.pt") as caught:
        pretrain(stage2(loop__steps=2), copy, resume=True, show=False)
    assert "it holds more than tensors and plain values" in one_line(caught)
    assert not made.exists()
    with suppress(RuntimeError):
        torch.load(path, weights_only=False)
    assert made.exists()  # it would have


@pytest.mark.parametrize("content", [[1, 2], {"step": 2}, {"step": 2, "best": 0.0, "stage": {}}])
def test_a_state_of_another_kind_is_refused(
    copy: Path, stage2: Make, made_before: Callable[[Path], None], content: Any
) -> None:
    unfinished(copy)
    made_before(copy)
    torch.save(content, copy / "checkpoints" / "step-000000002" / "resume.pt")
    with pytest.raises(InputError) as caught:
        pretrain(stage2(loop__steps=2), copy, resume=True, show=False)
    assert "step-000000002" in one_line(caught)


def test_the_record_of_a_resumed_run_must_be_one(copy: Path, stage2: Make) -> None:
    (copy / "record.json").write_text("[]")
    with pytest.raises(InputError, match=r"record\.json: not the record of a run"):
        pretrain(stage2(loop__steps=2), copy, resume=True, show=False)


def test_what_is_no_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=rf"^{re.escape(str(tmp_path))}: .*model\.safetensors"):
        load_model(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".new-step-000000003").mkdir()
    with pytest.raises(NotFoundError, match=rf"^{re.escape(str(tmp_path))}: .*model\.safetensors"):
        load_model(tmp_path)


def test_stage2_starts_with_encoder_and_noise_head_of_stage1(
    stage1: Make, stage2: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pretrain(stage1(loop__steps=2), tmp_path / "first", show=False).directory
    theirs = load_file(find_checkpoint(first) / "model.safetensors")
    started: list[dict[str, torch.Tensor]] = []
    run = Trainer.run

    def noting(self: Trainer, log: Any = None) -> dict[str, float]:
        started.append({name: value.clone() for name, value in self.stage.model.state_dict().items()})
        return run(self, log)

    monkeypatch.setattr(Trainer, "run", noting)
    pretrain(stage2(loop__steps=1), tmp_path / "fresh", show=False)
    second = pretrain(stage2(loop__steps=1, init=str(first)), tmp_path / "second", show=False).directory
    fresh, taken = started
    for name, value in taken.items():
        expected = theirs[name] if name.startswith(("encoder.", "noise_head.")) else fresh[name]
        assert torch.equal(value, expected), name
    assert theirs.keys() == {name for name in taken if name.startswith(("encoder.", "noise_head."))}
    about = json.loads((second / "record.json").read_text())["about"]
    assert about["initialised"] == {"from": str(first), "parts": ["encoder", "noise_head"]}


def test_fine_tuning_leaves_the_spectrum_encoder_and_keeps_its_own_head(
    run: Path, gap: Make, tmp_path: Path
) -> None:
    result = finetune(gap(loop__steps=1, init=str(run)), tmp_path / "run", show=False)
    about = json.loads((result.directory / "record.json").read_text())["about"]
    assert about["initialised"]["parts"] == ["encoder", "noise_head"]
    assert about["unit"] == "eV"
    again = finetune(gap(loop__steps=1, init=str(result.directory)), tmp_path / "again", show=False)
    about = json.loads((again.directory / "record.json").read_text())["about"]
    assert about["initialised"]["parts"] == ["encoder", "noise_head"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"channels": 8}, "encoder.channels is 16 there and 8"),
        ({"cutoff": 4.0}, "encoder.cutoff is 5.0 there and 4.0"),  # no shape shows it
        ({"heads": 4}, "encoder.heads is 2 there and 4"),
    ],
)
def test_a_start_with_other_settings_is_refused(
    run: Path, stage1: Make, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    config = stage1(init=str(run))
    encoder = replace(config.model.encoder, **change)
    with pytest.raises(MismatchError) as caught:
        pretrain(replace(config, model=ModelConfig(encoder)), tmp_path / "run", show=False)
    assert said in one_line(caught)
    assert not (tmp_path / "run").exists()


def test_the_start_decides_the_encoder_unless_another_is_asked_for(
    run: Path, gap: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """In Python where the settings leave it at its default; on the command line also with a recipe."""
    expected = read_model_config(find_checkpoint(run)).encoder
    config = replace(gap(init=str(run)), model=ModelConfig())
    made = finetune(config, tmp_path / "python", show=False).directory
    assert read_model_config(find_checkpoint(made)).encoder == expected
    data = [
        "--data.store",
        config.data.store,
        "--data.fractions",
        "0.5,0.25,0.25",
        "--loop.steps",
        "1",
        "--quiet",
    ]
    command = ["finetune", "--config", "small-gap", "--init", str(run), *data]
    assert main([*command, "--out", str(tmp_path / "command")]) == 0
    assert read_model_config(find_checkpoint(tmp_path / "command")).encoder == expected
    assert main([*command, "--out", str(tmp_path / "agrees"), "--model.encoder.heads", "2"]) == 0
    capfd.readouterr()
    assert main([*command, "--out", str(tmp_path / "other"), "--model.encoder.channels", "8"]) == 2
    assert "encoder.channels is 16 there and 8" in capfd.readouterr().err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda state: state.pop("encoder.embedding.weight"), "'embedding.weight' is missing"),
        (lambda state: state.update({"encoder.extra": torch.zeros(1)}), "'extra' is left over"),
        (
            lambda state: state.update({"encoder.embedding.weight": torch.zeros(3, 16)}),
            r"'embedding.weight' has shape \[3, 16\], .* \[100, 16\]",
        ),
        (
            lambda state: [state.pop(name) for name in list(state) if name.startswith("encoder.")],
            "'embedding.weight' is missing",
        ),
    ],
)
def test_an_unfitting_key_is_named(
    copy: Path, stage1: Make, made_before: Callable[[Path], None], spoil: Any, said: str
) -> None:
    made_before(copy)
    path = copy / "checkpoints" / "step-000000002" / "model.safetensors"
    state = load_file(path)
    spoil(state)
    save_file(state, path)
    with pytest.raises(MismatchError, match=said) as caught:
        initialise(MolSpectra(stage1().model), copy)
    assert "(encoder)" in one_line(caught)
    with pytest.raises(MismatchError, match=r"encoder\.(embedding\.weight|extra)'"):
        load_model(copy)


def test_stage2_continues_a_stage2(run: Path, stage2: Make) -> None:
    torch.manual_seed(3)
    model = MolSpectra(stage2().model)
    assert initialise(model, run) == ["encoder", "noise_head", "spectrum_encoder"]
    state = load_file(find_checkpoint(run) / "model.safetensors")
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_modalities_that_only_one_has_start_from_scratch(run: Path, stage2: Make) -> None:
    """Shared layers and shared modalities are taken, another one keeps its initial weights."""
    encoder = replace(
        stage2().model.spectrum_encoder, modalities=("ir", "dos_virtual"), patch=(250, 20), stride=(125, 20)
    )
    torch.manual_seed(3)
    model = MolSpectra(replace(stage2().model, spectrum_encoder=encoder))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    parts = initialise(model, run)
    assert parts == ["encoder", "noise_head", "spectrum_encoder without dos_virtual"]
    state = load_file(find_checkpoint(run) / "model.safetensors")
    for name, value in model.state_dict().items():
        expected = before if "dos_virtual" in name else state
        assert torch.equal(value, expected[name]), name


def test_patches_of_a_shared_modality_must_agree(run: Path, stage2: Make) -> None:
    encoder = replace(stage2().model.spectrum_encoder, modalities=("ir",), patch=(25,), stride=(25,))
    with pytest.raises(MismatchError, match="patch of ir is 250 there and 25"):
        initialise(MolSpectra(replace(stage2().model, spectrum_encoder=encoder)), run)


def test_a_models_settings_survive(stage2: Make) -> None:
    config = stage2().model
    assert from_dict(ModelConfig, json.loads(json.dumps(to_dict(config))), "test") == config


@pytest.mark.parametrize("spectra", [False, True])
@pytest.mark.parametrize(
    ("part", "name", "size"),
    [
        ("encoder", "channels", 10**9),
        ("encoder", "channels", 10**18),
        ("encoder", "layers", 10**7),
        ("encoder", "radial", 10**9),
        ("encoder", "max_number", 10**12),
        ("spectrum_encoder", "width", 10**9),
        ("spectrum_encoder", "layers", 10**7),
        ("spectrum_encoder", "feed_forward", 10**10),
    ],
)
def test_sizes_are_compared_with_the_weights_before_anything_is_allocated(
    stage1: Make, stage2: Make, tmp_path: Path, part: str, name: str, size: int, spectra: bool
) -> None:
    model = MolSpectra((stage2 if spectra or part != "encoder" else stage1)().model)
    directory = save_checkpoint(tmp_path, "best", 1, model, {}, None)
    load_model(directory)
    about = json.loads((directory / "config.json").read_text())
    about["model"][part][name] = size
    (directory / "config.json").write_text(json.dumps(about))
    (directory / "manifest.json").unlink()  # which would tell the change before
    with pytest.raises(MismatchError, match=rf"config\.json: .*model\.{part}\.{name} is {size}"):
        load_model(directory)


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder": {"kind": "egnn", "channels": 8, "layers": 1, "radial": 4}},
        {"spectrum_encoder": {"modalities": ["ir"]}, "spectrum_head": True, "spectrum_input": True},
        {"property": "scalar", "readout": "pooled"},
        {"property": "scalar", "atom_references": "fit", "force_head": True},
        {"property": "dipole"},
    ],
)
def test_a_model_of_every_part_is_no_larger_than_its_weights(changes: Any, tmp_path: Path) -> None:
    small = {"encoder": {"channels": 8, "heads": 1, "layers": 1, "radial": 4}}
    model = MolSpectra(from_dict(ModelConfig, small | changes, "test"))
    load_model(save_checkpoint(tmp_path, "best", 1, model, {}, None))


@pytest.mark.parametrize(
    ("name", "value"),
    [("elements", 7), ("elements", [["H"]]), ("elements", ["Qq"]), ("unit", [1]), ("alignment", "cosine")],
)
def test_values_of_a_wrong_kind_beside_the_weights_are_refused(
    model: MolSpectra, tmp_path: Path, name: str, value: Any
) -> None:
    directory = save_checkpoint(tmp_path, "best", 1, model, {name: value}, None)
    with pytest.raises(InputError, match=rf"config\.json: {name}"):
        load_model(directory)
