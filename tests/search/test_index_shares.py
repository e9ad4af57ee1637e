"""An index whose library is embedded on the workers of an executor is that of one process."""

import os
import signal

import pytest
from worker_processes import kill_a_worker

from molspectra.apps.cli import main
from molspectra.chem.readers import from_smiles
from molspectra.errors import InputError
from molspectra.search import sources
from molspectra.search.build import append, build
from molspectra.search.library import Library
from molspectra.workers import shares
from molspectra.workers.executors import Executor


def contents(folder):
    """Every file of a folder by its path in it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 25 molecules, so that there are several."""
    monkeypatch.setattr(sources, "BLOCK", 25)


def test_the_index_is_the_same_though_a_worker_is_killed(small, run, tmp_path, library, small_blocks, capsys):
    """Also with further molecules, of which the index has some."""
    smiles = ["CCO", "broken", *(small.smiles[row] for row in range(0, 40, 3)), "CC(C)(C)CO"]
    (tmp_path / "more.smi").write_text("\n".join(smiles))
    executor = ["--executor", "node", "--workers", "2"]
    found = []
    for name, more in (("one", []), ("two", executor)):
        out = tmp_path / name
        killer = more and kill_a_worker(
            lambda name=name: any(tmp_path.glob(f".{name}.building/.new-shares-*/*/*-*"))
        )
        assert main(["index", str(small.path), "--out", str(out), "--model", str(run), *more]) == 0
        if killer:
            killer.join(60)
            assert not killer.is_alive()
            assert "index: 60/60" in capsys.readouterr().err
        options = ["--append", "--on-error", "skip", "--quiet", *more]
        capsys.readouterr()
        assert main(["index", str(tmp_path / "more.smi"), "--out", str(out), *options]) == 1
        printed = capsys.readouterr()
        found.append((contents(out), printed.err, printed.out.replace(str(out), "index")))
    assert found[0] == found[1]
    Library(tmp_path / "two").verify()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["more.smi", "one", "two"]


def test_what_ends_its_worker_leaves_the_index_as_it_was(run, tmp_path, library, monkeypatch):
    class Deadly:
        def get_positions(self): ...

        @property
        def pbc(self):
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(shares, "DEATHS", 1)  # each takes seconds
    build(tmp_path / "index", [from_smiles("CCO")], run, calibration=None)
    before = contents(tmp_path / "index")
    with pytest.raises(InputError, match="item 1: its worker ended 1 times"):
        append(tmp_path / "index", [Deadly()], executor=Executor("node", 1))
    assert contents(tmp_path / "index") == before


def test_wrong_options(small, tmp_path, capsys):
    out = ["--out", str(tmp_path / "index")]
    for arguments, word in (
        ([str(small.path), "--executor", "node"], "--workers"),
        ([str(small.path), "--workers", "2"], "--executor"),
        (["--approximate", "--executor", "node", "--workers", "2"], "--executor embeds a library"),
    ):
        assert main(["index", *arguments, *out]) == 2
        assert word in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
