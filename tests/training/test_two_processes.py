"""Two processes agree: a failure or a request to stop of one reaches the other."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from molspectra.data.stream import BatchStream
from molspectra.training.data import Selection
from molspectra.training.settings import to_dict

Make = Callable[..., Any]

SCRIPT = """
import dataclasses, json, os, signal, sys
from pathlib import Path

import torch

from molspectra.data.store.store import Store
from molspectra.errors import MolspectraError
from molspectra.training.config import PretrainConfig
from molspectra.training.loop import Trainer
from molspectra.training.run import pretrain
from molspectra.training.settings import from_dict

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


def test_what_happens_to_one_rank_happens_to_all(stage2: Make, tmp_path: Path) -> None:
    two = stage2(loop__batch_size=3, loop__steps=6, loop__devices=2)
    rows = Selection.of(two.data).train
    stream = BatchStream(len(rows), 3, 0)
    bad = int(rows[stream.indices(2, 2, 1)[0].numpy()][0])

    (tmp_path / "config.json").write_text(json.dumps(to_dict(two)))
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path), str(bad)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
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
