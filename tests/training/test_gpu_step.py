"""A training step never waits for the GPU: a pretended one by its operations, a real one as CUDA says."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pretend_gpu import DEVICE, PretendGpu, to_gpu

from molspectra.compiled import use
from molspectra.models.shared import EGNNConfig
from molspectra.training.loop import Trainer
from molspectra.training.run import _new_model, _new_stage, _select, new_trainer

STEPS = {"loop__steps": 9, "loop__log_every": 9, "loop__validate_every": 0, "loop__save_every": 0}
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "stage 1": ("stage1", {}, 0),
    "EGNN": ("stage1", {"model__encoder": EGNNConfig(channels=8, layers=1)}, 0),
    "running statistics": ("stage1", {"denoising__normalise": "running", "denoising__centred": True}, 0),
    "average, clipping": ("stage1", {"optimizer__ema": 0.9, "optimizer__clip": 1.0}, 0),
    "stage 2": ("stage2", {}, 0),
    "stage 2, other masks": ("stage2", {"reconstruction__mask": "block", "alignment__masked": True}, 0),
    "stage 2, micro-batches": ("stage2", {"loop__accumulation": 2}, 0),
    "spectra from structures": ("stage2", {"model__spectrum_head": True, "weights__spectrum": 1.0}, 0),
    "fine-tuning": ("gap", {}, 0),
    "pooled": ("gap", {"model__readout": "pooled"}, 0),
    "forces": ("gap", {"forces": True}, 0),
    "noisy nodes": ("gap", {"denoising_weight": 0.1}, 0),
    # edges beyond this cutoff would count, so the neighbour list is asked for, once per pass of the encoder
    "published cutoff": ("stage1", {"model__encoder__vector_cutoff": False}, 1),
}
"""Settings with the waits that a step may have."""


class Event:
    """In place of `torch.cuda.Event`: here a copy is done when it returns."""

    def record(self) -> None:
        """Nothing is queued."""

    def synchronize(self) -> None:
        """Nothing is awaited."""


def trainer_on(device: torch.device, config: Any) -> Trainer:
    fabric: Any = SimpleNamespace(device=device, world_size=1, global_rank=0, autocast=nullcontext)
    selection = _select(config)
    stage = _new_stage(config, _new_model(config), selection)
    if device == DEVICE and not torch.cuda.is_available():
        to_gpu(stage)
        stage.to = lambda device: stage
    return new_trainer(config, fabric, stage, selection, Path("unused"), {}, False)


def steps(trainer: Trainer, first: int, last: int) -> None:
    for number in range(first, last):
        trainer._update(trainer.maker(number))
        trainer.step += 1


@pytest.mark.parametrize("case", CASES)
def test_a_step_waits_as_often_as_allowed_and_gives_what_a_cpu_gives(
    case: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.Event", Event)
    kind, changes, allowed = CASES[case]
    config = request.getfixturevalue(kind)(**STEPS, **changes)
    with use("plain"):
        expected = trainer_on(torch.device("cpu"), config)
        steps(expected, 0, 3)
        with PretendGpu() as gpu:
            trainer = trainer_on(DEVICE, config)
            steps(trainer, 0, 1)
            gpu.waits.clear()  # constants are copied in the first step
            steps(trainer, 1, 3)
            waits = dict(gpu.waits)
            assert len(trainer.pending) == 1  # the last step's numbers are not read yet
            values = trainer._finish_steps()
    assert sum(waits.values()) == 2 * allowed, waits
    assert values == pytest.approx(expected.last_values, rel=1e-4)


def test_waits_are_noticed() -> None:
    waits: dict[str, Callable[[torch.Tensor], Any]] = {
        "_local_scalar_dense": lambda values: float(values.sum()),
        "nonzero": lambda values: values.nonzero(),
        "index": lambda values: values[values > 0],
        "_linalg_eigh": lambda values: torch.linalg.eigh(values[:, :3]),
        "_to_copy": lambda values: values.cpu(),
        "repeat_interleave": lambda values: torch.arange(3, device=DEVICE).repeat_interleave(
            torch.ones(3, dtype=torch.int64, device=DEVICE)
        ),
    }
    with PretendGpu() as gpu:
        values = torch.randn(3, 4).to(DEVICE)
        assert set(gpu.waits) == {"_to_copy at elsewhere"}  # not pinned
        for name, wait in waits.items():
            gpu.waits.clear()
            wait(values)
            assert f"{name} at elsewhere" in gpu.waits
        gpu.waits.clear()
        assert (values * torch.tensor(2.0)).is_cuda
        torch.randn(3).pin_memory().to(DEVICE, non_blocking=True)
        assert not gpu.waits
        with pytest.raises(AssertionError, match="mixes devices"):
            values + torch.ones(3, 4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("case", [case for case, (_, _, allowed) in CASES.items() if not allowed])
def test_cuda_itself_sees_no_wait(case: str, request: pytest.FixtureRequest) -> None:
    kind, changes, _ = CASES[case]
    trainer = trainer_on(DEVICE, request.getfixturevalue(kind)(**STEPS, **changes))
    steps(trainer, 0, 2)
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer._start_step(trainer.maker(2))
    finally:
        torch.cuda.set_sync_debug_mode("default")
