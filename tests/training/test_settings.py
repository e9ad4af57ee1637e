"""Settings: strict, nothing imported, errors on one line that name the setting."""

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from molspectra.errors import InputError, SettingError
from molspectra.training.config import FinetuneConfig, PretrainConfig
from molspectra.training.settings import did_you_mean, from_dict, load_yaml, read_yaml, settings_of, to_dict


def refusal(values: object, cls: type[Any] = PretrainConfig) -> str:
    with pytest.raises(InputError) as caught:
        from_dict(cls, values, "recipe.yaml")
    said = str(caught.value)
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"loop": {"steps": "five"}}, "loop.steps: expected an integer, not 'five'"),
        ({"loop": {"steps": "5"}}, "loop.steps: expected an integer, not '5'"),
        ({"loop": {"steps": 2.5}}, "loop.steps: expected an integer, not 2.5"),
        ({"loop": {"steps": True}}, "loop.steps: expected an integer, not True"),
        ({"loop": {"steps": None}}, "loop.steps: expected an integer, not None"),
        ({"loop": {"steps": float("inf")}}, "loop.steps: expected an integer, not inf"),
        ({"optimizer": {"clip": float("nan")}}, "optimizer.clip: expected a number, not nan"),
        ({"optimizer": {"clip": False}}, "optimizer.clip: expected a number, not False"),
        ({"loop": {"tensorboard": 1}}, "loop.tensorboard: expected true or false, not 1"),
        ({"data": {"store": 3}}, "data.store: expected a text, not 3"),
        ({"data": {"fractions": [0.8, 0.2]}}, "data.fractions: expected 3 numbers, not [0.8, 0.2]"),
        ({"data": {"fractions": [0.8, 0.1, "x"]}}, "data.fractions: expected a number, not 'x'"),
        ({"loop": 5}, "loop: expected a mapping of settings, not 5"),
        ([1], "expected a mapping of settings, not [1]"),
        (
            {"optimizer": {"schedule": {"kind": "cosin"}}},
            "optimizer.schedule.kind: expected one of constant, cosine, restarts, plateau, not 'cosin';"
            " did you mean cosine?",
        ),
        (
            {"model": {"property": "scaler"}},
            "model.property: expected one of scalar, dipole, spatial_extent, binary, vector, tensor or null, "
            "not 'scaler'; did you mean scalar?",
        ),
        ({"init": 5}, "init: expected a text or null, not 5"),
        # a nested dataclass that may be absent
        (
            {"model": {"spectrum_encoder": {"width": "wide"}}},
            "model.spectrum_encoder.width: expected an integer, not 'wide'",
        ),
        (
            {"model": {"spectrum_encoder": {"modalities": "ir"}}},
            "model.spectrum_encoder.modalities: expected a list of texts, not 'ir'",
        ),
        (
            {"model": {"spectrum_encoder": {"width": 30}}},
            "spectrum encoder: 16 heads do not divide the width 30",
        ),
        # names
        ({"loop": {"stepz": 5}}, "unknown setting 'loop.stepz'; did you mean loop.steps?"),
        ({"lop": {"steps": 5}}, "unknown setting 'lop'; did you mean loop?"),
        ({"steps": 5}, "unknown setting 'steps'; did you mean loop.steps?"),
        (
            {"model": {"spectrum_encoder": {"widht": 8}}},
            "unknown setting 'model.spectrum_encoder.widht'; did you mean model.spectrum_encoder.width?",
        ),
        ({"loop.steps": 7}, "unknown setting 'loop.steps'; write it as loop: {steps: ...}"),
        ({"xyzzy": 7}, "unknown setting 'xyzzy'"),
        ({1: 2}, "unknown setting '1'"),
    ],
)
def test_what_does_not_fit_is_named(values: object, said: str) -> None:
    assert refusal(values) == f"recipe.yaml: {said}"


@pytest.mark.parametrize(
    "values",
    [
        {"loop": {"steps": 0}},
        {"loop": {"batch_size": 2, "accumulation": 3}},
        {"loop": {"save_every": -1}},
        {"data": {"workers": -1}},
        {"optimizer": {"learning_rate": 0}},
        {"optimizer": {"ema": 1.0}},
        {"optimizer": {"schedule": {"factor": 0}}},
        {"weights": {"alignment": -1}},
        {"denoising": {"sigma": 0}},
    ],
)
def test_values_out_of_range_are_refused(values: object) -> None:
    assert refusal(values).startswith("recipe.yaml: ")


@pytest.mark.parametrize(
    "values",
    [
        {"target": "forces"},
        {"energy_smoothing": 0},
        {"denoising_weight": -0.1},
        {"denoising": {"sigma": -1}},
    ],
)
def test_fine_tuning_out_of_range_is_refused(values: object) -> None:
    assert refusal(values, FinetuneConfig).startswith("recipe.yaml: ")


