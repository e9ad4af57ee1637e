"""Embeddings computed on the workers of an executor are those of one process, whatever happens to them."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from worker_processes import interrupted, kill_a_worker, processes

import molspectra as ms
from molspectra.apps.cli import main
from molspectra.errors import ElementError, MismatchError, WriteError
from molspectra.workers import shares
from molspectra.workers.executors import Executor

SMILES = ["CCO", "C1CC1", "broken", "CC(C)=O", "O", "CC#N", "C[Br]", "CC=O", "CCN", "C1CO1", "CCCO"]

INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from molspectra.apps.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_the_files_are_the_same_though_a_worker_is_killed(use_runs, tmp_path: Path, library, capsys) -> None:
    (tmp_path / "x.smi").write_text("\n".join(f"{each} m{n}" for n, each in enumerate(SMILES)))
    options = ["--model", str(use_runs["stage2"]), "--batch-size", "4", "--on-error", "skip"]
    contents = []
    for name, more in (("one", []), ("two", ["--executor", "node", "--workers", "2"])):
        folder = tmp_path / name
        folder.mkdir()
        killer = more and kill_a_worker(lambda folder=folder: any(folder.glob(".new-shares-*/*/*-*")))
        command = ["embed", "--molecules", str(tmp_path / "x.smi"), "--out", str(folder / "e.npy")]
        assert main([*command, *options, *more]) == 1
        if killer:
            killer.join(60)
            assert not killer.is_alive()
        contents.append({path.name: path.read_bytes() for path in folder.iterdir()})
        printed = capsys.readouterr()
        assert "9 structure embeddings of length 16" in printed.out
        assert "embed: 11/11" in printed.err or not more
        assert "x.smi, line 3: unreadable SMILES 'broken'" in printed.err
    assert sorted(contents[0]) == ["e.columns.csv", "e.npy", "e.npy.rejected.jsonl"]
    assert contents[0] == contents[1]


def test_a_molecule_that_ends_its_worker_costs_only_itself(
    use_runs, tmp_path: Path, library, monkeypatch
) -> None:
    class Deadly:
        def get_positions(self) -> None: ...

        @property
        def pbc(self) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(shares, "DEATHS", 1)  # each takes seconds
    common = {"model": use_runs["stage1"], "executor": Executor("node", 2), "folder": tmp_path}
    found = ms.embed(["CCO", Deadly(), "O"], batch_size=2, on_error="skip", **common)
    assert [str(each) for each in found.rejected] == ["molecules, item 2: its worker ended 1 times"]
    assert found.columns["formula"] == ["C2H6O", "H2O"]
    alone = ms.embed(["CCO", "O"], use_runs["stage1"], batch_size=1)
    np.testing.assert_array_equal(found.vectors, alone.vectors)
    assert not list(tmp_path.iterdir())


def test_errors_of_workers_are_those_of_one_process(use_runs, use_store, tmp_path: Path, library) -> None:
    common = {"executor": Executor("node", 1), "folder": tmp_path}
    with pytest.raises(ElementError, match="item 2: atom 2 is Br, which the model was not trained on"):
        ms.embed(["CCO", "C[Br]"], use_runs["stage2"], **common)
    changed = ms.load(use_runs["stage2"])
    with torch.no_grad():
        next(changed.model.parameters()).add_(1e-6)
    with pytest.raises(MismatchError, match="the model there is not the one that was given"):
        ms.embed(use_store, changed, **common)
    with pytest.raises(WriteError, match="nowhere"):
        ms.embed(["CCO"], use_runs["stage2"], executor=Executor("node", 1), folder=tmp_path / "nowhere")
    assert not list(tmp_path.iterdir())


def test_stores_and_pooled_features_on_a_worker(use_runs, use_store, tmp_path: Path, library) -> None:
    options = {"pooled": True, "batch_size": 8}
    shared = ms.embed(use_store, use_runs["gap"], executor=Executor("node", 1), folder=tmp_path, **options)
    plain = ms.embed(use_store, use_runs["gap"], **options)
    assert shared.columns == plain.columns
    assert shared.about == plain.about
    np.testing.assert_array_equal(shared.vectors, plain.vectors)


def test_wrong_options(tmp_path: Path, capsys) -> None:
    out = ["--out", str(tmp_path / "e.npy")]
    for arguments, word in (
        (["--smiles", "C", "--executor", "node"], "--workers"),
        (["--smiles", "C", "--workers", "2"], "--executor"),
        (["--smiles", "C", "--executor", "node", "--workers", "0"], "workers must be at least 1"),
        (["--spectra", "x.jdx", "--executor", "node", "--workers", "2"], "--spectra"),
    ):
        assert main(["embed", *arguments, *out]) == 2
        assert word in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_interrupt_ends_the_workers_and_leaves_nothing(use_runs, tmp_path: Path, library) -> None:
    (tmp_path / "x.smi").write_text("CCCCCCCCCCCC\n" * 1000)
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-c", INTERRUPTIBLE, "embed", "--molecules", str(tmp_path / "x.smi")]
    command += ["--model", str(use_runs["stage1"]), "--out", str(out / "e.npy"), "--executor", "node"]
    started = interrupted([*command, "--workers", "2"], lambda: list(out.glob(".new-shares-*/*/*-*")))
    assert len(started) > 1
    assert not set(started) & set(processes())
    assert not list(out.iterdir())
