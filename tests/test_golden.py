"""Files that earlier versions wrote are read by this one; those of a newer format are refused as such."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from scripts.make_golden import READ

from molspectra.errors import NewerFormatError

GOLDEN = Path(__file__).with_name("golden")
VERSIONS = sorted(path.parent.name for path in GOLDEN.glob("*/expected.json"))


def assert_close(found, expected, where=""):
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for name in expected:
            assert_close(found[name], expected[name], f"{where}.{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for number, pair in enumerate(zip(found, expected, strict=True)):
            assert_close(*pair, f"{where}[{number}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-4), where
    else:
        assert found == expected, where


@pytest.fixture(params=VERSIONS)
def version(request):
    return request.param


@pytest.fixture
def copy(version, tmp_path, monkeypatch):
    """A copy of the files of a version, to be changed, as current folder."""
    shutil.copytree(GOLDEN / version, tmp_path / "golden")
    monkeypatch.chdir(tmp_path / "golden")
    return tmp_path / "golden"


def test_there_are_files_of_the_first_version():
    assert "0.1.0" in VERSIONS


@pytest.mark.parametrize("name", READ)
def test_files_of_earlier_versions_are_read(copy, name):
    expected = json.loads((copy / "expected.json").read_text())[name]
    assert_close(READ[name](), expected, name)


def raise_in_json(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))


def raise_in_arrow(path, key):
    with pa.ipc.open_file(path.read_bytes()) as file:
        about = json.loads(file.schema.metadata[key]) | {"format": 99}
        schema = file.schema.with_metadata({key: json.dumps(about)})
        batches = [file.get_batch_with_custom_metadata(i) for i in range(file.num_record_batches)]
    with pa.ipc.new_file(path, schema) as writer:
        for batch, own in batches:
            writer.write_batch(pa.record_batch(batch.columns, schema=schema), own)


def raise_in_safetensors(path):
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    save_file(load_file(path), path, metadata | {"format": "99"})


def raise_in_lines(path):
    lines = [json.dumps(json.loads(line) | {"format": 99}) + "\n" for line in path.read_text().splitlines()]
    path.write_text("".join(lines))


RAISE = {
    "store": lambda: raise_in_arrow(Path("store.arrow"), b"molspectra"),
    "internal": lambda: raise_in_arrow(Path("store.internal.arrow"), b"molspectra-internal"),
    "stage1": lambda: raise_in_json(next(Path("stage1").glob("checkpoints/*/manifest.json"))),
    "stage2": lambda: without_manifest(Path("stage2")),
    "seen": lambda: raise_in_safetensors(Path("stage2/seen.safetensors")),
    "gap": lambda: raise_in_json(next(Path("gap").glob("checkpoints/*/manifest.json"))),
    "index": lambda: raise_in_json(Path("index/library.json")),
    "journal": lambda: raise_in_lines(Path("journal.jsonl")),
}


def without_manifest(run):
    """A checkpoint taken out of its run, of which only config.json tells the format."""
    checkpoint = next(run.glob("checkpoints/*"))
    (checkpoint / "manifest.json").unlink()
    raise_in_json(checkpoint / "config.json")
    shutil.copytree(checkpoint, "bare")
    shutil.rmtree(run)
    Path("bare").rename(run)


@pytest.mark.parametrize("name", RAISE)
def test_files_of_a_newer_version_are_refused_as_such(copy, name):
    RAISE[name]()
    with pytest.raises(NewerFormatError) as caught:
        READ[name]()
    said = str(caught.value)
    assert "99 is newer" in said
    assert "pip install --upgrade" in said
    assert said.count("\n") == 0
    assert {"gap": "manifest", "stage1": "manifest", "stage2": "config"}.get(name, name) in said