@pytest.mark.parametrize(
    "place", [(), ("model",), ("model", "encoder"), ("model", "spectrum_encoder"), ("loop",)]
)
@pytest.mark.parametrize("as_text", [True, False])
def test_a_class_path_imports_nothing(
    place: tuple[str, ...], as_text: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "imported"
    (tmp_path / "trap_module.py").write_text(f"open({str(made)!r}, 'w').close()\nclass Trap: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    value: Any = "trap_module.Trap" if as_text else {"class_path": "trap_module.Trap", "init_args": {}}
    for name in reversed(place):
        value = {name: value}
    refusal(value)
    assert "trap_module" not in sys.modules
    assert not made.exists()


def test_what_is_not_given_keeps_the_default_of_its_place() -> None:
    config = from_dict(
        FinetuneConfig, {"model": {"encoder": {"layers": 2}}, "denoising": {"centred": False}}, ""
    )
    assert config.model.property is None
    assert config.model.encoder.layers == 2
    assert config.model.encoder.channels == FinetuneConfig().model.encoder.channels
    assert config.denoising.sigma == 0.005
    both = from_dict(PretrainConfig, {"model": {"spectrum_encoder": {"width": 64}}}, "")
    assert both.model.spectrum_encoder is not None
    assert (both.model.spectrum_encoder.width, both.model.spectrum_encoder.heads) == (64, 16)
    assert from_dict(PretrainConfig, {"model": {"spectrum_encoder": None}}, "") == PretrainConfig()


def test_numbers_take_the_type_of_the_setting() -> None:
    config = from_dict(PretrainConfig, {"loop": {"steps": 1e5}, "optimizer": {"clip": 5}}, "")
    assert config.loop.steps == 100_000
    assert isinstance(config.loop.steps, int)
    assert isinstance(config.optimizer.clip, float)
    split = from_dict(PretrainConfig, {"data": {"fractions": [1, 0, 0]}}, "").data.fractions
    assert split == (1.0, 0.0, 0.0)


@pytest.mark.parametrize("cls", [PretrainConfig, FinetuneConfig])
def test_settings_survive_json_and_yaml(cls: type[Any]) -> None:
    config = cls()
    assert from_dict(cls, json.loads(json.dumps(to_dict(config))), "test") == config
    assert from_dict(cls, load_yaml(yaml.safe_dump(to_dict(config))), "test") == config


@pytest.mark.parametrize("text", ["4e-4", "4E-4", "4.e-4", "+.4e-3", "0.0004", "4.0e-4"])
def test_yaml_reads_exponents_as_numbers(text: str) -> None:
    assert load_yaml(f"rate: {text}") == {"rate": 4e-4}


def test_yaml_reads_what_it_should() -> None:
    text = "a: {b: 1, c: [x, 2]}\nd: null\ne: true\nf: 1e5x\ng: -3\nh: 1_0"
    assert load_yaml(text) == {
        "a": {"b": 1, "c": ["x", 2]}, "d": None, "e": True, "f": "1e5x", "g": -3, "h": 10,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", "duplicate key 'a' in line 3"),
        ("x:\n  steps: 1\n  steps: 1", "duplicate key 'steps' in line 3"),
        ("{a: {b: 1, b: 2}}", "duplicate key 'b' in line 1"),
        ("1: 2", "1 in line 1 cannot be a name"),
        ("? [a]\n: 2", "cannot be a name"),
        ("a: !!python/object/apply:os.mkdir [x]", "could not determine a constructor"),
        ("a: !!python/name:os.system ''", "could not determine a constructor"),
        ("a: &a [*a]", "alias"),
        ("a: [1", "expected"),
        ("a: 2001-13-45", "month"),
        ("[" * 1000, "recursion"),
    ],
)
def test_yaml_refuses(text: str, said: str) -> None:
    with pytest.raises(yaml.YAMLError, match=said):
        load_yaml(text)


def test_every_setting_is_documented() -> None:
    for cls in (PretrainConfig, FinetuneConfig):
        settings = settings_of(cls, documented=True)
        assert [setting.name for setting in settings if not setting.help] == []
        assert len({setting.name for setting in settings}) == len(settings)
    names = {setting.name: setting for setting in settings_of(FinetuneConfig)}
    assert names["model.property"].default is None
    assert names["denoising.sigma"].default == 0.005
    assert names["model.spectrum_encoder.width"].default == 128
    assert names["optimizer.schedule.kind"].expected == "one of constant, cosine, restarts, plateau"
    assert not names["loop.steps"].help  # only read when asked for


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("loop.steps", "7", 7),
        ("optimizer.learning_rate", "4e-4", 4e-4),
        ("optimizer.clip", "5", 5.0),
        ("loop.tensorboard", "true", True),
        ("data.store", "12", "12"),
        ("data.store", "null", "null"),
        ("init", "null", None),
        ("init", "a: b", "a: b"),
        ("data.fractions", "0.8,0.1,0.1", (0.8, 0.1, 0.1)),
        ("data.fractions", "[0.8, 0.1, 0.1]", (0.8, 0.1, 0.1)),
        ("model.spectrum_encoder.modalities", "ir,raman", ("ir", "raman")),
        ("model.spectrum_encoder.patch", "null", None),
        ("model.spectrum_encoder.patch", "50", (50,)),
        ("model.property", "dipole", "dipole"),
        ("model.spectrum_encoder", "null", None),
    ],
)
def test_texts_of_the_command_line(name: str, text: str, value: Any) -> None:
    (setting,) = (each for each in settings_of(PretrainConfig) if each.name == name)
    assert setting.parse(text) == value


