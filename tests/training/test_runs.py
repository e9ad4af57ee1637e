"""What a run leaves behind, what it refuses, and which rows it sees."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import molspectra
from molspectra.chem.molecule import Molecule
from molspectra.data.loader import batches
from molspectra.data.splits import split_rows
from molspectra.data.store.store import Metadata, Quantity, Row, Store, write_store
from molspectra.data.store.writer import record_of, write_records
from molspectra.data.stream import BatchStream
from molspectra.errors import (
    ExistsError,
    FormatError,
    InputError,
    MismatchError,
    NotFoundError,
    SettingError,
    UnitError,
    ValueRangeError,
    WriteError,
)
from molspectra.spectra.spectrum import LineSpectrum
from molspectra.training import record as records
from molspectra.training.config import DataConfig, PretrainConfig
from molspectra.training.data import BatchMaker, Selection
from molspectra.training.record import (
    MetricLog,
    commit,
    machine,
    read_json,
    read_metrics,
    versions,
    write_json,
)
from molspectra.training.run import finetune, pretrain
from molspectra.training.settings import from_dict, to_dict
from molspectra.training.targets import resolved

Make = Callable[..., Any]


def test_the_run_directory(
    gap: Make, store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = resolved(gap(loop__seed=3, loop__log_every=3))
    result = finetune(config, tmp_path / "deep" / "run")
    run = result.directory
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoints", "config.json", "metrics.csv", "record.json",
    ]  # fmt: skip
    assert sorted(path.name[:5] for path in (run / "checkpoints").iterdir()) == ["best-", "step-", "step-"]
    assert from_dict(type(config), read_json(run / "config.json"), "") == config

    record = read_json(run / "record.json")
    assert record["config"] == to_dict(config)
    about = record["about"]
    known = {"stage": "finetune", "target": "gap", "unit": "eV", "level": "made up"}
    assert about == known | {"elements": about["elements"]}
    assert {"H", "C"} <= set(about["elements"])
    assert record["seed"] == 3
    assert record["data"]["hash"] == store.hash
    assert sum(record["data"]["rows"].values()) == 39  # row 5 has no gap
    assert record["data"]["rows_without_target"] == 1
    assert record["versions"] == versions()
    assert record["commit"] == commit()
    assert record["machine"] == json.loads(json.dumps(machine()))
    assert (record["device"], record["processes"]) == ("cpu", 1)
    assert (record["finished"], record["steps"]) == (True, 4)
    assert record["validation"] == result.metrics
    assert 0 < record["seconds"] < 600

    rows = read_metrics(run / "metrics.csv")
    steps = {name: [step for step, each, *_ in rows if each == name] for _, name, *_ in rows}
    assert steps["train/loss"] == steps["train/learning_rate"] == steps["train/gradient_norm"] == [3, 4]
    assert steps["val/gap"] == [2, 4]
    last = {name: value for step, name, value, _ in rows if step == 4}
    assert last["val/loss"] == pytest.approx(result.metrics["loss"])
    times = [seconds for *_, seconds in rows]
    assert times == sorted(times)
    said = capfd.readouterr().err.splitlines()
    assert said[0].endswith("1 of its 40 rows have no gap and are left out")
    assert len(said) == 7
    assert said[-3].startswith("finetune: 4/4 loss ")
    assert said[-2].startswith("gap: MAE ")
    assert " eV " in said[-2]
    assert "finished after 4 of 4 steps; the weights of step" in said[-1]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([2.5, 2.0] * 10 + [None] * 4, ["4 of its 24 rows have no gap"]),
        ([0.0, 1.0] * 12, ["gap is 0 or 1 in all training rows; it is fitted as a number"]),
        ([0.0, 1.0, 2.0] * 8, []),
    ],
    ids=["partly missing", "classes", "numbers"],
)
def test_what_is_odd_in_a_target_is_said_first(
    gap: Make,
    store: Store,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    values: list[float | None],
    said: list[str],
) -> None:
    rows = [
        Row(store.molecule(row), {}, {} if value is None else {"gap": value}, identity=f"{row:014d}")
        for row, value in enumerate(values)
    ]
    path = tmp_path / "odd.arrow"
    write_store(path, rows, Metadata("made up", "CC0", properties={"gap": Quantity("eV", "")}))
    finetune(gap(data__store=str(path)), tmp_path / "run")
    lines = capfd.readouterr().err.splitlines()
    first = [line for line in lines if line.startswith(f"{path}: ")]
    assert lines[: len(first)] == first
    assert all(line.startswith(f"{path}: ") and word in line for line, word in zip(first, said, strict=True))


def test_a_constant_target_is_refused(gap: Make, store: Store, tmp_path: Path) -> None:
    rows = [
        Row(store.molecule(row), {}, {"gap": 2.5} if row % 6 else {}, identity=f"{row:014d}")
        for row in range(24)
    ]
    path = tmp_path / "constant.arrow"
    write_store(path, rows, Metadata("made up", "CC0", properties={"gap": Quantity("eV", "")}))
    with pytest.raises(ValueRangeError, match=r"constant\.arrow: gap is 2\.5 eV in all "):
        finetune(gap(data__store=str(path)), tmp_path / "run", show=False)
    assert not (tmp_path / "run" / "record.json").exists()


NEAR = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.2]])
FAR = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 2e4]])


@pytest.mark.parametrize(("positions", "said"), [(NEAR, "closer than 0.3"), (FAR, "beyond 10,000")])
def test_a_store_by_hand_with_impossible_structures_is_refused(
    stage1: Make, store: Store, tmp_path: Path, positions: Any, said: str
) -> None:
    rows = [replace(store.row(row), spectra={}, properties={}, forces=None) for row in range(12)]
    metadata = Metadata("by hand", "CC0")
    records = [record_of(row, metadata) for row in rows]
    for record in records:  # as no `Molecule` can be
        record["numbers"], record["positions"] = np.array([7, 7], np.uint8), positions.astype(np.float32)
    write_records(tmp_path / "odd.arrow", records, metadata)
    config = stage1(data__store=str(tmp_path / "odd.arrow"), data__fractions=(0.5, 0.5, 0.0))
    with pytest.raises(ValueRangeError, match=rf"odd\.arrow, row \d+: .*{said}.*prepare the store again"):
        pretrain(config, tmp_path / "run", show=False)
    assert not (tmp_path / "run" / "record.json").exists()


def test_a_store_by_hand_in_bohr_is_refused(store: Store, tmp_path: Path) -> None:
    water = np.array([[0.0, 0.0, 0.0], [1.81, 0.0, 0.0], [-0.45, 1.76, 0.0]])
    rows = [
        Row(Molecule(np.array([8, 1, 1]), water + 0.01 * row), identity=f"{row:014d}") for row in range(8)
    ]
    write_store(tmp_path / "bohr.arrow", rows, Metadata("by hand", "CC0"))
    selection = Selection.of(DataConfig(str(tmp_path / "bohr.arrow"), fractions=(0.5, 0.5, 0.0)))
    with pytest.raises(UnitError, match=r"bohr\.arrow: .* in bohr"):
        selection.check_plausible(())


@pytest.mark.parametrize(
    ("spectrum", "said"),
    [
        (LineSpectrum("ir", [1000.0], [0.0]), "zero"),
        (LineSpectrum("ir", [9000.0], [1.0]), "no line"),
        (LineSpectrum("ir", [1000.0], [1e30]), "cannot be right"),
    ],
)
def test_a_store_by_hand_with_impossible_spectra_is_refused(
    store: Store, tmp_path: Path, spectrum: LineSpectrum, said: str
) -> None:
    rows = [replace(store.row(row), spectra={}, properties={}, forces=None) for row in range(8)]
    rows[3] = replace(rows[3], spectra={"ir": spectrum})
    write_store(tmp_path / "odd.arrow", rows, Metadata("by hand", "CC0", lines={"ir": ""}))
    selection = replace(
        Selection.of(DataConfig(str(tmp_path / "odd.arrow"), fractions=(0.5, 0.5, 0.0))), train=np.arange(8)
    )
    selection.check_plausible(())
    with pytest.raises(ValueRangeError, match=rf"odd\.arrow, row 3: its ir spectrum .*{said}"):
        selection.check_plausible(("ir",))


def test_rows_without_forces_are_said_first(store: Store, tmp_path: Path) -> None:
    rows = []
    for row in range(24):
        molecule = store.molecule(row)
        forces = np.zeros((len(molecule), 3)) if row % 2 else None
        rows.append(Row(molecule, {}, {"energy": float(row)}, forces, identity=f"{row:014d}"))
    path = tmp_path / "forces.arrow"
    energy = Quantity("eV", "")
    write_store(
        path, rows, Metadata("made up", "CC0", properties={"energy": energy}, forces=Quantity("eV/Å", ""))
    )
    selection = Selection.of(DataConfig(str(path)), ("energy", "forces"))
    without = sum(not row % 2 for row in selection.train)
    (said,) = selection.remarks(["energy"], forces=True)
    assert f"{without} of its {len(selection.train)} training rows have no forces" in said


def test_a_part_without_labels_is_refused_with_their_number(gap: Make, store: Store, tmp_path: Path) -> None:
    rows = [Row(store.molecule(row), {}, {"gap": 1.0} if row == 3 else {}) for row in range(20)]
    path = tmp_path / "one.arrow"
    write_store(path, rows, Metadata("made up", "CC0", properties={"gap": Quantity("eV", "")}))
    with pytest.raises(ValueRangeError, match="empty without the 19 of its 20 rows that have no gap"):
        finetune(gap(data__store=str(path)), tmp_path / "run", show=False)


def test_a_directory_in_use_is_left_alone(stage1: Make, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ExistsError, match="--resume"):
        pretrain(stage1(), tmp_path, show=False)
    with pytest.raises(InputError, match="holds no run that could be resumed"):
        pretrain(stage1(), tmp_path, resume=True, show=False)
    with pytest.raises(WriteError, match=r"thesis\.txt"):
        pretrain(stage1(), tmp_path / "thesis.txt", resume=True, show=False)
    with pytest.raises(InputError, match=r"cannot be written: "):
        pretrain(stage1(), tmp_path / "thesis.txt" / "run", show=False)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data__store": "nothing.arrow"}, "nothing.arrow"),
        ({"data__fractions": (0.5, 0.5, 0.5)}, "add up to 1"),
        ({"data__fractions": (1.0, 0.0, 0.0)}, "the val part of the split is empty"),
        ({"data__train_rows": 1000}, "data.train_rows: 1000 asked for, there are"),
        ({"init": "nothing"}, "nothing: neither a run nor a checkpoint"),
        ({"loop__accelerator": "cuda"}, "loop: 1 devices of kind 'cuda' with 32-true cannot be used"),
        ({"reconstruction__mask_ratio": 1.5}, "mask_ratio"),
        ({"model__encoder__channels": 10**9}, "model.encoder.channels is 1000000000"),
        ({"model__encoder__radial": 10**11}, "model.encoder.radial is 100000000000"),
        ({"model__encoder__layers": 10**7}, "model.encoder.layers is 10000000"),
    ],
)
def test_what_cannot_start_leaves_nothing(
    stage2: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError) as caught:
        pretrain(stage2(**change), tmp_path / "run", show=False)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_columns_that_are_not_there_are_named(gap: Make, stage2: Make, store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no property 'homo'; it has: gap"):
        finetune(gap(target="homo"), tmp_path / "run", show=False)
    with pytest.raises(InputError, match="no property 'gapp'; did you mean 'gap'"):
        finetune(gap(target="gapp"), tmp_path / "run", show=False)
    encoder = replace(stage2().model.spectrum_encoder, modalities=("ramam",), patch=None, stride=None)
    with pytest.raises(InputError, match="did you mean 'raman'"):
        pretrain(stage2(model__spectrum_encoder=encoder), tmp_path / "run", show=False)
    plain = replace(store.metadata, lines={"ir": "made up"}, forces=None)
    rows = (store.row(i) for i in range(20))
    bare = tmp_path / "bare.arrow"
    write_store(bare, (replace(row, spectra={}, forces=None) for row in rows), plain)
    with pytest.raises(NotFoundError, match=r"bare\.arrow: .*uv_vis.*: ir"):
        pretrain(stage2(data__store=str(bare)), tmp_path / "run", show=False)
    with pytest.raises(InputError, match="no property 'forces'; it has: gap"):
        finetune(gap(data__store=str(bare), forces=True), tmp_path / "run", show=False)
    assert not (tmp_path / "run").exists()


def test_the_split_goes_by_identity(stage1: Make, store: Store) -> None:
    config = stage1().data
    selection = Selection.of(config)
    for part in ("train", "val", "test"):
        rows = getattr(selection, part)
        assert len(rows)
        again = split_rows([store.identities[row] for row in rows], 0, config.fractions)
        assert len(again[part]) == len(rows)
    few = Selection.of(replace(config, train_rows=7))
    more = Selection.of(replace(config, train_rows=12))
    assert len(few.train) == 7
    assert set(few.train) < set(more.train) < set(selection.train)
    assert list(few.train) == sorted(few.train)
    assert np.array_equal(few.val, selection.val)
    missing = {"gap": 5, "forces": 7}
    for target, left_out in (("gap", True), ("forces", False)):  # molecules without forces have energies
        known = Selection.of(config, (target,))
        everyone = np.concatenate([known.train, known.val, known.test])
        assert (missing[target] not in everyone) == left_out


def test_a_damaged_store_is_one_line_from_any_process(stage1: Make, store_path: Path, tmp_path: Path) -> None:
    """Damage that shows only when a batch is read, in a worker."""
    path = tmp_path / "store.arrow"
    content = bytearray(store_path.read_bytes())
    positions = Store(store_path).molecule(0).positions.astype(np.float32).tobytes()
    place = content.find(positions)
    assert place > 0
    content[place : place + 4] = np.float32(np.nan).tobytes()
    path.write_bytes(content)
    maker = BatchMaker(Store(path), np.array([0]), BatchStream(1, 1), (), (), 0)
    said = []
    for workers in (0, 1):
        with pytest.raises(InputError) as caught:
            list(batches(maker, 0, 2, workers=workers))
        said.append(str(caught.value))
    assert "row 0: not a readable store: an atom is damaged" in said[0]
    assert said[0] == said[1]


def test_tensorboard(stage1: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = pretrain(stage1(loop__tensorboard=True, loop__steps=1), tmp_path / "run", show=False).directory
    assert len(list((run / "tensorboard").glob("events.*"))) == 1
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs tensorboard"):
        pretrain(stage1(loop__tensorboard=True), tmp_path / "other", show=False)
    assert not (tmp_path / "other").exists()


def test_json_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"å": 1})
    with pytest.raises(TypeError):
        write_json(path, {"bad": object()})
    assert read_json(path) == {"å": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["x.json"]
    for content in (b"{", b"\xff", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"x\.json") as caught:
            read_json(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"nothing\.json"):
        read_json(tmp_path / "nothing.json")


def test_metrics_of_a_run_that_never_was(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.csv") == []
    log = MetricLog(tmp_path, 0)
    log.write(1, {"train/loss": 1 / 3})
    log.close()
    ((step, name, value, seconds),) = read_metrics(tmp_path / "metrics.csv")
    assert (step, name) == (1, "train/loss")
    assert value == pytest.approx(1 / 3, rel=1e-7)
    assert seconds >= 0


def test_the_commit_is_that_of_this_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of a checkout that merely holds the installation."""
    assert versions()["molspectra"] == molspectra.__version__
    inside = tmp_path / "project" / "site-packages" / "record.py"
    inside.parent.mkdir(parents=True)
    inside.write_text("")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-C", str(tmp_path / "project")]
    subprocess.run([*git, "init", "-q"], check=True)
    monkeypatch.setattr(records, "__file__", str(inside))
    assert commit() is None
    subprocess.run([*git, "add", "site-packages"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
    known = commit()
    assert known is not None
    assert len(known) == 40
    inside.write_text("# edited")
    assert commit() == f"{known}+changes"


def test_a_reference_split(stage1: Make, store: Store, tmp_path: Path) -> None:
    config = stage1().data
    plain = replace(config, split="reference", sizes=(20, 5), split_seed=1)
    parts = Selection.of(plain)
    order = np.random.default_rng(1).permutation(40)
    assert parts.train.tolist() == sorted(order[:20])
    assert parts.val.tolist() == sorted(order[20:25])
    assert parts.test.tolist() == sorted(order[25:])
    assert len(Selection.of(replace(plain, sizes=(20, 5, 3))).test) == 3
    labelled = Selection.of(plain, ("gap",))
    assert sum(len(rows) for rows in (labelled.train, labelled.val, labelled.test)) == 39  # row 5 has no gap
    few = Selection.of(replace(plain, train_rows=6))
    assert set(few.train) < set(parts.train)
    with pytest.raises(InputError, match=r"a split of 39 \+ 5 rows does not fit a dataset of 40 rows"):
        Selection.of(replace(plain, sizes=(39, 5)))
    run = pretrain(stage1(data=plain), tmp_path / "run", show=False).directory
    assert read_json(run / "record.json")["data"]["rows"] == {"train": 20, "val": 5, "test": 15}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"sizes": [950, 50]}, "data.sizes: an identity split goes by data.fractions"),
        ({"split": "reference"}, "data.sizes: a reference split needs rows for training and validation"),
        ({"split": "reference", "sizes": [950]}, "a reference split needs rows for training and validation"),
        ({"split": "reference", "sizes": [950, -1]}, "a reference split needs rows for training"),
        ({"split": "reference", "sizes": [950, 50], "split_seed": -1}, "and a split_seed from 0"),
        ({"split": "refrence"}, "did you mean reference?"),
    ],
)
def test_settings_of_a_split(values: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        from_dict(PretrainConfig, {"data": values}, "recipe.yaml")


def test_frames_of_one_molecule_need_a_reference_split(stage1: Make, store: Store, tmp_path: Path) -> None:
    frames = [replace(store.row(row), identity="LFQSCWFLJHTTHZ") for row in range(12)]
    write_store(tmp_path / "md.arrow", frames, store.metadata)
    config = replace(stage1().data, store=str(tmp_path / "md.arrow"))
    with pytest.raises(SettingError, match=r"12 rows .*LFQSCWFLJHTTHZ.*split: reference"):
        Selection.of(config)
    parts = Selection.of(replace(config, split="reference", sizes=(8, 2)))
    assert [len(rows) for rows in (parts.train, parts.val, parts.test)] == [8, 2, 2]


def test_settings_from_before_there_were_splits(stage1: Make, tmp_path: Path) -> None:
    run = pretrain(stage1(loop__steps=2), tmp_path / "run", show=False).directory
    values = read_json(run / "config.json")
    for name in ("split", "sizes"):
        del values["data"][name]
    write_json(run / "config.json", values)
    assert from_dict(PretrainConfig, values, "") == stage1(loop__steps=2)
    record = read_json(run / "record.json")
    write_json(run / "record.json", record | {"finished": False})
    again = pretrain(stage1(loop__steps=2), run, resume=True, show=False)
    assert again.metrics == record["validation"]
    other = replace(stage1().data, split="reference", sizes=(20, 5))
    with pytest.raises(MismatchError, match=r"data\.sizes"):
        pretrain(stage1(loop__steps=2, data=other), run, resume=True, show=False)
