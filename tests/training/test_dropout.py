"""Withheld spectra in training: counts, exact resume, any number of workers, and validation without it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from molspectra.data.store.store import Store
from molspectra.data.stream import BatchStream
from molspectra.models.model import MolSpectra
from molspectra.training.config import SpectraConfig
from molspectra.training.data import BatchMaker
from molspectra.training.run import pretrain
from molspectra.training.stages import PretrainStage

Make = Callable[..., Any]
NAMES = ("uv_vis", "ir", "raman")


def maker(store: Store, dropout: float, **options: Any) -> BatchMaker:
    rows = np.arange(len(store))
    stream = BatchStream(len(rows), 16, 0)
    return BatchMaker(store, rows, stream, NAMES, (), 0, spectra=SpectraConfig(dropout=dropout), **options)


def test_the_counts_are_those_of_the_losses(store: Store, stage2: Make) -> None:
    torch.manual_seed(0)
    config = stage2()
    stage = PretrainStage(MolSpectra(config.model), config)
    (whole,), (some,) = maker(store, 0.0)(0), maker(store, 0.6)(0)
    counts, losses = stage.counts(some.batch), stage(some.batch, some.key)
    assert counts == {name: loss.count for name, loss in losses.items()}
    before = stage.counts(whole.batch)
    assert counts["alignment"] == before["alignment"]
    assert sum(counts.values()) < sum(before.values())


def test_micro_batches_and_ranks_withhold_the_same(store: Store) -> None:
    (whole,) = maker(store, 0.5)(1)
    parts = [micro for rank in range(2) for micro in maker(store, 0.5, accumulation=2, world=2, rank=rank)(1)]
    order = torch.cat([micro.batch.row for micro in parts]).argsort()
    for name in NAMES:
        present = torch.cat([micro.batch.present[name] for micro in parts])
        assert torch.equal(present[order], whole.batch.present[name][whole.batch.row.argsort()])


def last_weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / "step-000000006" / "model.safetensors")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_cut_off_ends_like_one_that_was_not(
    stage2: Make, tmp_path: Path, cut_before_step_3: Make, workers: int
) -> None:
    config = stage2(loop__steps=6, loop__accumulation=2, spectra__dropout=0.5, data__workers=workers)
    pretrain(config, tmp_path / "whole", show=False)
    with cut_before_step_3():
        pretrain(config, tmp_path / "cut", show=False)
    pretrain(config, tmp_path / "cut", resume=True, show=False)
    one, other = last_weights(tmp_path / "whole"), last_weights(tmp_path / "cut")
    assert all(torch.equal(one[name], other[name]) for name in one)
    pretrain(stage2(loop__steps=6, loop__accumulation=2), tmp_path / "without", show=False)
    without = last_weights(tmp_path / "without")
    assert any(not torch.equal(one[name], without[name]) for name in one)
