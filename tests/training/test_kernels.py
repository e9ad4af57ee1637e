"""The setting `loop.kernels`: what it chooses, where it holds, what the record says of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from molspectra import compiled
from molspectra.compiled import switch
from molspectra.data.loader import batches
from molspectra.errors import InputError, MismatchError
from molspectra.evaluation.evaluate import evaluate
from molspectra.training.interrupt import Interrupted
from molspectra.training.loop import Trainer
from molspectra.training.record import versions
from molspectra.training.run import finetune, pretrain

Make = Callable[..., Any]


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The choices in force at every training step."""
    seen: list[str] = []
    update = Trainer._update

    def watched(self: Trainer, micros: Any) -> Any:
        seen.append(compiled.kernels())
        return update(self, micros)

    monkeypatch.setattr(Trainer, "_update", watched)
    monkeypatch.delenv(switch.VARIABLE, raising=False)
    return seen


def record(run: Path) -> Any:
    return json.loads((run / "record.json").read_text())


@pytest.fixture
def numba(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Pretend that numba is there, or not; no kernel runs in these tests unless it is."""

    def pretend(there: bool) -> None:
        monkeypatch.setattr(switch, "installed", lambda: there)

    return pretend


def test_plain_holds_in_training_and_evaluation(
    stage1: Make, chosen: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = pretrain(stage1(loop__kernels="plain"), tmp_path / "run", show=False).directory
    assert set(chosen) == {"plain"}
    assert compiled.kernels() == "auto"
    assert record(run)["kernels"] == "plain"
    assert record(run)["versions"]["numba"] == versions()["numba"]
    assert evaluate(run)["kernels"] == "plain"


def test_auto_leaves_the_choice_in_force(
    gap: Make, chosen: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(switch.VARIABLE, "plain")
    finetune(gap(loop__steps=1), tmp_path / "one", show=False)
    monkeypatch.delenv(switch.VARIABLE)
    with compiled.use("plain"):
        finetune(gap(loop__steps=1), tmp_path / "two", show=False)
    assert chosen == ["plain", "plain"]
    assert record(tmp_path / "two")["kernels"] == "plain"


@pytest.mark.skipif(not compiled.installed(), reason="needs numba")
def test_auto_is_compiled_where_numba_is(stage1: Make, chosen: list[str], tmp_path: Path) -> None:
    pretrain(stage1(loop__steps=1), tmp_path / "run", show=False)
    assert record(tmp_path / "run")["kernels"] == "compiled"


def test_compiled_without_numba_is_refused(
    stage1: Make, tmp_path: Path, numba: Callable[[bool], None]
) -> None:
    numba(False)
    with pytest.raises(InputError, match="compiled kernels need numba"):
        pretrain(stage1(loop__kernels="compiled"), tmp_path / "run", show=False)
    assert not (tmp_path / "run").exists()


def cut_off(config: Any, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a run after its second step."""
    update = Trainer._update

    def stopping(self: Trainer, micros: Any) -> Any:
        if self.step == 2:
            self.save()
            raise Interrupted("stopped")
        return update(self, micros)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", stopping)
        with pytest.raises(Interrupted):
            pretrain(config, run, show=False)


def test_resuming_with_another_setting_is_refused(
    stage1: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(stage1(loop__kernels="plain"), tmp_path / "run", monkeypatch)
    with pytest.raises(MismatchError, match=r"loop\.kernels was 'plain' and is 'auto' now"):
        pretrain(stage1(), tmp_path / "run", resume=True, show=False)


def test_resuming_where_kernels_are_missing_says_so(
    stage1: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    cut_off(stage1(), run, monkeypatch)
    path = run / "record.json"
    path.write_text(json.dumps(record(run) | {"kernels": "compiled"}))
    monkeypatch.setenv(switch.VARIABLE, "plain")
    pretrain(stage1(), run, resume=True)
    line = capsys.readouterr().err.splitlines()[0]
    assert line.endswith(
        "continues from step 2 with plain kernels instead of compiled: equal to an unbroken run only up to "
        "rounding"
    )
    assert record(run)["kernels"] == "compiled"
    assert [session["kernels"] for session in record(run)["resumed"]] == ["plain"]


def choice_at(step: int) -> str:
    return compiled.kernels()


@pytest.mark.parametrize("workers", [0, 1])
def test_workers_make_batches_with_the_same_choice(workers: int) -> None:
    with compiled.use("plain"):
        assert list(batches(choice_at, 0, 2, workers=workers)) == ["plain", "plain"]
