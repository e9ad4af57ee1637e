"""The processes of a run: started here, by torchrun or by SLURM, on one machine or several, and connected."""

import atexit
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException
from lightning_fabric.utilities.rank_zero import rank_zero_only

from molspectra.errors import LostProcessError, MismatchError, SettingError
from molspectra.training.checkpoint import newest
from molspectra.training.config import LoopConfig
from molspectra.training.devices import chosen
from molspectra.training.heartbeat import Heartbeat
from molspectra.training.ranks import Ranks

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for one that lives, say for the internal coordinates that it makes of a store; one
that died is noticed by its broken connection or its silence (`Heartbeat`)."""

GRACE = 20.0
"""Seconds that the other processes leave the first one to say what is wrong: launchers end all with one."""


def is_first() -> bool:
    """Whether this is the first process of a run, before the processes are connected."""
    return getattr(rank_zero_only, "rank", 0) == 0


def launch(loop: LoopConfig) -> Fabric:
    """Start the processes of a run, or join those that torchrun or srun have started.

    Raises:
        SettingError: devices or precision that are not here, or other processes than the settings say.
    """
    _require_started(loop)
    try:
        kind, _, number = chosen(loop.accelerator).partition(":")
        fabric = Fabric(
            accelerator=kind,
            devices=[int(number)] if number else loop.devices,
            num_nodes=loop.nodes,
            strategy=DDPStrategy(timeout=TIMEOUT) if loop.processes > 1 else "auto",
            precision=loop.precision,
        )
        fabric.launch()
    except (MisconfigurationException, RuntimeError, ValueError) as error:
        settings = f"loop: {loop.devices} devices of kind {loop.accelerator!r} with {loop.precision}"
        reason = " ".join(str(error).split())
        raise SettingError(f"{settings} cannot be used: {reason}") from error
    if fabric.world_size > 1:
        atexit.unregister(_disconnect)
        atexit.register(_disconnect)
    return fabric


def _disconnect() -> None:
    """End the connection of the processes before the interpreter ends: gloo's threads may abort it later."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _started() -> tuple[str, int, int] | None:
    """Return which launcher has started this process, and on how many machines how many; None without one.

    In a job of SLURM what runs without srun is one process, however many tasks the job has.
    """
    found = os.environ
    if torch.distributed.is_torchelastic_launched():
        return "torchrun", int(found["GROUP_WORLD_SIZE"]), int(found["WORLD_SIZE"])
    if "SLURM_NTASKS" in found and found.get("SLURM_JOB_NAME") not in (
        "bash",
        "interactive",
    ):  # as Fabric does
        return "srun", int(found.get("SLURM_STEP_NUM_NODES", 1)), int(found.get("SLURM_STEP_NUM_TASKS", 1))
    return None


def _require_started(loop: LoopConfig) -> None:
    """Refuse settings that contradict the launcher, before anything waits for processes that never come."""
    started = _started()
    if started is None:
        if loop.nodes > 1:
            raise SettingError(
                f"loop.nodes: {loop.nodes} machines are trained on by torchrun or srun, one command on each; "
                "the page on clusters of the documentation has both"
            )
        return
    name, nodes, processes = started
    if (nodes, processes) == (loop.nodes, loop.processes):
        return
    wanted = f"{loop.processes} processes (loop.nodes {loop.nodes} with loop.devices {loop.devices} each)"
    way_out = f"set loop.nodes {nodes} and loop.devices {processes // nodes}, or start others"
    error = SettingError(f"loop: {wanted}, but {name} has started {processes} on {nodes}; {way_out}")
    if not is_first():
        time.sleep(GRACE)
        error.is_said = True
    raise error


@contextmanager
def connected(fabric: Fabric, directory: Path) -> Iterator[None]:
    """Watch over the other processes in the block, all of it between `launch` and the last exchange.

    A process that has died, or whose machine is gone, ends this one: by an error where the connection breaks,
    else, where the main thread waits for it, by leaving the interpreter with the exit code of that error.

    Args:
        fabric: launched.
        directory: of the run, to say which checkpoint there is.

    Raises:
        LostProcessError: the connection to another process broke.
    """
    if fabric.world_size == 1:
        yield
        return
    rank = fabric.global_rank

    def lost(reason: str) -> str:
        last = newest(directory / "checkpoints")
        saved = "nothing was saved yet" if last is None else f"the last checkpoint is {last.name}"
        return f"{directory}: rank {rank}: {reason}; {saved}; continue with --resume"

    store = torch.distributed.distributed_c10d._get_default_store().clone()  # type: ignore[attr-defined]
    try:
        with Heartbeat(store, rank, fabric.world_size, lost):
            yield
    except RuntimeError as error:
        if not (isinstance(error, torch.distributed.DistError) or "gloo" in str(error).lower()):
            raise
        what = " ".join(re.sub(r"^\[\S+\] ", "", str(error)).split(". This ")[0].split())[:200]
        raise LostProcessError(lost(f"another process is gone, or its network ({what})")) from error


def require_agreement(ranks: Ranks, directory: Path, step: int, content: str) -> None:
    """Refuse to train where machines see other files than the first process does.

    Args:
        ranks: the processes.
        directory: of the run.
        step: the step that this process goes on from.
        content: hash of the data.

    Raises:
        MismatchError: on all ranks.
    """
    mine = torch.zeros(ranks.world, 2, dtype=torch.float64)
    mine[ranks.rank] = torch.tensor([step, int(content[:12], 16)])  # 48 bits, exact
    of_all = ranks.total(mine)
    for rank, (other, data) in enumerate(of_all.tolist()):
        if data != of_all[0, 1]:
            what = "its store is not that of rank 0; copy it there again (data.store)"
        elif other != of_all[0, 0]:
            what = f"it starts from step {other:.0f} and rank 0 from {int(of_all[0, 0])}"
            what += "; the run directory must lie where all machines see the same files"
        else:
            continue
        raise MismatchError(f"{directory}: rank {rank}: {what}")
