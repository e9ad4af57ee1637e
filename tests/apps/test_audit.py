"""The audit of splits: index splits of two lists of different length leak, identity splits do not."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from molspectra.apps.audit import _is_store, audit
from molspectra.apps.cli import main
from molspectra.chem.molecule import Molecule
from molspectra.data.store.bundled import BUNDLED
from molspectra.data.store.store import Metadata, Row, write_store
from molspectra.errors import SettingError
from molspectra.spectra.spectrum import LineSpectrum
from molspectra.training.config import DataConfig

N = 300
INDEX = DataConfig(split="reference", sizes=(240, 30), split_seed=1)
IDENTITY = DataConfig(split_seed=1)


def row(number: int, spectra: bool, identity: str | None = None) -> Row:
    molecule = Molecule([6, 8, 1], [[0, 0, 0], [1.2, 0, 0], [0, 1 + number / 1000, 0]])
    lines = LineSpectrum("ir", np.array([1000.0]), np.array([1.0]), "made up")
    return Row(molecule, {"ir": lines} if spectra else {}, identity=identity or f"ID{number:05d}")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A labelled list, and the same molecules with spectra, of which a few are missing."""
    folder = tmp_path_factory.mktemp("stores")
    metadata = Metadata("made up", "CC0", lines={"ir": "made up"})
    write_store(folder / "labels.arrow", (row(k, False) for k in range(N)), metadata)
    absent = {5, 77, 150}
    write_store(folder / "spectra.arrow", (row(k, True) for k in range(N) if k not in absent), metadata)
    return str(folder / "labels.arrow"), str(folder / "spectra.arrow")


def test_the_published_splits_leak(stores: tuple[str, str]) -> None:
    labels, spectra = stores
    order = np.random.default_rng(1).permutation(N)
    tested = {f"ID{k:05d}" for k in order[270:]}
    shorter = [f"ID{k:05d}" for k in range(N) if k not in (5, 77, 150)]
    sizes = replace(INDEX, sizes=(240, 30))
    trained = {shorter[k] for k in np.random.default_rng(1).permutation(len(shorter))[:240]}
    found = audit(labels, [spectra], INDEX, sizes).together
    assert found.tested == 30
    assert found.spectra == found.structures == len(tested & trained) > 15  # most of the test part
    clean = audit(labels, [spectra, labels], IDENTITY, IDENTITY)
    assert clean.together.structures == 0
    assert clean.together.tested > 15
    assert not clean.has_overlap
    assert audit(labels, [spectra], INDEX).together.spectra == len(tested & set(shorter))


def test_the_command(stores: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels, spectra = stores
    index = ["--split", "reference", "--sizes", "240,30", "--split-seed", "1"]
    pretrain = ["--pretrain", spectra, labels, "--pretrain-split", "reference", "--pretrain-sizes", "240,30"]
    command = ["audit-splits", "--test", labels, *index, *pretrain, "--pretrain-split-seed", "1"]
    assert main([*command, "--out", str(tmp_path / "report.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("30 different test molecules of ")
    head = ["pre-training", "holds", "seen", "with", "spectra", "in", "validation", "not", "comparable"]
    assert lines[1].split() == head
    report = json.loads((tmp_path / "report.json").read_text())
    seen = report["pretraining"][0]["test"]["spectra"]
    assert lines[2].split()[1:] == [
        "240",
        str(seen),
        str(seen),
        str(report["pretraining"][0]["test"]["validated"]),
        "0",
    ]
    assert report["pretraining"][1]["test"]["structures"] == 0  # the same list, the same split
    assert lines[4].split()[0] == "together"
    assert main([*command, "--strict", "--out", str(tmp_path / "report.csv")]) == 1
    with (tmp_path / "report.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(int(each["spectra"]) for each in rows) == seen
    assert all(Path(each["pretraining"]).name == "spectra.arrow" for each in rows)
    capsys.readouterr()
    identity = [
        "audit-splits",
        "--test",
        labels,
        "--pretrain",
        spectra,
        "--pretrain-split",
        "identity",
        "--strict",
    ]
    assert main(identity) == 0

    assert main([*command, "--out", str(tmp_path / "report.csv")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "report.txt")]) == 2
    assert main(["audit-splits", "--test", labels, "--split", "reference", "--pretrain", spectra]) == 2
    assert "data.sizes: a reference split needs" in capsys.readouterr().err


def test_what_cannot_be_compared_is_told(tmp_path: Path) -> None:
    metadata = Metadata("made up", "CC0", lines={"ir": "made up"})
    hashed = [row(k, False, f"geom-{k:016x}") for k in range(3)]
    write_store(tmp_path / "hashed.arrow", [*hashed, row(9, False)], metadata)
    write_store(tmp_path / "other.arrow", [row(k, True) for k in range(9)], metadata)
    found = audit(tmp_path / "hashed.arrow", [tmp_path / "other.arrow"])
    assert found.together.structures == 0
    assert found.together.incomparable == 3
    assert found.has_overlap  # cannot be excluded
    assert "3 have identities that cannot be compared" in found.together.sentence
    turned = audit(tmp_path / "other.arrow", [tmp_path / "hashed.arrow"])
    assert (turned.together.structures, turned.together.nameless) == (0, 3)
    assert "3 molecules of pre-training are known by their geometry alone" in turned.table()
    assert "3 molecules of pre-training have identities that cannot be compared" in turned.together.sentence
    (tmp_path / "nothing").mkdir()
    gone = audit(tmp_path / "other.arrow", [tmp_path / "nothing"])
    assert gone.has_overlap
    assert "not known" in gone.table()
    with pytest.raises(SettingError, match="at least one"):
        audit(tmp_path / "other.arrow", [])


def test_wrong_names_and_numbers(stores: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    labels, spectra = stores
    assert main(["audit-splits", "--test", labels, "--pretrain", spectra, "missing.arrow"]) == 2
    assert "missing.arrow: no such store, run directory or shipped model" in capsys.readouterr().err
    assert main(["audit-splits", "--test", labels, "--pretrain", spectra, "--fractions", "[[1"]) == 2
    assert capsys.readouterr().err == "molspectra: error: '[[1': expected numbers with commas between them\n"
    assert main(["audit-splits", "--test", labels, "--pretrain", "bundled", "--split", "all"]) == 0
    assert "not known" not in capsys.readouterr().out


def test_every_bundled_store_is_a_store(stores: tuple[str, str]) -> None:
    assert all(_is_store(name) for name in BUNDLED)


def test_a_shipped_model_is_known_by_its_name(capsys):
    """The test part of the bundled molecules, by the split that `base` was trained with, is new to it."""
    command = ["audit-splits", "--test", "bundled", "--split", "identity", "--pretrain", "base"]
    assert main(command) == 0
    name, _, seen, *_ = capsys.readouterr().out.splitlines()[-1].split()
    assert (name, seen) == ("base", "0")
