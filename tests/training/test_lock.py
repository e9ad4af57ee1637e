"""Promise: two processes never train in one run directory; a killed one leaves it free."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from molspectra.errors import ExistsError
from molspectra.training.run import pretrain
from molspectra.training.settings import to_dict

Make = Callable[..., Any]

SLOW = """
import json, sys, time
from pathlib import Path
from molspectra.training.config import PretrainConfig
from molspectra.training.loop import Trainer
from molspectra.training.run import pretrain
from molspectra.training.settings import from_dict

update = Trainer._update

def waiting(self, micros):
    if self.step == 3:
        Path(sys.argv[3]).touch()
        time.sleep(600)
    return update(self, micros)

Trainer._update = waiting
if __name__ == "__main__":
    pretrain(from_dict(PretrainConfig, json.load(open(sys.argv[1])), "test"), sys.argv[2], show=False)
"""


def test_a_run_has_one_process_at_a_time(stage1: Make, tmp_path: Path) -> None:
    config, run = stage1(data__workers=1), tmp_path / "run"
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    (tmp_path / "slow.py").write_text(SLOW)
    paths = [tmp_path / "slow.py", tmp_path / "config.json", run, tmp_path / "waits"]
    with subprocess.Popen([sys.executable, *map(str, paths)]) as process:
        try:
            while process.poll() is None and not (tmp_path / "waits").exists():
                time.sleep(0.02)
            assert process.poll() is None
            before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
            for resume in (True, False):
                with pytest.raises(ExistsError) as caught:
                    pretrain(config, run, resume=resume, show=False)
                said = str(caught.value)
                assert said.startswith(
                    f"{run}: another process is training this run (process {process.pid} on "
                )
                assert "\n" not in said
            assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
        finally:
            process.send_signal(signal.SIGKILL)
    assert (run / ".lock").exists()  # and binds nobody
    resumed = pretrain(config, run, resume=True, show=False)
    assert resumed.metrics == pretrain(config, tmp_path / "whole", show=False).metrics
    assert not (run / ".lock").exists()
