"""`pretrain` and `finetune` as they are typed, on a few of the bundled molecules."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from molspectra.apps.cli import main
from molspectra.apps.commands.training import ALIASES, EVERYDAY
from molspectra.data.store.bundled import bundled, bundled_path
from molspectra.errors import InputError
from molspectra.models.equivariant_transformer import EquivariantTransformerConfig
from molspectra.models.specformer import SpecFormerConfig
from molspectra.training.checkpoint import load_model
from molspectra.training.config import FinetuneConfig, PretrainConfig
from molspectra.training.run import finetune, pretrain
from molspectra.training.settings import from_dict, read_recipe, recipes, settings_of

TINY = [
    "--model.encoder.channels=16", "--model.encoder.layers=1", "--model.encoder.heads=2",
    "--model.encoder.radial=8", "--data.fractions=0.97,0.01,0.02", "--data.train_rows=40",
    "--loop.batch_size=8", "--loop.steps=4", "--loop.validate_every=2", "--loop.save_every=2",
    "--loop.log_every=1",
]  # fmt: skip
SPECTRA = [
    "--model.spectrum_encoder.width=16", "--model.spectrum_encoder.heads=2",
    "--model.spectrum_encoder.layers=1", "--model.spectrum_encoder.feed_forward=16",
]  # fmt: skip


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a refused command prints."""
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert captured.out == ""
    return line.removeprefix("molspectra: error: ")


def test_from_pretraining_to_a_resumed_fine_tuning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    one = ["--config", "small-stage1", "--out", "runs/one", *TINY]
    two = ["--config", "small-stage2", "--out", "runs/two", "--init", "runs/one", *TINY, *SPECTRA]
    gap = ["--config", "small-gap", "--out", "runs/gap", "--init", "runs/two", *TINY]
    assert main(["pretrain", *one]) == 0
    printed = capsys.readouterr()
    assert "val/denoising: " in printed.out
    assert printed.out.splitlines()[-1].startswith("runs/one (")
    assert "stage1: 4/4 loss" in printed.err
    assert main(["pretrain", *two, "--quiet"]) == 0
    printed = capsys.readouterr()
    assert "val/alignment: " in printed.out
    assert printed.err == ""

    assert main(["finetune", *gap]) == 0
    whole = capsys.readouterr().out.splitlines()[0]
    assert refused(capsys, "finetune", *gap).startswith("runs/gap: exists already; continue it with --resume")
    about = json.loads((tmp_path / "runs/gap/record.json").read_text())["about"]
    assert about["initialised"] == {"from": "runs/two", "parts": ["encoder", "noise_head"]}

    # as if it had been killed; --resume alone knows the settings
    record = tmp_path / "runs/gap/record.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"finished": False}))
    assert main(["finetune", "--out", "runs/gap", "--resume"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == whole
    assert "runs/gap: continues from step 4" in printed.err
    message = refused(capsys, "finetune", "--out", "runs/gap", "--resume", "--loop.seed", "1")
    assert message == "runs/gap: cannot resume with other settings: loop.seed was 0 and is 1 now"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stepz", "3"], "unrecognized arguments: --stepz 3; did you mean --loop.steps?"),
        (["--loop.stepz", "3"], "unrecognized arguments: --loop.stepz 3; did you mean --loop.steps?"),
        (["--loop.step", "3"], "unrecognized arguments: --loop.step 3; did you mean --loop.steps?"),
        (["--xyzzy"], "unrecognized arguments: --xyzzy; see molspectra pretrain --help"),
        (["--quiett"], "unrecognized arguments: --quiett; did you mean --quiet?"),
        (["--loop.steps"], "argument --loop.steps: expected one argument"),
        (["--loop.steps", "five"], "--loop.steps: expected an integer, not 'five'"),
        (["--data.fractions", "0.8,0.2"], "--data.fractions: expected 3 numbers, not [0.8, 0.2]"),
        (["--loop.steps", "0"], "pretrain: loop: steps must be at least 1, not 0"),
        (["--config", "small-stage3"], "small-stage3: no such file or recipe; did you mean 'small-stage2'?"),
        (
            ["--config", "xyzzy"],
            "xyzzy: no such file or recipe; recipes: base-gap, paper-md17, paper-qm9",
        ),
        (["--config", "small-gap"], "small-gap: unknown setting 'target'"),
        (["--config", "bad.yaml"], "bad.yaml: loop.steps: expected an integer, not 'five'"),
        (["--config", "twice.yaml"], "twice.yaml: not readable as YAML (duplicate key 'loop' in line 2)"),
        (["--config", "list.yaml"], "list.yaml: a mapping of settings is needed"),
        (["--config", "binary.yaml"], "binary.yaml: not readable as YAML ("),
        (["--config", "flat.yaml", "--loop.steps", "1"], "flat.yaml: loop: expected a mapping of settings"),
        (["--config", "."], ".: no such file or recipe"),
        (
            ["--config", "bad.yaml", "--loop.steps", "4"],
            "bad.yaml: unknown setting 'lop'; did you mean loop?",
        ),
        (["--config", "small-stage1", "--data.folds", "1"], "pretrain: data.folds: 2 to"),
        (["--init", "nowhere"], "nowhere: neither a run nor a checkpoint"),
        (["--data.store", "nowhere.arrow"], "nowhere.arrow"),
        (["--model.spectrum_encoder.modalities", "ir,ramam"], "unknown modality 'ramam'"),
    ],
)
def test_one_line_for_what_does_not_fit(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {
        "bad.yaml": b"loop: {steps: five}\nlop: 3",
        "twice.yaml": b"loop: {steps: 1}\nloop: {steps: 2}",
        "list.yaml": b"- 1",
        "binary.yaml": b"\xff\xfe\x00",
        "flat.yaml": b"loop: 7",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert message in refused(capsys, "pretrain", "--out", "run", *arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)


def test_a_run_needs_a_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "finetune") == "the following arguments are required: --out"


def test_a_class_path_on_the_command_line_imports_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "trap.py").write_text("open('imported', 'w').close()\nclass Trap: pass\n")
    for option in ("--model.spectrum_encoder", "--model.encoder", "--model", "--init"):
        refused(capsys, "pretrain", "--out", "run", option, "trap.Trap")
    refused(capsys, "pretrain", "--out", "run", "--model.spectrum_encoder", "{class_path: trap.Trap}")
    refused(capsys, "pretrain", "--out", "run", "--model.spectrum_encoder.class_path", "trap.Trap")
    assert [path.name for path in tmp_path.iterdir()] == ["trap.py"]


