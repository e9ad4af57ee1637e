"""What a run has seen, and that a fine-tuning run refuses to be tested on it."""

import hashlib
import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from molspectra.data.splits import split_rows
from molspectra.data.store.store import Store, write_store
from molspectra.errors import DamagedError, MismatchError
from molspectra.evaluation.evaluate import evaluate
from molspectra.training.checkpoint import load_model
from molspectra.training.config import FinetuneConfig, PretrainConfig
from molspectra.training.data import Selection
from molspectra.training.leaks import exposure
from molspectra.training.record import read_json
from molspectra.training.run import finetune, pretrain
from molspectra.training.seen import (
    SEEN,
    SPECTRUM,
    SPECTRUM_VALIDATED,
    STRUCTURE,
    VALIDATED,
    Seen,
    hashes_of,
    seen_by,
)
from molspectra.training.settings import from_dict, put, read_recipe, recipes, settings_of

Make = Callable[..., Any]
QUICK = {"loop__steps": 1, "loop__validate_every": 0, "loop__save_every": 0}


def names(store: Store, rows: Any) -> set[str]:
    return {store.identities[row] for row in rows}


def flagged(seen: Seen, store: Store, flag: int) -> set[str]:
    everyone = sorted(set(store.identities))
    flags = seen.flags_of(hashes_of(everyone))
    return {name for name, each in zip(everyone, flags, strict=True) if each & flag}


def test_a_line_of_runs_remembers_what_it_saw(
    stage1: Make, stage2: Make, store: Store, tmp_path: Path
) -> None:
    first = stage1(**QUICK, data__fractions=(0.5, 0.2, 0.3))
    one = pretrain(first, tmp_path / "one", show=False).directory
    second = stage2(**QUICK, init=str(one), data__fractions=(0.3, 0.2, 0.5))
    two = pretrain(second, tmp_path / "two", show=False).directory
    seen = seen_by(two)
    plain, spectral = Selection.of(first.data), Selection.of(second.data)
    assert flagged(seen, store, STRUCTURE) == names(store, plain.train) | names(store, spectral.train)
    assert flagged(seen, store, VALIDATED) == names(store, plain.val) | names(store, spectral.val)
    bare = np.ones(len(store), bool)
    for name in store.metadata.modalities:
        bare &= ~store.has(name)
    with_spectra = [row for row in spectral.train if not bare[row]]
    assert 0 < len(with_spectra) < len(spectral.train)  # rows without a spectrum are seen as structures only
    assert flagged(seen, store, SPECTRUM) == names(store, with_spectra)
    assert flagged(seen, store, SPECTRUM_VALIDATED) == names(store, [r for r in spectral.val if not bare[r]])
    assert not len(seen.structures)  # no molecule has two
    assert [run["stage"] for run in seen.runs] == ["stage2", "stage1"]
    assert seen.unknown == ()
    before = read_json(two / "record.json")["seen"]["before"]
    assert before["molecules"] == len(plain.train)
    assert before["with_spectra"] == 0

    (one / SEEN).unlink()
    (two / SEEN).unlink()  # runs from before there was a file, and a checkpoint in place of a run
    checkpoint = max((two / "checkpoints").glob("step-*"))
    again = seen_by(checkpoint)
    np.testing.assert_array_equal(again.molecules, seen.molecules)
    np.testing.assert_array_equal(again.flags, seen.flags)
    np.testing.assert_array_equal(again.structures, seen.structures)


def test_the_file_survives_and_refuses_damage(store: Store, tmp_path: Path) -> None:
    rows = np.arange(5)
    selection = Selection(store, rows, rows[:2], rows[:0])
    seen = Seen.of(selection, ["ir"], {"run": "x", "stage": "stage2"})
    seen.save(tmp_path / SEEN)
    again = Seen.read(tmp_path / SEEN)
    assert again.summary() == seen.summary()
    assert again.summary()["molecules"] == 5
    np.testing.assert_array_equal(again.flags, seen.flags)
    replace(seen, molecules=seen.molecules[::-1].copy()).save(tmp_path / "disorder")
    (tmp_path / "nonsense").write_bytes(b"nonsense")
    for name in ("disorder", "nonsense", "absent"):
        with pytest.raises(DamagedError, match=name):
            Seen.read(tmp_path / name)


