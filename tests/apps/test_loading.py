"""Models by name, directory, address and repository."""

import hashlib
import json
import shutil
import sys
import threading
import types
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import molspectra
from molspectra.apps.loading import LoadedModel, load
from molspectra.apps.remote_models import unpack
from molspectra.data.store.bundled import bundled
from molspectra.errors import DamagedError, InputError, MissingExtraError, NotFoundError, SettingError
from molspectra.evaluation.predicted_retrieval import predicted_spectra, retrieve_by_prediction
from molspectra.evaluation.retrieval import Gallery
from molspectra.search.vectors import open_model
from molspectra.training.checkpoint import find_checkpoint
from molspectra.training.config import DataConfig
from molspectra.training.data import split_store


def same(one: LoadedModel, other: LoadedModel) -> bool:
    pairs = zip(one.model.state_dict().items(), other.model.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_a_run_and_its_checkpoint_are_the_same_model(use_runs: dict[str, Path]) -> None:
    run = use_runs["stage2"]
    from_run, from_checkpoint = load(run), load(find_checkpoint(run))
    assert same(from_run, from_checkpoint)
    assert not from_run.model.training
    assert from_run.similarity == from_checkpoint.similarity == "cosine"
    inner = find_checkpoint(use_runs["inner"])
    assert load(use_runs["inner"]).similarity == load(inner).similarity == "inner"
    assert open_model(use_runs["inner"]).similarity == open_model(inner).similarity == "inner"
    assert load(use_runs["stage1"]).similarity is None
    assert from_run.elements == {1, 6, 7, 8}
    assert "width 16" in repr(from_run)


def test_an_unknown_similarity_is_refused(use_runs: dict[str, Path], tmp_path: Path) -> None:
    """In a checkpoint of its own, and in the settings of the run that it is part of."""
    shipped = shutil.copytree(find_checkpoint(use_runs["inner"]), tmp_path / "shipped")
    (shipped / "manifest.json").unlink()
    about = json.loads((shipped / "config.json").read_text())
    for alignment in ({"similarity": "euclid"}, {"similarity": None}, {"similarities": "cosine"}):
        (shipped / "config.json").write_text(json.dumps(about | {"alignment": alignment}))
        for reader in (load, open_model):
            with pytest.raises(SettingError, match=r"shipped.config\.json, alignment"):
                reader(shipped)
    (shipped / "config.json").write_text(json.dumps(about | {"alignment": {"form": "reference"}}))
    assert load(shipped).similarity == "cosine"  # the default of a setting that is not there

    run = shutil.copytree(use_runs["inner"], tmp_path / "run")
    settings = json.loads((run / "config.json").read_text())
    settings["alignment"]["similarity"] = "inner product"
    (run / "config.json").write_text(json.dumps(settings))
    with pytest.raises(SettingError, match=r"run.config\.json, alignment.*similarity.*'inner product'"):
        load(find_checkpoint(run))


def test_names_that_are_no_model(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="did you mean 'small'"):
        load("smal")
    with pytest.raises(NotFoundError, match=r"model\.safetensors"):
        load(tmp_path)


def test_a_missing_shipped_model_says_how_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "molspectra.training.checkpoint.shipped_path", lambda name: tmp_path / "nowhere" / name
    )
    with pytest.raises(NotFoundError, match=r"build_small\.py"):
        load("small")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which it is served."""
    folder = tmp_path / "site"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def packed(
    checkpoint: Path, archive: Path, names: tuple[str, ...] = ("model.safetensors", "config.json")
) -> str:
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr("model/README.md", "read me")
        target.writestr("../../outside.txt", "not to be written")
        for name in names:
            target.write(checkpoint / name, f"model/{name}")
    return hashlib.sha256(archive.read_bytes()).hexdigest()


def test_an_archive_by_its_address(use_runs: dict[str, Path], site: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = site
    digest = packed(find_checkpoint(use_runs["stage2"]), folder / "tiny.zip")
    address, cache = f"{url}/tiny.zip#sha256={digest}", tmp_path / "cache"
    model = load(address, cache=cache)
    assert same(model, load(use_runs["stage2"]))
    assert sorted(path.name for path in model.path.iterdir()) == ["config.json", "model.safetensors"]
    assert not list(tmp_path.rglob("outside.txt"))
    (folder / "tiny.zip").unlink()
    assert same(load(address, cache=cache), model)  # from the cache

    with pytest.raises(SettingError, match="#sha256="):
        load(f"{url}/tiny.zip", cache=cache)
    with pytest.raises(InputError, match="not there"):
        load(f"{url}/other.zip#sha256={'0' * 64}", cache=cache)


def test_archives_that_are_refused(use_runs: dict[str, Path], site: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = site
    checkpoint = find_checkpoint(use_runs["stage2"])
    digest = packed(checkpoint, folder / "tiny.zip")
    with pytest.raises(InputError, match="another content"):
        load(f"{url}/tiny.zip#sha256={'1' * 64}", cache=tmp_path)
    digest = packed(checkpoint, folder / "tiny.zip", ("config.json",))
    with pytest.raises(NotFoundError, match=r"model\.safetensors is missing"):
        load(f"{url}/tiny.zip#sha256={digest}", cache=tmp_path)
    (folder / "text.zip").write_text("no archive")
    digest = hashlib.sha256(b"no archive").hexdigest()
    with pytest.raises(DamagedError, match=r"\.zip"):
        load(f"{url}/text.zip#sha256={digest}", cache=tmp_path)
    assert not [path for path in tmp_path.rglob("model") if path.is_dir()]


def test_an_archive_that_expands_beyond_all_proportion_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, target = tmp_path / "model.zip", tmp_path / "out" / "model"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model.safetensors", bytes(1 << 22))
        file.writestr("config.json", "{}")
    with pytest.raises(InputError, match=r"model\.zip: its files take 4,194,306 bytes, more than 100 times"):
        unpack(archive, target)
    assert not target.parent.exists()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("model.safetensors", bytes(1000))
        file.writestr("config.json", "{}")
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1001))
        with pytest.raises(InputError, match="1,002 bytes, and 1,001 are free"):
            unpack(archive, target)
    unpack(archive, target)
    assert (target / "model.safetensors").stat().st_size == 1000


def test_a_repository(use_runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def snapshot_download(repository: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.update(repository=repository, revision=revision)
        if repository == "someone/gone":
            raise RuntimeError("404 Client Error.\nRepository not found")
        for name in allow_patterns:
            source = find_checkpoint(use_runs["stage2"]) / name
            if source.is_file():
                shutil.copy(source, tmp_path / name)
        return str(tmp_path)

    stub = types.ModuleType("huggingface_hub")
    monkeypatch.setattr(stub, "snapshot_download", snapshot_download, raising=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", stub)
    assert same(load("hf:someone/tiny@v1"), load(use_runs["stage2"]))
    assert asked == {"repository": "someone/tiny", "revision": "v1"}
    with pytest.raises(NotFoundError, match="404 Client Error"):
        load("hf:someone/gone")
    with pytest.raises(SettingError, match="hf:owner/name"):
        load("hf:tiny")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"molspectra\[hub\]"):
        load("hf:someone/tiny")


@pytest.mark.parametrize(("name", "largest"), [("small", 3_000_000), ("base", 12_000_000)])
def test_the_shipped_models(name: str, largest: int) -> None:
    model = molspectra.load(name)
    about = json.loads((model.path / "config.json").read_text(encoding="utf-8"))
    assert (about["name"], about["stage"]) == (name, "stage2")
    assert model.similarity == "cosine"
    assert {1, 6, 7, 8, 9, 16, 17} <= (model.elements or set())
    assert (model.path / "model.safetensors").stat().st_size < largest
    assert all(each.dtype == torch.float32 for each in model.model.parameters())
    card = (model.path / "README.md").read_text(encoding="utf-8")
    assert f"version {about['version']}" in card
    text = "".join(path.read_bytes().decode("latin-1") for path in model.path.iterdir())
    assert "/runs/" not in text
    assert not any(f"/{word}/" in text for word in ("tmp", "home", "root", "work"))


def test_base_is_the_model_without_a_name() -> None:
    model = molspectra.load()
    assert model.name == "base"
    assert model.width == 128
    assert molspectra.embed(["CCO", "CS"]).vectors.shape == (2, 128)


def test_base_finds_molecules_by_their_spectra() -> None:
    """Most bundled test molecules are among the first five by IR and Raman, against predicted spectra."""
    store = bundled()
    rows = split_store(store, DataConfig())["test"]
    model = molspectra.load().model
    gallery = Gallery.of(model, store, rows)
    library = predicted_spectra(model, store, rows)
    found = retrieve_by_prediction(library, store, rows, gallery, ("ir", "raman"))["ir + raman"]
    assert found["all"].rank.le(5).double().mean() > 0.9


def test_a_folder_that_happens_to_be_called_base_hides_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small" / "data").mkdir(parents=True)
    assert load("small").path.parent.name == "weights"
