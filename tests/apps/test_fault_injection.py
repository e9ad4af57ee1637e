"""A full disk, no permission, a read-only file system and short writes, at every kind of call that writes.

The calls of a clean run of a command are listed; then one of them fails, in a run of its own. Afterwards
every file must be as before or complete, and the same command must end as if nothing had happened.
"""

import errno
import io
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from molspectra.apps.cli import main
from molspectra.reporting import sections
from molspectra.simulation import runner
from molspectra.simulation.api import Simulation, levels_of_theory
from molspectra.spectra.spectrum import LineSpectrum
from molspectra.training.checkpoint import CONFIG, RESUME, WEIGHTS, check, saved

BY_PATH = ("mkdir", "rename", "replace", "unlink", "rmdir")
"""Functions of `os` whose first argument is what they change."""
BY_HANDLE = ("write", "fsync", "ftruncate")
"""Functions of `os` whose first argument is an open file; their errors name none."""
CLEANING = ("unlink", "rmdir")
"""What a full disk does not refuse."""


class Injector:
    """Lists the calls that change files below a folder, and lets them fail from one of them on.

    Args:
        root: folder.
        fail: number of the first call that fails; None for none.
        reason: error number, or 0 for a write of only half of the bytes, after which the disk is full.
    """

    def __init__(self, root: Path, fail: int | None = None, reason: int = 0) -> None:
        self.root, self.fail, self.reason = str(root), fail, reason
        self.calls: list[tuple[str, str]] = []
        self.failed: list[str] = []
        self.handles: dict[int, str] = {}

    def inside(self, path: Any) -> bool:
        return isinstance(path, (str, os.PathLike)) and os.path.abspath(path).startswith(self.root)

    def refuses(self, call: str, path: Any) -> bool:
        """Count a call, and tell whether it fails."""
        self.calls.append((call, str(path)))
        if self.fail is None or len(self.calls) <= self.fail:
            return False
        if self.reason == errno.EACCES:  # of this one call
            return len(self.calls) == self.fail + 1
        return self.reason == errno.EROFS or call not in CLEANING  # a full disk lets files be removed

    def check(self, call: str, path: Any) -> None:
        """Count a call, and let it fail."""
        if self.refuses(call, path):
            number = self.reason or errno.ENOSPC
            self.failed.append(f"{call} {path}")
            named = () if call in BY_HANDLE else (str(path),)
            raise OSError(number, os.strerror(number), *named)

    @contextmanager
    def installed(self) -> Iterator["Injector"]:
        with pytest.MonkeyPatch.context() as patch:
            for name in BY_PATH:
                patch.setattr(os, name, self._by_path(name, getattr(os, name)))
            for name in BY_HANDLE:
                patch.setattr(os, name, self._by_handle(name, getattr(os, name)))
            patch.setattr(os, "open", self._os_open(os.open))
            opener = self._open(io.open)
            patch.setattr(io, "open", opener)
            patch.setattr("builtins.open", opener)
            yield self

    def _by_path(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            if options.get("dir_fd") in self.handles:
                path_there = Path(self.handles[options["dir_fd"]], path)
            else:
                path_there = path
            if self.inside(path_there):
                self.check(name, path_there)
            return real(path, *arguments, **options)

        return call

    def _by_handle(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(handle: int, *arguments: Any) -> Any:
            if handle in self.handles:
                self.check(name, self.handles[handle])
            return real(handle, *arguments)

        return call

    def _os_open(self, real: Callable[..., int]) -> Callable[..., int]:
        def call(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
            if self.inside(path) and flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
                self.check("open", path)
            handle = real(path, flags, *arguments, **options)
            self.handles.pop(handle, None)
            if self.inside(path):
                self.handles[handle] = str(path)
            return handle

        return call

    def _open(self, real: Callable[..., Any]) -> Callable[..., Any]:
        injector = self

        class Raw(io.FileIO):
            def write(self, content: Any) -> int:
                if not injector.refuses("write", self.name):
                    return super().write(content)
                injector.failed.append(f"write {self.name}")
                if injector.reason == 0 and len(injector.calls) == injector.fail + 1 and len(content) > 1:
                    return super().write(memoryview(content)[: len(content) // 2])
                number = injector.reason or errno.ENOSPC
                raise OSError(number, os.strerror(number))

        def call(path: Any, mode: str = "r", buffering: int = -1, *text: Any, **options: Any) -> Any:
            if not self.inside(path) or not set(mode) & set("wxa+"):
                return real(path, mode, buffering, *text, **options)
            self.check("open", path)
            raw = Raw(path, mode.replace("b", "").replace("t", ""))
            self.handles[raw.fileno()] = str(path)
            file = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return file if "b" in mode else io.TextIOWrapper(file, *text, **options)

        return call


MAY_DIFFER = (
    "seconds", "cpu_seconds", "peak_mebibytes", "resumed", "id", "run", "resume.pt",
    "plateau",  # of a schedule that is not used here
)  # fmt: skip
"""Facts of a call in JSON and states: times, names by chance, and the hash of a file with such."""


def _without(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _without(value) for key, value in values.items() if key not in MAY_DIFFER}
    return [_without(value) for value in values] if isinstance(values, list) else values


def _plain(values: Any) -> Any:
    """Nested values with lists in place of tensors, without times."""
    if isinstance(values, torch.Tensor):
        return values.tolist()
    if isinstance(values, dict):
        return {key: _plain(value) for key, value in values.items() if key not in MAY_DIFFER}
    return list(map(_plain, values)) if isinstance(values, (list, tuple)) else values


def is_at_work(path: Path) -> bool:
    """Whether a file is hidden or what a repeated command continues from, by its path in the folder."""
    return any(part[0] == "." or part.endswith((".parts", ".journal.jsonl")) for part in path.parts)


def files(folder: Path) -> dict[str, bytes]:
    """Comparable content of the files in a folder by their paths there, without those that are at work."""
    relative = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): comparable(folder / path) for path in relative if not is_at_work(path)}


def comparable(path: Path) -> bytes:
    """Content of a file without times and the like."""
    if path.name == RESUME:  # equal values, but a resumed run may write them in another way
        return repr(_plain(torch.load(path, weights_only=True))).encode()
    if path.suffix == ".json":
        return json.dumps(_without(json.loads(path.read_bytes()))).encode()
    if path.name.endswith(".report.txt"):
        lines = path.read_text().splitlines()
        return "\n".join(line for line in lines if "second" not in line and "MiB" not in line).encode()
    if path.name == "metrics.csv":
        return "\n".join(line.rpartition(",")[0] for line in path.read_text().splitlines()).encode()
    return path.read_bytes()


def reasons(call: str, number: int) -> int:
    """A reason for which a call can fail, in turn."""
    if call == "write":
        return (errno.ENOSPC, 0)[number % 2]
    if call in BY_HANDLE:
        return (errno.ENOSPC, errno.EIO, errno.EDQUOT)[number % 3]
    possible = (errno.EACCES, errno.EROFS) if call in CLEANING else (errno.EACCES, errno.ENOSPC, errno.EROFS)
    return possible[number % len(possible)]


def simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a thread answer in place of the processes of `simulate`, at once and with made-up lines."""
    levels = levels_of_theory(("ir",))

    @contextmanager
    def pool(count: int, task: Any) -> Iterator[list[Any]]:
        ours, theirs = Pipe()

        def answer() -> None:
            while (molecule := theirs.recv()) is not None:
                line = LineSpectrum("ir", np.array([1000.0 + len(molecule)]), np.ones(1), levels["ir"])
                theirs.send(Simulation(molecule, {"ir": line}, {}, levels))

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield [runner._Worker(SimpleNamespace(is_alive=lambda: True), ours)]
        finally:
            ours.send(None)
            thread.join()
            ours.close()
            theirs.close()

    monkeypatch.setattr(runner, "_pool", pool)


@pytest.fixture
def arguments(
    use_store: Path, use_runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, list[str]]:
    """The commands, to be run in a folder of their own; all they make has a name with "made"."""
    simulated(monkeypatch)
    monkeypatch.setattr(sections, "learning", lambda *_: None)  # a figure takes a second
    positions = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    rows = [positions * (1 + k / 50) for k in range(5)] + [positions * 0]  # the last is refused
    table = pa.table(
        {
            "numbers": [[8, 1, 1]] * len(rows),
            "positions": [row.tolist() for row in rows],
            "gap [eV]": range(6),
        }
    )
    pq.write_table(table, tmp_path / "raw.parquet")
    (tmp_path / "few.smi").write_text("C methane\nCC ethane\nCCO ethanol\nO water\n")
    model, few = str(use_runs["stage2"]), str(tmp_path / "few.smi")
    raw = str(tmp_path / "raw.parquet")
    train = [
        f"--data.store={use_store}", "--data.fractions=0.6,0.2,0.2", "--model.encoder.channels=16",
        "--model.encoder.layers=1", "--model.encoder.heads=2", "--model.encoder.radial=8",
        "--loop.batch_size=4", "--loop.steps=4", "--loop.validate_every=2", "--loop.save_every=2",
        "--loop.log_every=1",
    ]  # fmt: skip
    return {
        "pretrain": ["pretrain", "--out", "made", "--resume", "--quiet", *train],
        "prepare": ["prepare", "parquet", "--raw", raw, "--out", "made.arrow", "--quiet"],
        "simulate": [
            "simulate",
            "--smiles",
            "C",
            "CC",
            "O",
            "--modalities",
            "ir",
            "--out",
            "made.arrow",
            "--quiet",
        ],
        "index": ["index", str(use_store), "--model", model, "--out", "made", "--calibrate", "none"],
        "embed": ["embed", "--molecules", few, "--model", model, "--out", "made.npy", "--quiet"],
        "report": ["report", model, "--out", "made.html"],
    }


POINTS = {"pretrain": 14, "prepare": 20, "simulate": 14, "index": 14, "embed": 16, "report": 8}
"""Largest number of calls that fail, of each command."""


@pytest.mark.parametrize(
    ("command", "replaces"),
    [
        (command, replaces)
        for command in POINTS
        for replaces in (False, True)
        if command != "pretrain" or not replaces
    ],
)
def test_a_fault_loses_nothing_and_blocks_nothing(
    command: str,
    replaces: bool,
    arguments: dict[str, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [*arguments[command], *(["--overwrite"] if replaces else [])]
    before = tmp_path / "before"
    before.mkdir()
    if replaces:  # of other content
        monkeypatch.chdir(before)
        others = {"prepare": ["--limit", "3"], "embed": ["--length", "raw"], "report": ["--title", "older"]}
        if command == "simulate":
            assert main([*given[:2], *given[3:]]) == 0
        elif command == "index":
            assert main([*given, "--vectors", "float16"]) == 0
        else:
            assert main([*given, *others[command]]) == 0
    old = files(before)

    def run(folder: Path, fail: int | None = None, reason: int = 0) -> tuple[int, Injector]:
        monkeypatch.chdir(folder)
        capsys.readouterr()
        with Injector(folder, fail, reason).installed() as injector:
            return main(given), injector

    shutil.copytree(before, tmp_path / "clean")
    code, listed = run(tmp_path / "clean")
    assert code == 0
    new = files(tmp_path / "clean")
    assert new
    assert new != old
    chosen = np.unique(np.linspace(0, len(listed.calls) - 1, POINTS[command]).round().astype(int)).tolist()
    kinds = {call for call, _ in listed.calls}
    assert {"open", "write", "fsync"} < kinds

    for turn, number in enumerate(chosen):
        call = listed.calls[number]
        reason = reasons(call[0], turn)
        folder = tmp_path / f"fault-{number}"
        shutil.copytree(before, folder)
        code, injector = run(folder, number, reason)
        said = capsys.readouterr().err
        label = f"{call}, {errno.errorcode.get(reason, 'short')}: {said}"
        assert injector.failed, label
        left = files(folder)
        if code == 0:  # the fault was in tidying up
            assert left == new, label
        else:
            assert code == 2, label
            (line,) = [line for line in said.splitlines() if line.startswith("molspectra: error: ")]
            assert "Traceback" not in said
            assert "made" in line, label
            assert os.strerror(reason or errno.ENOSPC) in line, label
        check_left(command, folder, left, old, new, label)
        again, _ = run(folder)
        said = capsys.readouterr().err
        assert again == 0 or (left == new and "exists already" in said and not replaces), (label, said)
        assert files(folder) == new, label
    print(f"{command}: {len(chosen)} of {len(listed.calls)} calls failed")


def check_left(
    command: str,
    folder: Path,
    left: dict[str, bytes],
    old: dict[str, bytes],
    new: dict[str, bytes],
    label: str,
) -> None:
    """Every file is as before or complete, and none is gone."""
    if command == "pretrain":
        for checkpoint in saved(folder / "made/checkpoints"):
            check(checkpoint, (CONFIG, WEIGHTS, RESUME))
        return
    for name, content in left.items():
        assert content in (old.get(name), new.get(name)), (label, name)
    if not left.keys() >= old.keys():  # an index whose new folder could not be renamed, nor the old one back
        kept = {name.replace("made/", ".made.old/", 1) for name in old}
        assert command == "index"
        assert all((folder / name).is_file() for name in kept), label
        assert ".made.old" in label


@pytest.mark.parametrize("command", POINTS)
def test_a_finished_command_repeated(
    command: str,
    arguments: dict[str, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [argument for argument in arguments[command] if argument != "--resume"]
    assert main(given) == 0
    made = files(tmp_path)
    capsys.readouterr()
    assert main(given) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "made" in line
    assert "exists already" in line
    option = "--resume" if command == "pretrain" else "--overwrite"
    assert main([*given, option]) == 0
    assert files(tmp_path) == made


@pytest.mark.parametrize("reason", [errno.EROFS, errno.EACCES, errno.ENOSPC], ids=errno.errorcode.get)
def test_a_finished_run_is_resumed_where_nothing_can_be_written(
    reason: int, arguments: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments["pretrain"]) == 0
    made = files(tmp_path)
    with Injector(tmp_path, 0, reason).installed() as injector:
        assert main(arguments["pretrain"]) == 0
    assert not injector.calls
    assert files(tmp_path) == made