def test_a_changed_byte_is_refused_and_equal_contents_are_equal_bytes(store: Store, tmp_path: Path) -> None:
    rows = np.arange(40)
    seen = Seen.of(Selection(store, rows, rows[:2], rows[:0]), ["ir"], {"run": "x"})
    seen.save(tmp_path / "one")
    Seen.read(tmp_path / "one").save(tmp_path / "two")
    content = (tmp_path / "one").read_bytes()
    assert (tmp_path / "two").read_bytes() == content
    start = 8 + int.from_bytes(content[:8], "little")
    for at in range(start, len(content), 7):
        (tmp_path / "one").write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        try:
            read = Seen.read(tmp_path / "one")
        except DamagedError:
            continue
        np.testing.assert_array_equal(read.molecules, seen.molecules)  # a letter of a name was changed
        np.testing.assert_array_equal(read.structures, seen.structures)


def test_nothing_is_allocated_for_what_a_file_claims(tmp_path: Path) -> None:
    empty = np.empty((0, 2**30), np.uint8)  # no byte, a thousand million columns
    about = {"by_geometry": 0, "runs": [], "unknown": [], "crc32": 0}
    text = np.frombuffer(json.dumps(about).encode(), np.uint8)
    arrays = {"molecules": empty, "flags": np.empty(0, np.uint8), "structures": empty, "about": text}
    save_file(arrays, tmp_path / SEEN, {"format": "2"})
    with pytest.raises(DamagedError, match="types"):
        Seen.read(tmp_path / SEEN)


@pytest.mark.parametrize("count", [0, 1, 30])
def test_files_of_format_1_say_the_same(store: Store, tmp_path: Path, count: int) -> None:
    rows = np.arange(count)
    seen = Seen.of(Selection(store, rows, rows[:0], rows[:0]), ["ir"], {"run": "x"})
    words = sorted(set(store.identities[:count]))
    digests = [hashlib.blake2b(word.encode(), digest_size=8).digest() for word in words]
    hashes = np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)
    order = np.argsort(hashes)
    arrays = {
        "molecules": hashes[order],
        "flags": seen.flags_of(hashes_of(words))[order],
        "structures": np.unique(store.geometry_ids[rows]) if len(words) < count else np.empty(0, np.int64),
    }
    about = json.dumps({"runs": [dict(run) for run in seen.runs], "unknown": []})
    save_file(arrays, tmp_path / "one", {"format": "1", "by_geometry": "0", "about": about})
    seen.save(tmp_path / "two")
    one, two = Seen.read(tmp_path / "one"), Seen.read(tmp_path / "two")
    assert one.summary() == two.summary() == seen.summary()
    assert exposure(store, np.arange(len(store)), one) == exposure(store, np.arange(len(store)), two)
    for name in ("molecules", "flags", "structures"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    save_file(arrays | {"molecules": hashes[order][::-1].copy()}, tmp_path / "one", {"format": "1"})
    if count > 1:
        with pytest.raises(DamagedError, match="order"):
            Seen.read(tmp_path / "one")


def test_what_is_not_known_is_said(stage1: Make, store: Store, tmp_path: Path) -> None:
    moved = tmp_path / "tiny.arrow"
    moved.write_bytes(store.path.read_bytes())
    run = pretrain(stage1(**QUICK, data__store=str(moved)), tmp_path / "one", show=False).directory
    (run / SEEN).unlink()
    assert seen_by(run).unknown == ()
    write_store(moved, [store.row(row) for row in range(30)], store.metadata, overwrite=True)
    assert "has changed since" in seen_by(run).unknown[0]
    moved.unlink()
    assert str(moved) in seen_by(run).unknown[0]
    assert "not a run directory" in seen_by(tmp_path / "weights").unknown[0]
    compared = exposure(store, np.arange(3), seen_by(run))
    assert compared.structures == 0
    assert "what was seen is not known of" in compared.sentence


def test_a_leak_is_refused_unless_allowed(
    stage1: Make, stage2: Make, gap: Make, store: Store, tmp_path: Path
) -> None:
    clean = pretrain(stage1(**QUICK), tmp_path / "clean", show=False).directory
    plain = pretrain(stage1(**QUICK, data__fractions=(0.96, 0.04, 0.0)), tmp_path / "1", show=False).directory
    both = stage2(**QUICK, data__fractions=(0.96, 0.04, 0.0), init=str(plain))
    spectra = pretrain(both, tmp_path / "2", show=False).directory

    run = finetune(gap(**QUICK, init=str(clean)), tmp_path / "good", show=False).directory
    test = read_json(run / "record.json")["seen"]["test"]
    assert (test["structures"], test["tested"]) == (0, len(Selection.of(gap().data, ("gap",)).test))

    def start(init: Path, allow: str) -> Any:
        config = gap(**QUICK, init=str(init), data__allow_leak=allow)
        return finetune(config, tmp_path / f"{init.name}-{allow}", show=False).directory

    with pytest.raises(MismatchError, match=r"\d+ of \d+ test molecules .*: ID00") as error:
        start(plain, "none")
    assert "--data.allow_leak structures" in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "1-none").exists()
    leaky = start(plain, "structures")
    assert read_json(leaky / "record.json")["seen"]["allow_leak"] == "structures"
    assert evaluate(leaky)["seen"]["pretraining"]["structures"] > 0
    for allow in ("none", "structures"):
        with pytest.raises(MismatchError, match=r"with spectra.*--data\.allow_leak all"):
            start(spectra, allow)
    found = evaluate(start(spectra, "all"))["seen"]["pretraining"]
    assert 0 < found["spectra"] <= found["structures"] <= found["tested"]
    json.dumps(found)


