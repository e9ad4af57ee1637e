"""Runs that torchrun or SLURM start on one or several machines: as one process, or ended with the reason."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import HashStore

from molspectra.apps.cli import main
from molspectra.errors import MismatchError, SettingError
from molspectra.training import launch
from molspectra.training.checkpoint import check, newest
from molspectra.training.config import LoopConfig
from molspectra.training.heartbeat import Heartbeat
from molspectra.training.interrupt import stop_requests
from molspectra.training.ranks import Ranks
from molspectra.training.record import read_metrics
from molspectra.training.run import pretrain
from molspectra.training.settings import from_dict, to_dict

Make = Callable[..., Any]

EXAMPLES = Path(__file__).parents[2] / "examples" / "cluster"
TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
STEPS = 8

HOOK = """
import os, sys
from molspectra.apps.cli import main
from molspectra.training.loop import Trainer

rank, step, number = map(int, sys.argv[1:4])
update = Trainer._update

def patched(self, micros):
    if (self.ranks.rank, self.step) == (rank, step):
        os.kill(os.getpid(), number)
    return update(self, micros)

Trainer._update = patched
sys.exit(main(sys.argv[4:]))
"""
"""The command line, in which one rank gets a signal in a step."""

SRUN = """
import os, signal, subprocess, sys, time
from pathlib import Path

command = sys.argv[1:]
while command[0].startswith("-"):
    command.pop(0)
nodes, each = int(os.environ["SLURM_NNODES"]), int(os.environ["SLURM_NTASKS_PER_NODE"])
step = {"SLURM_STEP_NUM_NODES": str(nodes), "SLURM_STEP_NUM_TASKS": str(nodes * each)}
tasks = []
for task in range(nodes * each):
    of_task = {"PROCID": task, "NODEID": task // each, "LOCALID": task % each}
    step |= {f"SLURM_{name}": str(value) for name, value in of_task.items()}
    tasks.append(subprocess.Popen(command, env=os.environ | step))
metrics = os.environ.get("TIME_IS_UP_AFTER")
while metrics and all(task.poll() is None for task in tasks):
    if Path(metrics).exists() and len(Path(metrics).read_text().splitlines()) > 3:
        for task in tasks:
            task.send_signal(signal.SIGUSR1)
        break
    time.sleep(0.02)
sys.exit(max(task.wait() % 256 for task in tasks))
"""
"""What srun does with a job of SLURM: a process per task, a signal for all at the end of the time."""


@pytest.fixture(scope="module")
def config(stage1: Make) -> Any:
    changes = {
        "batch_size": 4,
        "steps": STEPS,
        "validate_every": 0,
        "precision": "64-true",
        "kernels": "plain",
    }
    return stage1(**{f"loop__{name}": value for name, value in changes.items()}, loop__accelerator="cpu")


@pytest.fixture(scope="module")
def wanted(config: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    """Losses of one process."""
    return losses(pretrain(config, tmp_path_factory.mktemp("one") / "run", show=False).directory)


@pytest.fixture
def options(config: Any, tmp_path: Path) -> list[str]:
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    return ["--config", str(tmp_path / "config.json"), "--out", str(tmp_path / "run")]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))


def losses(run: Path) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for _, name, value, *_ in read_metrics(run / "metrics.csv"):
        found.setdefault(name, []).append(value)
    return found


def assert_as_one(run: Path, wanted: dict[str, list[float]], processes: int) -> None:
    found = losses(run)
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert found[name] == pytest.approx(values, rel=1e-6), name
    assert len(found["train/loss"]) == STEPS
    record = json.loads((run / "record.json").read_text())
    assert record["finished"]
    assert [record, *record.get("resumed", [])][-1]["processes"] == processes


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def finished(command: list[str], where: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a launcher to its end, or, after two minutes, to its and its processes' end."""
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=where, start_new_session=True
    )
    try:
        output, errors = started.communicate(timeout=120)
    finally:
        end_all(started)
    return subprocess.CompletedProcess(command, started.returncode, output, errors)


def end_all(started: subprocess.Popen[Any]) -> None:
    """End what a session still has of processes."""
    with suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)


def torchrun(processes: int, *command: str) -> subprocess.CompletedProcess[str]:
    line = [*TORCHRUN, "--nproc-per-node", str(processes), "--master-port", str(free_port()), *command]
    return finished(line)


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("molspectra: ")]


