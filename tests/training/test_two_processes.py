"""Two processes compute what one does: stage 2 with gathered negatives, failures, and requests to stop."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from molspectra.data.store import Store
from molspectra.data.stream import BatchStream
from molspectra.models.specformer import PresentBatchNorm
from molspectra.training.data import Selection
from molspectra.training.record import read_metrics
from molspectra.training.run import pretrain
from molspectra.training.settings import to_dict

Make = Callable[..., Any]

SCRIPT = """
import dataclasses, json, os, signal, sys
from pathlib import Path

import torch

from molspectra.data.store import Store
from molspectra.errors import MolspectraError
from molspectra.models.specformer import PresentBatchNorm
from molspectra.training.config import PretrainConfig
from molspectra.training.loop import Trainer
from molspectra.training.run import pretrain
from molspectra.training.settings import from_dict

# batch statistics of half a batch are not those of the whole
PresentBatchNorm.train = lambda self, mode=True: torch.nn.Module.train(self, False)
here = Path(sys.argv[1])
config = from_dict(PretrainConfig, json.loads((here / "config.json").read_text()), "test")
rank = pretrain(config, here / "two", show=False).rank

def said(name):
    try:
        pretrain(config, here / name, show=False)
    except MolspectraError as error:
        (here / f"{name}-{rank}.txt").write_text(f"{type(error).__name__}: {error}")

update, batch = Trainer._update, Store.batch

def stop_one(self, micros):
    if self.step == 1 and rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    return update(self, micros)

def spoil(self, rows, **options):
    made = batch(self, rows, **options)
    made.positions[(made.row == int(sys.argv[2]))[made.molecule]] = torch.nan
    return made

Trainer._update = stop_one
said("stopped")
Trainer._update = update
pretrain(config, here / "stopped", resume=True, show=False)
Store.batch = spoil
said("spoilt")
"""


def test_two_processes_equal_one(stage2: Make, store: Store, tmp_path: Path, monkeypatch: Any) -> None:
    changes = {
        "loop__batch_size": 3,
        "loop__steps": 6,
        "loop__precision": "64-true",
        "optimizer__weight_decay": 0.1,
        "alignment__temperature": "fixed",  # a weight that no rank uses must not decay
    }
    one, two = stage2(**changes), stage2(**changes, loop__devices=2)
    rows = Selection.of(one.data).train
    bare = ~store.has("ir") & ~store.has("uv_vis")
    stream = BatchStream(len(rows), 3, 0)
    shares = [[rows[stream.indices(step, 2, rank)[0].numpy()] for rank in (0, 1)] for step in range(6)]
    assert [len(share) for share in shares[0]] == [1, 2]
    # a rank without any spectrum still takes part
    assert any(bare[first].all() != bare[second].all() for first, second in shares)
    bad = int(shares[2][1][0])

    (tmp_path / "config.json").write_text(json.dumps(to_dict(two)))
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path), str(bad)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr

    monkeypatch.setattr(PresentBatchNorm, "train", lambda self, mode=True: torch.nn.Module.train(self, False))
    pretrain(one, tmp_path / "one", show=False)
    ours, theirs = (
        load_file(tmp_path / run / "checkpoints" / "step-000000006" / "model.safetensors")
        for run in ("one", "two")
    )
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-7, atol=1e-9, msg=name)
    logs = [read_metrics(tmp_path / run / "metrics.csv") for run in ("one", "two")]
    assert [row[:2] for row in logs[0]] == [row[:2] for row in logs[1]]
    np.testing.assert_allclose([row[2] for row in logs[0]], [row[2] for row in logs[1]], rtol=1e-6)
    assert json.loads((tmp_path / "two" / "record.json").read_text())["processes"] == 2

    for rank in (0, 1):  # a signal or a bad molecule on one rank reaches all
        assert (tmp_path / f"stopped-{rank}.txt").read_text() == (
            "Interrupted: stopped at step 2 of 6, the state is saved; continue with --resume"
        )
        said = (tmp_path / f"spoilt-{rank}.txt").read_text()
        assert said.startswith("NonFiniteError: ")
        assert f"ID{bad:04d} (row {bad});" in said
    ends = [tmp_path / run / "checkpoints" / "step-000000006" for run in ("two", "stopped")]
    weights = [(end / "model.safetensors").read_bytes() for end in ends]
    assert weights[0] == weights[1]  # it went on from step 2 bit for bit