@pytest.mark.parametrize(
    "asked",
    [{"fractions": (0.4, 0.1, 0.5)}, {"split_seed": 3}, {"split": "reference", "sizes": (20, 5, 15)}],
)
def test_the_refusal_of_a_leak_leads_to_a_split_without_one(
    stage1: Make, gap: Make, store: Store, tmp_path: Path, asked: dict[str, Any]
) -> None:
    start = pretrain(stage1(**QUICK, data__fractions=(0.6, 0.1, 0.3)), tmp_path / "1", show=False).directory
    config = gap(**QUICK, init=str(start))
    config = replace(config, data=replace(config.data, **asked))
    with pytest.raises(MismatchError, match=r"--data\.allow_leak structures") as error:
        finetune(config, tmp_path / "2", show=False)
    words = shlex.split(str(error.value).split("not seen, with ")[1].split(", or accept")[0])
    values = {name.removeprefix("--"): text for name, text in zip(words[::2], words[1::2], strict=True)}
    settings = {one.name: one for one in settings_of(FinetuneConfig)}
    nested: dict[str, Any] = {}
    put(nested, {name: settings[name].parse(text) for name, text in values.items()}, "test")
    run = finetune(from_dict(FinetuneConfig, nested, "test", config), tmp_path / "2", show=False)
    test = read_json(run.directory / "record.json")["seen"]["test"]
    assert (test["structures"], test["validated"]) == (0, 0)
    assert test["tested"] > 0