def help_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == 0
    return capsys.readouterr().out


CONFIGS: list[tuple[str, type[Any]]] = [("pretrain", PretrainConfig), ("finetune", FinetuneConfig)]


@pytest.mark.parametrize(("command", "config"), CONFIGS)
def test_help_shows_the_everyday_settings(
    command: str, config: type[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(capsys, command, "--help")
    shown = re.findall(r"^  (?:-h, )?(--[\w.-]+)", text, re.MULTILINE)
    assert 12 <= len(shown) <= 20
    settings = {setting.name for setting in settings_of(config)}
    assert {f"--{name}" for name in EVERYDAY if name in settings and name not in ALIASES} <= set(shown)
    assert {"--config", "--out", "--resume", "--quiet", "--device", "--help-all"} <= set(shown)
    printed = " ".join(text.split())
    assert "--loop.batch_size VALUE Molecules per optimizer step" in printed
    assert "[an integer; default: 64]" in printed
    assert "Recipes: base-gap, paper-md17, paper-qm9, paper-stage1" in printed
    assert f"--help-all shows all {len(settings)} settings" in printed


def test_every_everyday_setting_is_one() -> None:
    assert set(EVERYDAY) | ALIASES.keys() <= {setting.name for setting in settings_of(FinetuneConfig)}


@pytest.mark.parametrize(("command", "config"), CONFIGS)
def test_the_whole_help_has_every_setting_in_the_group_of_its_prefix(
    command: str, config: type[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    parts = re.split(r"^([a-z_.]+):\n", help_of(capsys, command, "--help-all"), flags=re.MULTILINE)
    groups = dict(zip(parts[1::2], parts[2::2], strict=True))
    for setting in settings_of(config, documented=True):
        group = groups[setting.name.rpartition(".")[0] or "settings"]
        assert f"--{setting.name} VALUE" in group
        assert setting.help.split()[0] in group


def test_device_and_accelerator_are_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    start = ["finetune", "--config", "small-gap", *TINY, "--quiet", "--out"]
    for option in ("--device", "--loop.accelerator"):
        out = tmp_path / option
        assert main([*start, str(out), option, "cpu"]) == 0
        assert json.loads((out / "config.json").read_text())["loop"]["accelerator"] == "cpu"
        capsys.readouterr()
        said = refused(capsys, *start, str(tmp_path / "none"), option, "gpu")
        assert "loop: accelerator must be auto, cpu, cuda" in said
        assert "'cuda:1' with 32-true cannot be used" in refused(
            capsys, *start, str(tmp_path / "none"), option, "cuda:1"
        )

    # a run that was begun before "auto" was the default goes on with the command that began it
    record = out / "record.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"finished": False}))
    assert main([*start, str(out), "--resume"]) == 0
    assert json.loads((out / "config.json").read_text())["loop"]["accelerator"] == "cpu"
    assert json.loads(record.read_text())["resumed"][0]["device"] == "cpu"
    capsys.readouterr()
    assert "loop.accelerator was 'cpu' and is 'mps' now" in refused(
        capsys, *start, str(out), "--resume", "--device", "mps"
    )


SHIPPED = sorted(recipes())


def config_of(name: str) -> PretrainConfig | FinetuneConfig:
    values = read_recipe(name)
    return from_dict(FinetuneConfig if "target" in values else PretrainConfig, values, name)


def test_recipes_are_shipped() -> None:
    assert SHIPPED == [
        "base-gap",
        "paper-md17",
        "paper-qm9",
        "paper-stage1",
        "paper-stage1-frad",
        "paper-stage1-slide",
        "paper-stage2",
        "pilot-egnn",
        "shipped-stage1",
        "shipped-stage2",
        "small-gap",
        "small-md17",
        "small-pilot",
        "small-stage1",
        "small-stage2",
    ]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_recipe_fits_its_dataclass(name: str) -> None:
    config = config_of(name)
    assert isinstance(config, FinetuneConfig) == name.endswith(("qm9", "gap", "md17", "egnn", "pilot"))
    assert config.model.spectrum_input == ("pilot" in name)
    if name.startswith("small"):
        assert config.data.store == ("bundled-ethanol" if name == "small-md17" else "bundled")


@pytest.mark.parametrize("kind", ["frad", "slide"])
def test_other_denoising_differs_by_its_line_alone(kind: str) -> None:
    values, other = read_recipe("paper-stage1"), read_recipe(f"paper-stage1-{kind}")
    assert values["denoising"] | {"kind": kind} == other.pop("denoising")
    values.pop("denoising")
    assert values == other


@pytest.mark.parametrize("name", ["paper-qm9", "paper-stage1", "paper-stage2"])
def test_published_settings(name: str) -> None:
    config = config_of(name)
    encoder = config.model.encoder
    assert (encoder.channels, encoder.layers, encoder.radial, encoder.cutoff) == (256, 8, 64, 5.0)
    assert config.optimizer.learning_rate == 4e-4
    assert config.optimizer.schedule.warmup == 10_000
    assert config.loop.steps == (700_000 if name == "paper-qm9" else 400_000)
    assert config.loop.batch_size == (70 if name == "paper-stage1" else 128)
    assert config.denoising.sigma == (0.005 if name == "paper-qm9" else 0.04)


def test_published_settings_of_md17() -> None:
    config = config_of("paper-md17")
    assert isinstance(config, FinetuneConfig)
    encoder, schedule = config.model.encoder, config.optimizer.schedule
    assert (encoder.channels, encoder.layers, encoder.heads, encoder.radial) == (128, 6, 8, 32)
    assert not encoder.layer_norms
    assert (config.data.split, config.data.sizes) == ("reference", (950, 50))
    assert (config.energy_weight, config.force_weight, config.energy_smoothing) == (0.2, 0.8, 0.05)
    assert (config.loop.steps, config.loop.batch_size) == (140_000, 8)
    assert config.loop.validate_every == -(-950 // 8)  # patience counts epochs
    assert config.optimizer.learning_rate == 5e-4
    assert (schedule.kind, schedule.shrink, schedule.patience) == ("plateau", 0.8, 30)


def test_stages_of_a_family_fit_each_other() -> None:
    for family, names in (("paper", ("stage1", "stage2", "qm9")), ("small", ("stage1", "stage2", "gap"))):
        configs = [config_of(f"{family}-{name}") for name in names]
        assert len({config.model.encoder for config in configs}) == 1
        assert [bool(config.model.spectrum_encoder) for config in configs] == [False, True, False]
    for stage in ("stage1", "stage2"):  # so that small-gap can start from the model "small"
        assert config_of(f"shipped-{stage}").model.encoder == config_of("small-gap").model.encoder


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.startswith("small")])
def test_small_recipes_run(name: str, tmp_path: Path) -> None:
    config: Any = config_of(name)
    if name == "small-md17" and not bundled_path("bundled-ethanol").is_file():
        pytest.skip("the bundled trajectory is not in this checkout")
    model = replace(config.model, encoder=EquivariantTransformerConfig(16, 1, 2, 8))
    if model.spectrum_encoder:
        model = replace(
            model, spectrum_encoder=SpecFormerConfig(width=16, heads=2, layers=1, feed_forward=16)
        )
    loop = replace(config.loop, steps=2, batch_size=8)
    data = replace(config.data, train_rows=16)
    if data.split == "identity":
        data = replace(data, fractions=(0.97, 0.01, 0.02))
    start = finetune if isinstance(config, FinetuneConfig) else pretrain
    result = start(replace(config, model=model, loop=loop, data=data), tmp_path / "run", show=False)
    assert result.metrics["loss"] > 0
    record = json.loads((result.directory / "record.json").read_text())
    assert record["data"]["hash"] == bundled(data.store).hash


def test_the_recipe_of_base_fits_the_model_it_starts_from() -> None:
    config = config_of("base-gap")
    assert isinstance(config, FinetuneConfig)
    assert config.init == "base"
    assert load_model("base")[0].config.encoder == config.model.encoder


def test_a_recipe_of_ones_own_wins_over_a_shipped_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small-gap").write_text("init: mine")
    assert read_recipe("small-gap") == {"init": "mine"}
    with pytest.raises(InputError, match=r"nothing\.yaml: no such file or recipe"):
        read_recipe("nothing.yaml")
