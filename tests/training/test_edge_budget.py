"""Micro-batches by edges: never over the budget, the same batch, the same step, equal shares of the ranks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from molspectra.chem.molecule import Molecule
from molspectra.data.store.store import Metadata, Row, Store, write_store
from molspectra.data.stream import BatchStream, packed
from molspectra.errors import SettingError
from molspectra.models.transformer_layer import PresentBatchNorm
from molspectra.training.config import LoopConfig
from molspectra.training.data import BatchMaker, Micro
from molspectra.training.loop import Trainer
from molspectra.training.run import finetune, pretrain

Make = Callable[..., Any]
ASPIRIN, METHANE = 21**2, 5**2


@given(
    sizes=st.lists(st.integers(1, 60).map(lambda atoms: atoms**2), min_size=1, max_size=40),
    budget=st.integers(1, 5000),
    multiple=st.integers(1, 4),
    least=st.integers(1, 6),
)
@settings(deadline=None)
def test_no_micro_batch_is_over_the_budget(sizes: list[int], budget: int, multiple: int, least: int) -> None:
    sizes = sizes * multiple
    parts = packed(torch.tensor(sizes), budget, min(least, len(sizes)), multiple)
    assert sorted(torch.cat(parts).tolist()) == list(range(len(sizes)))
    assert len(parts) % multiple == 0
    assert len(parts) >= min(least, len(sizes))
    loads = [sum(sizes[place] for place in part.tolist()) for part in parts]
    assert all(0 < load <= budget or len(part) == 1 for load, part in zip(loads, parts, strict=True))
    assert loads == sorted(loads, reverse=True)
    assert all(part.tolist() == sorted(part.tolist()) for part in parts)


def test_small_molecules_share_and_large_ones_do_not() -> None:
    sizes = torch.tensor([METHANE, ASPIRIN, METHANE, METHANE, ASPIRIN, METHANE])
    assert sorted(part.tolist() for part in packed(sizes, 500)) == [[0, 1, 3], [2, 4, 5]]
    assert [len(part) for part in packed(sizes, 450)] == [1, 1, 4]  # 441, 441, 100
    assert [len(part) for part in packed(sizes, 10_000)] == [6]
    assert sorted(len(part) for part in packed(sizes, 10_000, least=3)) == [1, 1, 4]
    # one far over the budget costs one micro-batch, not as many as it is larger
    assert [len(part) for part in packed(torch.tensor([METHANE, 10**6, METHANE, METHANE]), 500)] == [1, 3]
    with pytest.raises(ValueError, match="7 or more"):
        packed(sizes, 500, least=7)
    with pytest.raises(ValueError, match="in 4s"):
        packed(sizes, 500, multiple=4)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Methane beside aspirin and molecules of 60 atoms, in turns, by their number of atoms."""
    path = tmp_path_factory.mktemp("mixed") / "mixed.arrow"
    places = 1.4 * np.stack(np.meshgrid(*[np.arange(4.0)] * 3), -1).reshape(-1, 3)
    rows = [
        Row(Molecule(np.full(atoms, 6), places[:atoms]), {}, {}, None, identity=f"ID{number:03d}")
        for number, atoms in enumerate([5, 5, 5, 21, 5, 60, 5, 21] * 8)
    ]
    write_store(path, rows, Metadata(source="made up", licence="CC0-1.0"))
    return Store(path)


def maker(store: Store, size: int, **options: Any) -> BatchMaker:
    return BatchMaker(store, np.arange(len(store)), BatchStream(len(store), size, 3), (), (), 7, **options)


def edges(micro: Micro) -> int:
    """Edges that the encoder has when no distance is beyond its cutoff."""
    edges = micro.batch.with_edges(1e3).edges
    assert edges is not None
    return len(edges)


def test_a_batch_keeps_its_molecules_and_epochs_and_its_memory_is_bounded(mixed: Store) -> None:
    budget = 4500
    for step in range(6):  # the fourth one ends in another epoch
        (whole,) = maker(mixed, 24)(step)
        micros = maker(mixed, 24, edge_budget=budget)(step)
        found = [pair for micro in micros for pair in zip(micro.batch.row, micro.key.epoch, strict=True)]
        wanted = zip(whole.batch.row, whole.key.epoch, strict=True)
        assert sorted((int(row), int(epoch)) for row, epoch in found) == sorted(
            (int(row), int(epoch)) for row, epoch in wanted
        )
        assert max(map(edges, micros)) <= budget
        assert len(micros) <= edges(whole) // budget + 2
        # eight molecules each, as accumulation cuts them, can be over it
    assert max(edges(micro) for step in range(6) for micro in maker(mixed, 24, accumulation=3)(step)) > budget


