"""Kernels on disk: found again by another process, and only if nothing that they consist of has changed."""

import json
import logging
import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("numba")

from numba.core.caching import IndexDataCacheFile

from molspectra.compiled.cache import _Files, is_private
from molspectra.compiled.simd import jit
from molspectra.compiled.threads import run

SOURCE = """
import sys
import torch
from molspectra.compiled.simd import array_of, inline, jit, real_of
from molspectra.compiled.threads import run
from helper import shifted

def made(factor):
    reals = array_of(real_of(torch.float64))

    @inline
    def scaled(x):
        return factor * x

    @jit
    def kernel(first, last, values):
        values = reals(values)
        for task in range(first, last):
            values[task] = shifted(scaled(values[task]))

    return kernel

for factor in map(float, sys.argv[1:]):
    kernel, values = made(factor), torch.ones(2, dtype=torch.float64)
    run(kernel, 2, values)
    print(values.tolist(), sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values()))
"""
HELPER = """
from molspectra.compiled.simd import inline

@inline
def shifted(x):
    return x + {}
"""


PARENT = """
import json, os, runpy, sys
import numba.core.config
import molspectra.compiled.simd
import molspectra.compiled.threads

for line in sys.stdin:
    folder, factors, environment = json.loads(line)
    child = os.fork()
    if not child:
        os.chdir(folder)
        for number, name in enumerate(("out", "err"), 1):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.environ.update(environment)
        numba.core.config.reload_config()
        sys.path.insert(0, folder)
        sys.argv[1:] = factors
        runpy.run_path("script.py", run_name="__main__")
        break
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


@pytest.fixture(scope="module")
def parent():
    """A process that has imported what the script imports, and has no kernels; it forks for each run."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", PARENT], **pipes) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def script(tmp_path, parent):
    (tmp_path / "script.py").write_text(SOURCE)
    (tmp_path / "helper.py").write_text(HELPER.format("1.0"))

    def call(*factors, **environment):
        print(json.dumps([str(tmp_path), [*map(str, factors)], environment]), file=parent.stdin, flush=True)
        code = parent.stdout.readline()
        said = (tmp_path / "out").read_text() + (tmp_path / "err").read_text()
        assert code == "0\n", said
        return said.splitlines()

    return call


def test_a_kernel_is_found_again_by_its_constants_and_sources(script, tmp_path):
    assert script(2, 3) == ["[3.0, 3.0] 0 1", "[4.0, 4.0] 0 1"]
    assert script(3, 2) == ["[4.0, 4.0] 1 0", "[3.0, 3.0] 1 0"]
    (tmp_path / "helper.py").write_text(HELPER.format("5.0"))
    assert script(2) == ["[7.0, 7.0] 0 1"]


def test_without_a_place_to_write_every_process_compiles(script):
    nowhere = {"NUMBA_CACHE_LOCATOR_CLASSES": "ZipCacheLocator"}
    *results, said = script(2, 3, **nowhere)
    assert [line.split("] ")[0] for line in results] == ["[3.0, 3.0", "[4.0, 4.0"]
    assert said.startswith("every process compiles its kernels anew")
    assert "NUMBA_CACHE_DIR" not in said


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs users and modes")
def test_a_folder_that_others_can_write_to_is_neither_read_nor_written(script, tmp_path):
    """In-tree and user-wide folders are given up first, so that only the one of the variable is left."""
    cache = tmp_path / "parent" / "cache"
    alone = {"NUMBA_CACHE_DIR": str(cache), "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"}
    cache.mkdir(parents=True, mode=0o700)
    assert script(2, **alone) == ["[3.0, 3.0] 0 1"]
    assert script(2, **alone) == ["[3.0, 3.0] 1 0"]
    for shared in (cache, cache.parent):
        shared.chmod(0o777)
        before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
        result, said = script(2, **alone)
        assert result.startswith("[3.0, 3.0] 0 ")
        assert said.startswith("every process compiles its kernels anew")
        assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before
        shared.chmod(0o700)
        assert script(2, **alone) == ["[3.0, 3.0] 1 0"]


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs users and modes")
def test_another_folder_is_used_in_place_of_a_shared_one(script, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    assert script(2, NUMBA_CACHE_DIR=str(shared)) == ["[3.0, 3.0] 0 1"]
    assert script(2, NUMBA_CACHE_DIR=str(shared)) == ["[3.0, 3.0] 1 0"]
    assert not [path for path in shared.rglob("*") if path.is_file()]


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs users and modes")
def test_what_is_private(tmp_path, monkeypatch):
    file = tmp_path / "above" / "folder" / "file"
    file.parent.mkdir(parents=True)
    file.touch()
    (tmp_path / "link").symlink_to(file)
    for path in (file, file.parent, file.parent.parent):
        path.chmod(0o755)
    assert is_private(file)
    assert not is_private(tmp_path / "link")
    assert not is_private(tmp_path / "missing")
    for path, mode in [(file, 0o664), (file.parent, 0o775), (file.parent.parent, 0o757)]:
        path.chmod(mode)
        assert not is_private(file)
        path.chmod(0o755)
    file.parent.chmod(0o1777)  # others cannot replace what is not theirs
    assert is_private(file)
    assert not is_private(file.parent)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert not is_private(file)


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs users and modes")
def test_files_are_written_for_the_user_alone_and_else_not_read(tmp_path):
    mask = os.umask(0o002)
    try:
        _Files(str(tmp_path), "kernel", "stamp").save("single", 4)
    finally:
        os.umask(mask)
    for path in tmp_path.iterdir():
        assert _Files(str(tmp_path), "kernel", "stamp").load("single") == 4
        path.chmod(0o666)
        assert _Files(str(tmp_path), "kernel", "stamp").load("single") is None
        path.chmod(0o600)


def test_a_full_disk_does_not_stop(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    @jit
    def kernel(first, last, count):
        return first + last + count

    monkeypatch.setattr(IndexDataCacheFile, "save", full)
    assert kernel(1, 2, 3) == 6


def test_two_processes_that_compile_for_other_types_at_once_keep_both(tmp_path, monkeypatch):
    """As if each had looked before the other wrote."""
    with monkeypatch.context() as unseen:
        unseen.setattr(IndexDataCacheFile, "_load_index", lambda self: {})
        for key, data in (("single", 4), ("double", 8)):
            _Files(str(tmp_path), "kernel", "stamp").save(key, data)
    loaded = [_Files(str(tmp_path), "kernel", "stamp").load(key) for key in ("single", "double", "half")]
    assert loaded == [4, 8, None]


def test_compilation_says_how_long_it_takes(caplog, tmp_path, monkeypatch):
    (tmp_path / "made_here.py").write_text(SOURCE.replace("from helper import shifted", "shifted = abs"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["made_here"])
    import made_here

    with caplog.at_level(logging.INFO, logger="molspectra"):
        run(made_here.made(2.0), 1, torch.zeros(1, dtype=torch.float64))
    assert "compiled made_here.kernel in" in caplog.text
