"""Files that are there completely or not at all, and the lock of a folder."""

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from molspectra.data import atomic
from molspectra.data.atomic import LOCK, atomic_file, atomic_files, flush, folder_lock
from molspectra.errors import ExistsError, WriteError

HOLD = """
import sys, time
from pathlib import Path
from molspectra.data.atomic import folder_lock
with folder_lock(Path(sys.argv[1]), "holding it"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Any:
    """A process that holds the lock of the folder `held`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "held")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_is_told_who_holds_it(holder: Any, tmp_path: Path) -> None:
    with pytest.raises(ExistsError) as caught, folder_lock(tmp_path / "held", "working here"):
        pytest.fail("two processes hold it")
    said = str(caught.value)
    assert str(tmp_path / "held") in said
    assert f"process {holder.pid} on {platform.node()} since 20" in said
    assert "\n" not in said
    assert (tmp_path / "held" / LOCK).exists()


def test_a_lock_ends_with_its_process(holder: Any, tmp_path: Path) -> None:
    holder.kill()
    holder.wait()
    assert (tmp_path / "held" / LOCK).exists()
    with folder_lock(tmp_path / "held", "working here"):
        assert f"process {os.getpid()} on " in (tmp_path / "held" / LOCK).read_text()
        assert str(holder.pid) not in (tmp_path / "held" / LOCK).read_text()
    assert not (tmp_path / "held" / LOCK).exists()


def test_a_folder_in_which_nothing_was_done_is_removed(tmp_path: Path) -> None:
    for name in ("deep/er", "used", "kept"):
        (tmp_path / "kept").mkdir(exist_ok=True)
        with folder_lock(tmp_path / name, "working here"):
            assert [path.name for path in (tmp_path / name).iterdir()] == [LOCK]
            if name == "used":
                (tmp_path / name / "file").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "used"]
    with pytest.raises(WriteError, match="is a file"), folder_lock(tmp_path / "used" / "file", "working"):
        pytest.fail("a file has no lock")


@pytest.mark.parametrize("before", [{}, {"table": "old", "vectors": "old"}, {"vectors": "old"}])
def test_files_that_belong_together_are_never_mixed(
    before: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Look at them after each renaming, as if killed there; and let each renaming fail."""
    paths = (tmp_path / "table", tmp_path / "vectors")
    replace, seen = Path.replace, []

    def there() -> dict[str, str]:
        return {path.name: path.read_text() for path in paths if path.exists()}

    def put_back() -> None:
        for path in tmp_path.iterdir():
            path.unlink()
        for name, text in before.items():
            (tmp_path / name).write_text(text)

    def write(failing: int | None) -> None:
        calls = 0

        def renamed(source: Path, target: Path) -> Path:
            nonlocal calls
            calls += 1
            if calls - 1 == failing:
                raise OSError(28, "No space left on device")
            result = replace(source, target)
            seen.append(there())
            return result

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", renamed)
            with atomic_files(*paths) as files:
                for file in files:
                    file.write(b"new")

    put_back()
    write(None)
    renamings = len(seen)
    assert there() == {"table": "new", "vectors": "new"}
    for failing in range(renamings):
        put_back()
        with pytest.raises(WriteError, match="No space"):
            write(failing)
        assert there() == before
        assert {path.name for path in tmp_path.iterdir()} == before.keys()
    (tmp_path / ".vectors.old").write_text("of a process that was killed at the end")
    with pytest.raises(WriteError, match="No space"):
        write(0)
    assert there() == before
    write(None)
    assert {path.name for path in tmp_path.iterdir()} == {"table", "vectors"}
    assert all(len(set(state.values())) < 2 for state in seen)


def test_a_lock_that_is_just_being_removed_is_not_taken_for_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder removes the file after the next process has opened it: that one must open the new file."""
    (tmp_path / LOCK).touch()
    lock, calls = atomic._lock, 0

    def removing(handle: int, *, wait: bool) -> bool:
        nonlocal calls
        calls += 1
        if calls == 1:
            (tmp_path / LOCK).unlink()
        return lock(handle, wait=wait)

    monkeypatch.setattr(atomic, "_lock", removing)
    with folder_lock(tmp_path, "working here"):
        monkeypatch.undo()
        with pytest.raises(ExistsError, match=f"process {os.getpid()}"), folder_lock(tmp_path, "working"):
            pytest.fail("two hold it")
    assert calls == 2


def test_a_file_and_its_folder_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content before it gets its name, the name thereafter."""
    order: list[str] = []

    def noting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(target: Any, *args: Any) -> Any:
            is_folder = name == "fsync" and os.path.samestat(os.fstat(target), tmp_path.stat())
            order.append("folder" if is_folder else name)
            return function(target, *args)

        return wrapped

    monkeypatch.setattr(os, "fsync", noting("fsync", os.fsync))
    monkeypatch.setattr(Path, "replace", noting("replace", Path.replace))
    with atomic_file(tmp_path / "file") as file:
        file.write(b"content")
    assert order == ["fsync", "replace", "folder"]


@pytest.mark.parametrize(("number", "is_error"), [(22, False), (28, True), (5, True)])
def test_folders_that_cannot_be_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, is_error: bool
) -> None:
    """Some network file systems know no such thing (EINVAL); a full or broken disk is an error."""

    def failing(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", failing)
    if is_error:
        with pytest.raises(OSError, match=os.strerror(number)):
            flush(tmp_path)
    else:
        flush(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=os.strerror(number)):
        flush(tmp_path / "file")