def test_a_part_with_its_defaults_on_the_command_line() -> None:
    (setting,) = (each for each in settings_of(PretrainConfig) if each.name == "model.spectrum_encoder")
    assert setting.parse("{width: 64}")["width"] == 64
    assert setting.parse("{}")["heads"] == 16
    with pytest.raises(SettingError, match=r"--model\.spectrum_encoder: .*mapping"):
        setting.parse("wide")


@pytest.mark.parametrize("text", ["five", "2.5", "", "[1]", "!!python/name:os.system"])
def test_wrong_texts_of_the_command_line(text: str) -> None:
    (setting,) = (each for each in settings_of(PretrainConfig) if each.name == "loop.steps")
    with pytest.raises(SettingError, match=r"--loop\.steps: .*integer"):
        setting.parse(text)


def test_suggestions() -> None:
    known = {"loop.steps", "loop.seed", "optimizer.clip", "init"}
    assert did_you_mean("loop.stepz", known) == "; did you mean loop.steps?"
    assert did_you_mean("clip", known) == "; did you mean optimizer.clip?"
    assert did_you_mean("intit", known) == "; did you mean init?"
    assert did_you_mean("quux", known) == ""
    many = known | {"optimizer.learning_rate", "loop.accelerator"}
    assert did_you_mean("optimizer.lr", many) == "; did you mean optimizer.learning_rate?"
    assert did_you_mean("device", many) == "; did you mean loop.accelerator?"


def test_aliases_are_refused_before_they_are_expanded(tmp_path: Path) -> None:
    """Nine of nine of nine ...: a few hundred bytes whose representation would fill any memory."""
    levels = [f"&a{level} [{','.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 30)]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("init: [&a0 [x,x,x]," + ",".join(levels) + "]")
    with pytest.raises(InputError, match=r"recipe\.yaml: .*alias \*a0 in line 1"):
        read_yaml(recipe)


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"key{number}: 1\n" for number in range(300_000)),
        f"init: {'1' * 10**6}",
        f"init: {'[' * 50_000}",
        f"loop: {{steps: {'1' * 100_000}}}",
        f"loop: {{steps: 0x{'f' * 100_000}}}",
        f"{'k' * 100_000}: 1",
        f"loop: {{{'k' * 100_000}: 1}}",
    ],
    ids=["keys", "file", "depth", "digits", "hexadecimal", "key", "nested key"],
)
def test_a_hostile_file_is_refused_in_one_short_line(text: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    with pytest.raises(InputError) as caught:
        from_dict(PretrainConfig, read_yaml(recipe), str(recipe))
    said = str(caught.value)
    assert said.startswith(str(recipe))
    assert "\n" not in said
    assert len(said) < len(str(recipe)) + 1000


def test_digits_are_matched_in_linear_time() -> None:
    """Quadratic backtracking over a line of digits would take minutes."""
    assert load_yaml("9" * 100_000 + "x") == "9" * 100_000 + "x"
    assert load_yaml("1.5e3") == 1500.0
    assert load_yaml("4e-4") == 4e-4


EXTREMES = (10**400, -(10**30), 0, -1, 1e308, 5e-324, float("nan"), [], [[]], {}, [10**400], "\0", True)


@pytest.mark.parametrize("value", EXTREMES, ids=lambda value: repr(value)[:12])
@pytest.mark.parametrize("cls", [PretrainConfig, FinetuneConfig])
def test_every_setting_takes_or_refuses_every_value(cls: type[Any], value: object) -> None:
    for setting in settings_of(cls):
        values: dict[str, Any] = {"model": {"spectrum_encoder": {}}}
        *groups, last = setting.name.split(".")
        node = values
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = value
        with suppress(InputError):
            from_dict(cls, values, "test")


@pytest.mark.parametrize(
    "values",
    [
        {"model": {"encoder": {"cutoff": 1e-17}}},
        {"model": {"encoder": {"kind": "egnn", "cutoff": 1e30}}},
        {"model": {"temperature": 0}},
        {"data": {"workers": 10**6}},
    ],
)
def test_absurd_numbers_are_refused(values: object) -> None:
    refusal(values)