def test_a_budget_that_holds_the_batch_changes_nothing(mixed: Store) -> None:
    (whole,), (same,) = maker(mixed, 24)(2), maker(mixed, 24, edge_budget=10**6)(2)
    assert torch.equal(whole.batch.row, same.batch.row)
    assert torch.equal(whole.batch.positions, same.batch.positions)


def test_ranks_have_about_equally_many_edges(mixed: Store) -> None:
    by_edges, by_molecules = [], []
    for step in range(6):
        shares = [maker(mixed, 24, edge_budget=4500, world=2, rank=rank)(step) for rank in (0, 1)]
        assert len(shares[0]) == len(shares[1])  # a pass on one rank waits for that of the other
        rows = torch.cat([micro.batch.row for share in shares for micro in share])
        assert sorted(rows.tolist()) == sorted(maker(mixed, 24)(step)[0].batch.row.tolist())
        by_edges.append([sum(map(edges, share)) for share in shares])
        by_molecules.append([edges(maker(mixed, 24, world=2, rank=rank)(step)[0]) for rank in (0, 1)])

    def excess(loads: list[list[int]]) -> float:
        """Edges of the busier rank over the mean, of all steps together."""
        return float(np.max(loads, axis=1).sum() / np.mean(loads, axis=1).sum())

    assert excess(by_edges) < 1.15 < excess(by_molecules)


BUDGET = 150
"""Of the tiny store, with 4 to 64 edges a molecule: a few micro-batches for seven molecules."""


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch norms as in evaluation: their batch statistics are of a micro-batch by definition."""
    monkeypatch.setattr(PresentBatchNorm, "train", lambda self, mode=True: torch.nn.Module.train(self, False))


def validation_of(config: Any, run: Path) -> list[dict[str, float]]:
    """All validations of a run."""
    values: list[dict[str, float]] = []
    validate = Trainer.validate

    def noted(self: Trainer) -> dict[str, float]:
        values.append(validate(self))
        return values[-1]

    with mock.patch.object(Trainer, "validate", noted):
        (finetune if hasattr(config, "target") else pretrain)(config, run, show=False)
    return values


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize("kind", ["stage2", "gap"])
def test_validation_is_the_same_within_the_budget(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Also the contrast of a validation, whose negatives are all molecules of its batch."""
    changes: dict[str, Any] = {"forces": True} if kind == "gap" else {}
    config = request.getfixturevalue(kind)(loop__precision="64-true", loop__steps=2, **changes)
    seen: list[int] = []
    losses = Trainer._losses

    def counted(self: Trainer, micro: Micro, *rest: Any) -> Any:
        seen.append(edges(micro))
        return losses(self, micro, *rest)

    whole = validation_of(config, tmp_path / "whole")
    with mock.patch.object(Trainer, "_losses", counted):
        parts = validation_of(replace(config, loop=replace(config.loop, edge_budget=BUDGET)), tmp_path / "x")
    assert max(seen) <= BUDGET
    assert len(whole) == len(parts) == 1
    assert parts[0] == pytest.approx(whole[0], rel=1e-6)  # validation adds up float32 sums


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_cut_off_ends_like_one_that_was_not(
    stage2: Make, tmp_path: Path, cut_before_step_3: Make, workers: int
) -> None:
    config = stage2(loop__steps=6, loop__edge_budget=BUDGET, data__workers=workers)
    pretrain(config, tmp_path / "whole", show=False)
    with cut_before_step_3():
        pretrain(config, tmp_path / "cut", show=False)
    pretrain(config, tmp_path / "cut", resume=True, show=False)
    one, other = (
        load_file(tmp_path / run / "checkpoints" / "step-000000006" / "model.safetensors")
        for run in ("whole", "cut")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_molecules_over_the_budget_are_told_once(
    stage1: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain(stage1(loop__edge_budget=60, loop__steps=2), tmp_path / "run")
    lines = [line for line in capsys.readouterr().err.splitlines() if "edge_budget" in line]
    assert len(lines) == 1
    assert "training rows have more edges than the loop.edge_budget of 60 (row " in lines[0]
    assert lines[0].endswith("has 64) and get a micro-batch each")
    pretrain(stage1(loop__edge_budget=64, loop__steps=2), tmp_path / "other")
    assert "edge_budget" not in capsys.readouterr().err


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SettingError, match=r"edge_budget must be 0 \(none\) or more edges, not -1"):
        LoopConfig(edge_budget=-1)
    with pytest.raises(SettingError, match=r"on 2 devices loop\.batch_size must be a multiple of 2, not 63"):
        LoopConfig(edge_budget=100, batch_size=63, devices=2)
