"""Batches of molecules computed on the workers of an executor: a table of each, in the order of the input."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import torch

from molspectra import errors
from molspectra.chem.readers import ErrorPolicy
from molspectra.data.atomic import naming
from molspectra.errors import LostProcessError, MolspectraError
from molspectra.training.progress import Advance, progress
from molspectra.workers.executors import Executor
from molspectra.workers.shares import GrowingLines, share_out

Item = tuple[str, Any]
"""A molecule's place in the input, for messages, and what is computed of it; both are pickled."""

Work = Callable[[Sequence[Item], ErrorPolicy], pa.Table | None]
"""Computes a batch; None where all of it is rejected."""


def shared_batches(
    executor: Executor,
    folder: Path,
    path: str,
    batches: Iterable[Sequence[Item]],
    open_work: Callable[[], Work],
    policy: ErrorPolicy,
    *,
    title: str,
    show: bool,
) -> Iterator[pa.Table]:
    """Compute all batches, then yield their tables in order.

    The molecules of a batch that ends its workers are computed one by one: those that end them again are
    rejected, and the batch is computed without them.

    Args:
        executor: the workers; each computes one batch at a time, with `executor.processes` threads.
        folder: all workers see it; results lie in a hidden folder in it, which goes when this ends.
        path: file of the molecules, for messages.
        batches: molecules that are computed together.
        open_work: called in each worker; pickled.
        policy: for what the work rejects, and for molecules that end their worker.
        title: of the progress.
        show: progress on standard error.

    Raises:
        InputError: what the work rejects, where the policy says so; not always the first of the input.
        MolspectraError: the workers do not start, or fail as a whole.
    """
    by_key = {str(number): list(batch) for number, batch in enumerate(batches)}
    if not by_key:
        return
    with naming(folder):
        own = TemporaryDirectory(prefix=".new-shares-", dir=folder, ignore_cleanup_errors=True)
    with own, progress(title, sum(map(len, by_key.values())), show=show) as advance:
        run = _Run(executor, Path(own.name), path, open_work, policy)
        lost = run.compute(by_key, advance)
        reasons = {f"{key}-0": reason for key, reason in lost.items() if len(by_key[key]) == 1}
        reasons |= run.compute(
            {
                f"{key}-{place}": [item]
                for key in lost
                if len(by_key[key]) > 1
                for place, item in enumerate(by_key[key])
            }
        )
        without = {
            key: [item for place, item in enumerate(by_key[key]) if f"{key}-{place}" not in reasons]
            for key in lost
        }
        lost = run.compute({key: items for key, items in without.items() if items})
        reasons |= {
            f"{key}-{place}": f"{reason}, computed with others; try smaller batches"
            for key, reason in lost.items()
            for place, item in enumerate(by_key[key])
            if item in without[key]
        }
        for key, items in by_key.items():
            for place, (where, _) in enumerate(items):
                if f"{key}-{place}" in reasons:
                    policy.reject(path, where, LostProcessError(reasons[f"{key}-{place}"]))
            for rejection in run.rejected.get(key, []):
                _reject(policy, *rejection)
            if (result := run.results / key).exists():
                with pa.OSFile(str(result)) as file:
                    yield pa.ipc.open_file(file).read_all()


@dataclass
class _Run:
    """Batches under way: their results, one file by key in `results`, and what the work rejected of each."""

    executor: Executor
    results: Path
    path: str
    open_work: Callable[[], Work]
    policy: ErrorPolicy
    rejected: dict[str, list[list[str]]] = field(default_factory=dict)
    rounds: Iterator[int] = field(default_factory=count)

    def compute(
        self, batches: Mapping[str, Sequence[Item]], advance: Advance | None = None
    ) -> dict[str, str]:
        """Compute batches; the reasons of those that ended their workers, by key."""
        if not batches:
            return {}
        lists: dict[Path, GrowingLines] = {}
        lost: dict[str, str] = {}
        done = 0

        def collect(file: Path) -> Iterator[str]:
            nonlocal done
            for line in lists.setdefault(file, GrowingLines(file)).new_lines():
                key, has_result, rejected = json.loads(line)
                self.rejected[key] = rejected
                if self.policy.on_error == "raise":
                    for rejection in rejected:
                        _reject(self.policy, *rejection)
                if has_result:
                    with naming(self.results):
                        os.replace(_result(file, key), self.results / key)
                done += len(batches[key])
                if advance is not None:
                    advance(done)
                yield key

        share_out(
            self.executor,
            self.results / f"shares-{next(self.rounds)}",
            batches,
            lambda keys, file: (
                _compute,
                (self.open_work, self.executor.processes, {key: batches[key] for key in keys}, file),
            ),
            collect,
            lost.__setitem__,
        )
        return lost


@dataclass(frozen=True)
class _Recorded(ErrorPolicy):
    """Keeps path, place, class and message of every error, for the policy of the process that shares out."""

    errors: list[list[str]] = field(default_factory=list)

    def reject(self, path: str, where: str, error: MolspectraError) -> None:
        self.errors.append([path, where, type(error).__name__, str(error)])


def _reject(policy: ErrorPolicy, path: str, where: str, kind: str, message: str) -> None:
    """Reject what a worker's policy recorded."""
    policy.reject(path, where, getattr(errors, kind, MolspectraError)(message))


def _result(file: Path, key: str) -> Path:
    """The file of a batch's table, beside the list of a share."""
    return file.with_name(f"{file.name}.{key}")


def _compute(
    open_work: Callable[[], Work], threads: int, batches: Mapping[str, Sequence[Item]], file: Path
) -> None:
    """Body of a worker: compute batches and list them in the file of the share."""
    torch.set_num_threads(threads)
    work = open_work()
    with open(file, "a", encoding="utf-8") as done:
        for key, items in batches.items():
            policy = _Recorded("skip")
            table = work(items, policy)
            if table is not None:
                with (
                    pa.OSFile(str(_result(file, key)), "wb") as sink,
                    pa.ipc.new_file(sink, table.schema) as out,
                ):
                    out.write_table(table)
            done.write(json.dumps([key, table is not None, policy.errors]) + "\n")
            done.flush()
