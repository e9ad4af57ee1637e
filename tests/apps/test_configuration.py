"""What configures a run in Python: as at the command line, and in its words where something does not fit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from molspectra.apps.cli import main
from molspectra.errors import InputError, SettingError
from molspectra.models.egnn import EGNNConfig
from molspectra.training import run
from molspectra.training.checkpoint import encoder_of, with_encoder_of
from molspectra.training.config import FinetuneConfig, PretrainConfig
from molspectra.training.configuration import recipe
from molspectra.training.run import finetune, pretrain
from molspectra.training.settings import from_dict, read_recipe, recipes

FUNCTIONS = {"pretrain": pretrain, "finetune": finetune}


@pytest.mark.parametrize("name", sorted(recipes()))
def test_every_recipe_comes_back_from_its_printed_form(name: str, tmp_path: Path) -> None:
    config = recipe(name)
    assert isinstance(config, FinetuneConfig if "target" in read_recipe(name) else PretrainConfig)
    assert config == from_dict(type(config), read_recipe(name), name)
    file = tmp_path / "printed.yaml"
    file.write_text(str(config), encoding="utf-8")
    assert recipe(file) == config


def test_settings_go_by_full_name_nested_or_as_what_they_are() -> None:
    config = recipe(
        "small-gap", **{"loop.steps": 500, "data.store": Path("own.arrow"), "target": ["gap", "homo"]}
    )
    assert (config.loop.steps, config.loop.batch_size) == (500, 32)
    assert config.data.store == "own.arrow"
    assert isinstance(config, FinetuneConfig)
    assert config.targets == ("gap", "homo")
    assert recipe("small-gap", loop={"steps": 500}, data=config.data, target="gap,homo") == config
    assert recipe("small-gap", **{"loop": {}}) == recipe("small-gap")
    assert config.replace(**{"loop.steps": 7}) == replace(config, loop=replace(config.loop, steps=7))
    assert config.loop.steps == 500
    other = config.replace(**{"model.encoder.kind": "egnn", "model.encoder.channels": 32})
    assert other.model.encoder == EGNNConfig(channels=32)
    assert config.replace(model={"encoder": EGNNConfig(layers=2)}).model.encoder == EGNNConfig(layers=2)


def test_init_brings_its_encoder_as_at_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    monkeypatch.setattr(
        run, "_run", lambda config, *_: started.append(config) or run.RunResult(tmp_path, {}, 0)
    )
    given = {"init": "base", "loop.steps": 9}
    options = [f"--{name}={value}" for name, value in given.items()]
    assert main(["finetune", "--config", "small-gap", "--out", str(tmp_path / "run"), *options]) == 0
    finetune(recipe("small-gap", **given), tmp_path / "run")
    assert main(["finetune", "--out", str(tmp_path / "run"), *options]) == 0
    finetune(given, tmp_path / "run")
    with_recipe, from_python, bare, from_mapping = started
    assert with_recipe == from_python
    assert bare == from_mapping
    assert with_recipe.model.encoder == bare.model.encoder == encoder_of("base")
    replaced = recipe("small-gap").replace(init="base")
    assert with_encoder_of(replaced.model, replaced.init).encoder == encoder_of("base")
    own = recipe("small-gap").replace(**{"init": "base", "model.encoder.channels": 32})
    assert own.model.encoder.channels == 32


@pytest.mark.parametrize("command", FUNCTIONS)
@pytest.mark.parametrize(
    "settings",
    [
        {"loop": {"steps": "five"}},
        {"loop": {"stepz": 5}},
        {"lop": {"steps": 5}},
        {"loop": 7},
        {"lr": 1e-3},
        {"loop": {"steps": 0}},
        {"data": {"fractions": [0.8, 0.2]}},
        {"model": {"spectrum_encoder": {"modalities": ["ramam"]}}},
        {"optimizer": {"schedule": {"kind": "cosin"}}},
    ],
)
def test_a_mapping_is_refused_in_the_words_of_the_command_line(
    command: str, settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "own.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump(settings))
    assert main([command, "--config", str(file), "--out", str(out)]) == 2
    said = capsys.readouterr().err.removeprefix("molspectra: error: ").rstrip("\n")
    with pytest.raises(InputError) as caught:
        FUNCTIONS[command](settings, out)
    assert str(caught.value) == said.replace(str(file), command)
    with pytest.raises(InputError) as caught:
        FUNCTIONS[command](file, out)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("wrong", "facts"),
    [
        (lambda: recipe("small-gapp"), ("small-gapp", "did you mean 'small-gap'")),
        (lambda: recipe("small-gap", steps=3), ("recipe", "'steps'", "did you mean loop.steps")),
        (lambda: recipe("small-gap", **{"loop.steps.x": 3}), ("loop.steps", "mapping")),
        (lambda: recipe("small-gap", loop={"steps": 3}, **{"loop.steps": 4}), ("loop.steps", "twice")),
        (lambda: recipe("small-gap").replace(**{"loop.stepz": 3}), ("FinetuneConfig", "loop.steps")),
        (lambda: pretrain(recipe("small-gap"), "run"), ("pretrain", "FinetuneConfig", "finetune takes it")),
        (lambda: pretrain("small-gap", "run"), ("small-gap", "unknown setting 'target'")),
        (lambda: finetune(3, "run"), ("finetune", "mapping", "int")),  # type: ignore[arg-type]
    ],
)
def test_one_line_for_what_configures_nothing(wrong: Any, facts: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        wrong()
    assert all(fact in str(caught.value) for fact in facts)
    assert "\n" not in str(caught.value)


def test_a_replaced_setting_is_checked() -> None:
    with pytest.raises(SettingError, match=r"loop: steps"):
        recipe("small-stage1").replace(**{"loop.steps": 0})
