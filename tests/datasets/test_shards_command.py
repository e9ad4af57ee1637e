"""`molspectra prepare --shard-rows`, and commands that take the folder which it makes."""

import json

import pyarrow.parquet as pq
import pytest

from molspectra.apps.cli import main
from molspectra.apps.molecules import candidates_of
from molspectra.chem.readers import ErrorPolicy
from molspectra.data.store.store import Store
from molspectra.search.sources import blocks


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frames = [f"2\nenergy={n}\nO 0 0 0\nH 0 0 {0.95 + n / 100}\n" for n in range(7)]
    (tmp_path / "raw.extxyz").write_text("".join(frames))

    def run(*arguments):
        return main(["prepare", "extxyz", "--raw", "raw.extxyz", "--quiet", *arguments])

    return run


def test_a_folder_takes_the_place_of_a_file(prepare, tmp_path, capsys):
    options = ("--option", "unit.energy=eV")
    assert prepare("--out", "one.arrow", *options) == 0
    assert prepare("--out", "many", "--shard-rows", "3", *options) == 0
    assert "7 rows in many" in capsys.readouterr().out
    names = ["00000.arrow", "00001.arrow", "00002.arrow", "manifest.json"]
    assert sorted(path.name for path in (tmp_path / "many").iterdir()) == names
    one, many = Store("one.arrow"), Store("many")
    assert one.hash == many.hash == json.loads((tmp_path / "many.report.json").read_text())["hash"]
    for store in ("one.arrow", "many"):
        assert main(["export", store, "--out", f"{store}.parquet"]) == 0
        assert main(["audit-splits", "--test", store, "--pretrain", store, "--split", "all"]) == 0
        assert candidates_of(store).total == 7
        assert sum(len(block.identities) for block in blocks(store, ErrorPolicy("raise"))) == 7
    assert pq.read_table("many.parquet").equals(pq.read_table("one.arrow.parquet"))
    capsys.readouterr()


def test_what_is_refused(prepare, tmp_path, capsys):
    assert prepare("--out", "many", "--shard-rows", "0") == 2
    assert "at least 1 row" in capsys.readouterr().err
    (tmp_path / "many").mkdir()
    assert prepare("--out", "many", "--shard-rows", "3", "--overwrite") == 2
    assert "many exists already; a store in shards overwrites nothing" in capsys.readouterr().err
    assert main(["export", "many", "--out", "many.parquet"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "many/manifest.json: no such file, so the folder is no store" in said
    assert not (tmp_path / "many.parquet").exists()