def test_four_processes_of_torchrun_go_on_as_one_would(
    config: Any, options: list[str], wanted: Any, tmp_path: Path, cut_before_step_3: Make
) -> None:
    with cut_before_step_3():
        pretrain(config, tmp_path / "run", show=False)
    done = torchrun(4, "-m", "molspectra", "pretrain", *options, "--resume", "--loop.devices", "4")
    assert done.returncode == 0, done.stderr
    assert_as_one(tmp_path / "run", wanted, 4)


def test_a_killed_rank_ends_the_run_and_fewer_ranks_go_on(
    config: Any, options: list[str], wanted: Any, tmp_path: Path
) -> None:
    (tmp_path / "hook.py").write_text(HOOK)
    hook = (str(tmp_path / "hook.py"), "1", "5", str(int(signal.SIGKILL)))
    done = torchrun(2, *hook, "pretrain", *options, "--loop.devices", "2")
    assert done.returncode == 1
    (line,) = said(done)
    assert line.startswith(f"molspectra: error: {tmp_path / 'run'}: rank 0: another process is gone")
    assert line.endswith("; the last checkpoint is step-000000004; continue with --resume")
    last = newest(tmp_path / "run" / "checkpoints")
    assert last is not None
    check(last)
    pretrain(config, tmp_path / "run", resume=True, show=False)
    assert_as_one(tmp_path / "run", wanted, 1)


def test_a_signal_to_one_rank_stops_all(config: Any, options: list[str], wanted: Any, tmp_path: Path) -> None:
    (tmp_path / "hook.py").write_text(HOOK)
    hook = (str(tmp_path / "hook.py"), "1", "4", str(int(signal.SIGUSR1)))
    done = torchrun(2, *hook, "pretrain", *options, "--loop.devices", "2")
    stopped = "stopped at step 5 of 8, the state is saved; continue with --resume"
    assert said(done) == [f"molspectra: {stopped}"]
    assert "exitcode  : 130" in done.stderr
    assert json.loads((tmp_path / "run" / "record.json").read_text())["stopped"] == 5
    pretrain(config, tmp_path / "run", resume=True, show=False)
    assert_as_one(tmp_path / "run", wanted, 1)


def test_another_number_of_processes_is_one_line(options: list[str], tmp_path: Path) -> None:
    done = torchrun(2, "-m", "molspectra", "pretrain", *options, "--loop.nodes", "2")
    assert said(done) == [
        "molspectra: error: loop: 2 processes (loop.nodes 2 with loop.devices 1 each), but torchrun has "
        "started 2 on 1; set loop.nodes 1 and loop.devices 2, or start others"
    ]
    assert "exitcode  : 2 " in done.stderr
    assert not (tmp_path / "run").exists()


