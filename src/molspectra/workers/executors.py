"""Workers for calls of functions, through executorlib: on this machine, or in an allocation of a cluster."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

from molspectra.errors import MissingExtraError, SettingError, ValueRangeError

Kind = Literal["node", "slurm", "flux"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Kinds of executor: on this machine; steps (`srun`) of this SLURM allocation; jobs in this Flux instance."""

ENDING = 30.0
"""Seconds that workers get to end when the work is broken off."""

_CLASSES = {"node": "SingleNodeExecutor", "slurm": "SlurmJobExecutor", "flux": "FluxJobExecutor"}


class LostWorkerError(Exception):
    """Error of the future of a call whose process ended without an answer, for whatever reason."""


Submit = Callable[..., "Future[Any]"]
"""Starts `function(*arguments)` in a new process; both are pickled. Returns its future."""


@dataclass(frozen=True)
class Executor:
    """Workers of one kind. Each call gets a new process, so that a dead one takes no other call with it.

    Attributes:
        kind: see `KINDS`. Nodes, queue and time limit are those of the allocation.
        workers: number of calls that run at once.
        processes: processes that each of them may start, one core each.

    Raises:
        ValueRangeError: a number below 1.
        SettingError: no such kind.
    """

    kind: Kind
    workers: int
    processes: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SettingError(f"no executor {self.kind!r}; choose from {', '.join(KINDS)}")
        for name in ("workers", "processes"):
            if getattr(self, name) < 1:
                raise ValueRangeError(f"the number of {name} must be at least 1, not {getattr(self, name)}")

    @contextmanager
    def pool(self) -> Iterator[Submit]:
        """Yield what starts calls; calls that still run when the block ends must have been told to end.

        Raises:
            MissingExtraError: executorlib is not installed, or what it needs for this kind.
            SettingError: there is no `srun`.
        """
        if self.kind == "slurm" and shutil.which("srun") is None:  # executorlib would wait for it for ever
            raise SettingError(
                "the executor slurm runs in a SLURM allocation (sbatch); there is no srun here"
            )
        submitted: list[Future[Any]] = []
        before = os.environ.get("PYTHONPATH")
        executor = self._open()
        try:
            yield lambda function, *arguments: _submit(executor, submitted, function, *arguments)
        finally:
            _, running = wait_for(submitted, timeout=ENDING)
            executor.shutdown(wait=not running, cancel_futures=True)
            os.environ.pop("PYTHONPATH", None)  # executorlib puts the working directory into it
            if before is not None:
                os.environ["PYTHONPATH"] = before

    def _open(self) -> Any:
        """The executor of executorlib; Ctrl-C does not reach its processes, which end when they are told."""
        # its threads and their processes inherit what this thread blocks now
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            import executorlib

            _notice_death_at_start()
            resources: dict[str, Any] = {"cores": 1, "threads_per_core": self.processes}
            if self.kind == "slurm":  # a step takes the cores of its worker on one node, and no others
                resources |= {"num_nodes": 1, "exclusive": True}
            return getattr(executorlib, _CLASSES[self.kind])(
                max_cores=self.workers * self.processes,
                resource_dict=resources,
                hostname_localhost=True if self.kind == "node" else None,
                disable_dependencies=True,
            )
        except (ImportError, AttributeError) as error:
            raise MissingExtraError(
                f"the executor {self.kind} needs executorlib, with its parts for {self.kind} ({error}); "
                "pip install 'molspectra[cluster]'"
            ) from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _notice_death_at_start() -> None:
    """Let executorlib send only to a process that has connected, and fail if it ended before that.

    Its socket blocks for ever otherwise (1.11), and with it the future and the end of this process.
    """
    import zmq
    from executorlib.standalone.interactive.communication import ExecutorlibSocketError, SocketInterface

    send = SocketInterface.send_dict
    if send.__module__ == __name__:
        return

    def send_dict(interface: Any, input_dict: dict[str, Any]) -> None:
        while not interface._socket.poll(1000, zmq.POLLOUT):
            if not interface._spawner.poll():
                raise ExecutorlibSocketError("its process ended before it connected")
        send(interface, input_dict)

    SocketInterface.send_dict = send_dict


def _submit(
    executor: Any, submitted: list[Future[Any]], function: Callable[..., Any], *arguments: Any
) -> Future[Any]:
    """Start a call; the future of a lost one gets `LostWorkerError`."""
    from executorlib.standalone.interactive.communication import ExecutorlibSocketError

    answer: Future[Any] = Future()

    def pass_on(future: Future[Any]) -> None:
        if future.cancelled() or isinstance(future.exception(), ExecutorlibSocketError):
            answer.set_exception(LostWorkerError("its process ended"))
        elif (error := future.exception()) is not None:
            answer.set_exception(error)
        else:
            answer.set_result(future.result())

    call = executor.submit(function, *arguments)
    call.add_done_callback(pass_on)
    submitted.append(call)
    return answer