def test_a_checkpoint_is_known_by_any_name(
    stage1: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = pretrain(stage1(**QUICK), tmp_path / "one", show=False).directory
    checkpoint = max((run / "checkpoints").glob("step-*"))
    (tmp_path / "link").symlink_to(checkpoint)
    monkeypatch.chdir(checkpoint.parent)
    for name in (tmp_path / "link", checkpoint.name):
        assert seen_by(name).unknown == ()
        assert len(seen_by(name).molecules) == len(seen_by(run).molecules) > 0


def test_labels_learnt_before_are_no_mere_structures(gap: Make, tmp_path: Path) -> None:
    every = gap(**QUICK, data__fractions=(0.96, 0.04, 0.0))
    first = finetune(every, tmp_path / "1", show=False).directory
    start = gap(**QUICK, init=str(first), data__allow_leak="structures")
    with pytest.raises(MismatchError, match=r"with labels.*--data\.allow_leak all"):
        finetune(start, tmp_path / "2", show=False)
    allowed = replace(start, data=replace(start.data, allow_leak="all"))
    found = read_json(finetune(allowed, tmp_path / "3", show=False).directory / "record.json")["seen"]
    assert found["test"]["labels"] == found["test"]["structures"] > found["test"]["spectra"] == 0


def test_stage_2_is_told_what_stage_1_saw(stage1: Make, stage2: Make, tmp_path: Path) -> None:
    every = pretrain(stage1(**QUICK, data__fractions=(0.96, 0.04, 0.0)), tmp_path / "1", show=False).directory
    run = pretrain(stage2(**QUICK, init=str(every)), tmp_path / "2", show=False).directory
    found = evaluate(run)["seen"]["pretraining"]
    assert found["structures"] > 0
    assert found["spectra"] == 0
    assert read_json(run / "record.json")["seen"]["test"]["structures"] == found["structures"]
    clean = pretrain(stage2(**QUICK), tmp_path / "3", show=False).directory
    assert evaluate(clean)["seen"]["pretraining"]["structures"] == 0


def test_frames_are_compared_by_geometry(stage1: Make, gap: Make, store: Store, tmp_path: Path) -> None:
    frames = [replace(store.row(row), identity="LFQSCWFLJHTTHZ") for row in range(6, 18)]
    write_store(tmp_path / "md.arrow", frames, store.metadata)
    others = [replace(store.row(row), identity="LFQSCWFLJHTTHZ") for row in range(24, 30)]
    write_store(tmp_path / "apart.arrow", others, store.metadata)
    frame_split = {"split": "reference", "sizes": (6, 3), "split_seed": 1}
    data = replace(stage1().data, store=str(tmp_path / "md.arrow"), **frame_split)
    apart = replace(stage1().data, store=str(tmp_path / "apart.arrow"), split="reference", sizes=(4, 2))
    same = pretrain(
        stage1(**QUICK, loop__batch_size=4, data=replace(data, split_seed=2)), tmp_path / "same", show=False
    )
    none = pretrain(stage1(**QUICK, loop__batch_size=4, data=apart), tmp_path / "apart", show=False)

    config = gap(**QUICK, loop__batch_size=4, data=data, init=str(none.directory))
    run = finetune(config, tmp_path / "run", show=False).directory
    told = read_json(run / "record.json")["seen"]
    assert (told["test"]["compared"], told["test"]["structures"]) == ("frames", 0)
    assert told["test"]["molecule"] == "as structures"
    assert told["test_in_own_training"] == 0
    assert "the molecule itself was seen as structures" in evaluate(run)["seen"]["pretraining"]["sentence"]
    with pytest.raises(MismatchError, match="of 3 test frames"):
        finetune(
            gap(**QUICK, loop__batch_size=4, data=data, init=str(same.directory)), tmp_path / "no", show=False
        )


def test_identities_from_geometry_are_counted(store: Store) -> None:
    rows = [replace(store.row(row), identity=f"geom-{row:016x}") for row in range(3)]
    assert hashes_of(["geom-0000000000000000"]).dtype == np.uint64
    seen = Seen.of(Selection(store, np.arange(3), np.arange(0), np.arange(0)))
    assert seen.by_geometry == 0
    assert len({row.identity for row in rows}) == 3


def test_no_shipped_recipe_is_tested_on_what_another_trains_on() -> None:
    """Identity splits of one seed nest: the test share of pre-training must not be smaller."""
    configs = {}
    for name, path in recipes().items():
        values = read_recipe(name)
        cls = FinetuneConfig if "target" in values else PretrainConfig
        configs[name] = from_dict(cls, values, str(path)).data
    tested = [name for name, values in configs.items() if values.split == "identity"]
    keys = [f"molecule {number}" for number in range(3000)]
    for scale in ("paper", ("small", "shipped")):
        parts = {
            name: split_rows(keys, configs[name].split_seed, configs[name].fractions)
            for name in tested
            if name.startswith(scale)
        }
        assert len(parts) >= 3
        for one in parts.values():
            for other in parts.values():
                assert not set(one["test"]) & set(other["train"])


def test_a_run_that_starts_from_a_shipped_model_knows_what_that_has_seen(
    gap: Callable[..., Any], tmp_path: Path
) -> None:
    """Also when it is asked itself, by its name in the settings."""
    config = gap(model__encoder=load_model("small")[0].config.encoder, init="small", loop__steps=1)
    run = finetune(config, tmp_path / "run", show=False).directory
    seen = seen_by(run)
    assert not seen.unknown
    assert seen.summary()["molecules"] > seen_by("small").summary()["molecules"]