def test_several_machines_need_a_launcher(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", *options, "--loop.nodes", "2"]) == 2
    assert "2 machines are trained on by torchrun or srun" in capsys.readouterr().err
    with pytest.raises(SettingError, match="a batch of 4 cannot be cut into 6 parts"):
        LoopConfig(batch_size=4, nodes=3, devices=2)


@pytest.mark.parametrize(
    ("tasks", "way_out"), [("8", "loop.nodes 2 and loop.devices 4"), (None, "loop.nodes 1")]
)
def test_tasks_of_a_job_are_those_of_srun(
    tasks: str | None, way_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "4")
    if tasks:  # without srun, a job script runs one process, however many tasks there are
        monkeypatch.setenv("SLURM_STEP_NUM_TASKS", tasks)
        monkeypatch.setenv("SLURM_STEP_NUM_NODES", "2")
    with pytest.raises(SettingError, match=way_out):
        launch.launch(LoopConfig(nodes=2, devices=2))


def test_a_job_of_slurm_is_requeued_and_goes_on(
    config: Any, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {
        "srun": f"#!{sys.executable}{SRUN}",
        "scontrol": '#!/bin/sh\necho "$@" >> requeued\n',
    }.items():
        (tmp_path / "bin" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]]))
    job = {"JOB_ID": "4242", "NTASKS": "2", "NTASKS_PER_NODE": "1", "NNODES": "2", "NODELIST": "localhost"}
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    command = [
        "bash",
        str(EXAMPLES / "pretrain.sbatch"),
        *options,
        "--loop.steps",
        "30",
        "--loop.save_every",
        "0",
    ]
    ends = []
    for until in (str(tmp_path / "run" / "metrics.csv"), ""):
        monkeypatch.setenv("TIME_IS_UP_AFTER", until)
        monkeypatch.setenv("MASTER_PORT", str(free_port()))
        done = finished(command, tmp_path)
        ends.append(done.returncode)
    assert ends == [130, 0], done.stderr
    assert (tmp_path / "requeued").read_text() == "requeue 4242\n"
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["finished"]
    assert record["processes"] == 2
    assert len(record["resumed"]) == 1
    longer = from_dict(
        type(config), to_dict(config) | {"loop": to_dict(config)["loop"] | {"steps": 30, "save_every": 0}}, ""
    )
    one = losses(pretrain(longer, tmp_path / "one", show=False).directory)
    for name, values in losses(tmp_path / "run").items():
        assert values == pytest.approx(one[name], rel=1e-5), name


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[str]]:
    """Two network namespaces joined by a cable, with addresses 10.77.0.1 and .2."""

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    names = [f"molspectra-{os.getpid()}-{number}" for number in range(2)]
    ends = [f"ms{os.getpid() % 1_000_000}-{number}" for number in range(2)]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for number, (name, end) in enumerate(zip(names, ends, strict=True), start=1):
            ip("link", "set", end, "netns", name)
            ip("-n", name, "link", "set", end, "name", "cable0")
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "cable0")
            ip("-n", name, "link", "set", "cable0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    except (OSError, subprocess.CalledProcessError) as error:
        what = getattr(error, "stderr", b"").decode().strip() or error
        pytest.skip(f"no network namespaces here (they need root and iproute2): {what}")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def test_two_machines_train_as_one(
    machines: list[str], options: list[str], wanted: Any, tmp_path: Path
) -> None:
    settings = {"NODES": "2", "DEVICES": "1", "FIRST": "10.77.0.1", "GLOO_SOCKET_IFNAME": "cable0"}
    started = []
    for number, name in enumerate(machines):
        command = ["ip", "netns", "exec", name, "bash", str(EXAMPLES / "torchrun.sh"), *options]
        with (tmp_path / f"said-{number}").open("w") as file:
            environment = os.environ | settings | {"NODE": str(number)}
            started.append(
                subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
            )
    try:
        codes = [each.wait(timeout=120) for each in started]
    finally:
        for each in started:
            end_all(each)
    assert codes == [0, 0], [(tmp_path / f"said-{number}").read_text() for number in range(2)]
    assert_as_one(tmp_path / "run", wanted, 2)


@pytest.mark.parametrize(
    ("second", "what"),
    [
        ((4, 7), None),
        ((0, 7), "rank 1: it starts from step 0 and rank 0 from 4; the run directory must lie where all"),
        ((4, 8), "rank 1: its store is not that of rank 0"),
    ],
)
def test_machines_that_see_other_files_do_not_train(second: tuple[int, int], what: str | None) -> None:
    class FirstOfTwo(Ranks):
        world, rank = 2, 0

        def __init__(self) -> None:
            pass

        def total(self, values: torch.Tensor) -> torch.Tensor:
            return values + torch.tensor([(0, 0), second])

    with pytest.raises(MismatchError, match=what) if what else nullcontext():
        launch.require_agreement(FirstOfTwo(), Path("run"), 4, f"{7:012x}{1:052x}")


def test_after_an_error_the_launcher_does_not_cut_off_the_reason() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        with stop_requests(alone=False):
            pass
        assert signal.getsignal(signal.SIGTERM) is before
        with pytest.raises(KeyError), stop_requests(alone=False):
            raise KeyError
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_silent_process_is_told_to_all_others_and_one_that_left_is_not_missed() -> None:
    store, told = HashStore(), [threading.Event() for _ in range(4)]
    reasons: dict[int, str] = {}

    def heart(rank: int) -> Heartbeat:
        def end(message: str) -> None:
            reasons[rank] = message
            told[rank].set()

        return Heartbeat(store, rank, 4, str, end, every=0.05, silence=1.0)

    with heart(0), heart(1):
        with heart(3):
            pass  # leaves in order
        with pytest.raises(KeyError), heart(2):
            raise KeyError  # dies
        assert told[0].wait(60)
        assert told[1].wait(60)
    assert reasons == dict.fromkeys((0, 1), "rank 2 has given no sign of life for 1 s")
