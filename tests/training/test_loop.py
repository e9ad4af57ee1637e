"""What a step does: sums over micro-batches, averages, clipping, noise; and numbers that are not finite."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file
from torch import Tensor

from molspectra.data.batch import Batch
from molspectra.data.store.store import Store
from molspectra.errors import ElementError, MismatchError
from molspectra.models.model import MolSpectra
from molspectra.models.transformer_layer import PresentBatchNorm
from molspectra.training.average import WeightAverage
from molspectra.training.checkpoint import newest, read_resume
from molspectra.training.data import BatchMaker, Micro, Selection
from molspectra.training.loop import NonFiniteError, Trainer
from molspectra.training.record import read_metrics
from molspectra.training.run import finetune, new_trainer, pretrain
from molspectra.training.stages import FinetuneStage, PretrainStage

Make = Callable[..., Any]


def trainer_of(config: Any, directory: Path = Path("unused")) -> Trainer:
    """A trainer with a model from seed 0 that has done nothing yet."""
    fabric = Fabric(accelerator="cpu", devices=1, precision=config.loop.precision)
    fabric.launch()
    targets = (config.target, "forces") if getattr(config, "forces", False) else ()
    selection = Selection.of(config.data, targets)
    torch.manual_seed(0)
    model = MolSpectra(config.model)
    stage = PretrainStage(model, config) if not hasattr(config, "target") else FinetuneStage(model, config)
    return new_trainer(config, fabric, stage, selection, directory, {}, False)


def gradients(trainer: Trainer) -> dict[str, Tensor]:
    found = {name: weight.grad for name, weight in trainer.stage.named_parameters()}
    return {name: grad.clone() for name, grad in found.items() if grad is not None}


def without_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch norms as in evaluation: their batch statistics are of a micro-batch by definition."""
    monkeypatch.setattr(PresentBatchNorm, "train", lambda self, mode=True: torch.nn.Module.train(self, False))


@pytest.mark.parametrize("kind", ["stage2", "gap"])
def test_three_micro_batches_equal_one_batch(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_statistics(monkeypatch)
    changes: dict[str, Any] = {} if kind == "stage2" else {"forces": True}
    make = request.getfixturevalue(kind)
    results = []
    for parts in (1, 3):
        config = make(loop__accumulation=parts, loop__precision="64-true", loop__batch_size=10, **changes)
        trainer = trainer_of(config)
        micros = trainer.maker(0)
        assert [len(micro.batch) for micro in micros] == ([10] if parts == 1 else [4, 3, 3])
        results.append((trainer._update(micros), gradients(trainer)))
    (one, one_gradients), (three, three_gradients) = results
    assert three == pytest.approx(one, rel=1e-6)  # noise and spectra begin as float32
    assert one_gradients.keys() == three_gradients.keys()
    for name, gradient in one_gradients.items():
        torch.testing.assert_close(three_gradients[name], gradient, rtol=1e-6, atol=1e-9, msg=name)


@pytest.mark.parametrize(("weight", "passes"), [(1.0, 4), (0.0, 2)])
def test_only_a_contrast_over_micro_batches_takes_a_second_pass(
    stage2: Make, monkeypatch: pytest.MonkeyPatch, weight: float, passes: int
) -> None:
    trainer = trainer_of(stage2(loop__accumulation=2, weights__alignment=weight))
    forward, batches = PretrainStage.forward, []

    def counted(self: PretrainStage, batch: Batch, *more: Any) -> Any:
        batches.append(batch)
        return forward(self, batch, *more)

    monkeypatch.setattr(PretrainStage, "forward", counted)
    trainer._update(trainer.maker(0))
    assert len(batches) == passes
    encoder = trainer.stage.model.spectrum_encoder
    assert encoder is not None
    assert all(layer.attention_norm.num_batches_tracked == 2 for layer in encoder.layers)


def test_loss_is_the_weighted_sum(stage2: Make) -> None:
    trainer = trainer_of(stage2(weights__denoising=2.0, weights__reconstruction=0.5, weights__alignment=0.25))
    values = trainer._update(trainer.maker(0))
    parts = [values[f"reconstruction_{name}"] for name in ("uv_vis", "ir", "raman")]
    total = 2.0 * values["denoising"] + 0.5 * sum(parts) + 0.25 * values["alignment"]
    assert values["loss"] == pytest.approx(total)


@pytest.mark.parametrize("kind", ["stage2", "gap"])
def test_counts_are_known_before_the_pass(kind: str, request: pytest.FixtureRequest) -> None:
    changes = {"forces": True} if kind == "gap" else {}
    trainer = trainer_of(request.getfixturevalue(kind)(**changes))
    for step in range(4):
        (micro,) = trainer.maker(step)
        losses = trainer.stage.train()(micro.batch, micro.key)
        assert {name: loss.count for name, loss in losses.items()} == trainer.stage.counts(micro.batch)


def test_same_seed_same_bits_other_seed_other(stage2: Make, tmp_path: Path) -> None:
    states = []
    for run, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(len(states))  # the global generator has no say
        pretrain(stage2(loop__seed=seed, loop__steps=2), tmp_path / run, show=False)
        states.append(load_file(tmp_path / run / "checkpoints" / "step-000000002" / "model.safetensors"))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["encoder.embedding.weight"], states[2]["encoder.embedding.weight"])


def test_the_global_generator_is_left_alone(stage1: Make, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    pretrain(stage1(loop__steps=1), tmp_path / "run", show=False)
    assert torch.equal(torch.rand(3), expected)


def test_noise_depends_neither_on_the_batch_nor_on_its_order(stage1: Make) -> None:
    trainer = trainer_of(stage1())
    assert isinstance(trainer.stage, PretrainStage)
    rows, epochs = np.array([3, 8, 1]), torch.tensor([0, 2, 1])

    def noise(order: Sequence[int]) -> dict[int, Tensor]:
        micro = trainer.maker.micro(rows[list(order)], epochs[list(order)])
        assert isinstance(trainer.stage, PretrainStage)
        target = trainer.stage.denoising.perturb(micro.batch, micro.key).target
        return dict(zip(micro.batch.row.tolist(), target.split(micro.batch.ptr.diff().tolist()), strict=True))

    together, turned, alone = noise([0, 1, 2]), noise([2, 0, 1]), noise([1])
    assert all(torch.equal(together[row], turned[row]) for row in (1, 3, 8))
    assert torch.equal(alone[8], together[8])


@pytest.mark.parametrize("kind", ["stage1", "gap"])
def test_training_reduces_the_loss(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    config = request.getfixturevalue(kind)(
        loop__steps=40,
        loop__validate_every=1,
        loop__save_every=0,
        optimizer__learning_rate=5e-3,
        optimizer__schedule__warmup=5,
        optimizer__clip=5.0,
    )
    start = finetune if kind == "gap" else pretrain
    directory = start(config, tmp_path / "run", show=False).directory
    losses = [value for _, name, value, _ in read_metrics(directory / "metrics.csv") if name == "val/loss"]
    assert len(losses) == 40
    best = newest(directory / "checkpoints", "best")
    assert best is not None
    assert int(best.name[-9:]) == 1 + losses.index(min(losses))
    assert np.mean(losses[-5:]) < (0.5 if kind == "gap" else 0.97) * losses[0]


def test_the_average_by_hand() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    weights = [1.0, 2.0, 4.0]
    with torch.no_grad():
        model.weight.fill_(0.0)
        average = WeightAverage(model, decay=0.15)
        expected = 0.0
        for step, weight in enumerate(weights):
            model.weight.fill_(weight)
            average.update(model, step)
            decay = min(0.15, (1 + step) / (10 + step))  # 0.1, 0.15, 0.15
            expected = decay * expected + (1 - decay) * weight
    assert average.values["weight"].item() == pytest.approx(expected)
    with average.applied(model):
        assert model.weight.item() == pytest.approx(expected)
    assert model.weight.item() == 4.0


def test_validation_and_weights_are_averaged_and_the_resume_state_is_not(
    stage2: Make, tmp_path: Path
) -> None:
    config = stage2(optimizer__ema=0.9, optimizer__learning_rate=0.01)
    trainer = trainer_of(config, tmp_path)
    for step in range(3):
        trainer._update(trainer.maker(step))
        trainer.step += 1
    raw = {name: value.clone() for name, value in trainer.stage.model.state_dict().items()}
    validated = trainer.validate()
    trainer.save()
    assert all(torch.equal(raw[name], value) for name, value in trainer.stage.model.state_dict().items())
    directory = newest(tmp_path / "checkpoints")
    assert directory is not None
    saved = load_file(directory / "model.safetensors")
    kept = read_resume(directory)["stage"]
    assert trainer.average is not None
    assert trainer.average.values.keys() <= saved.keys()
    for name, value in saved.items():
        assert torch.equal(kept[f"model.{name}"], raw[name])
        assert torch.equal(value, trainer.average.values.get(name, raw[name])), (
            name
        )  # buffers are not averaged
    changed = [name for name in trainer.average.values if not torch.equal(saved[name], raw[name])]
    assert len(changed) > 10
    assert any("running_mean" in name for name in saved)

    other = trainer_of(replace(config, optimizer=replace(config.optimizer, ema=0.0)), tmp_path)
    other.stage.model.load_state_dict(saved)
    assert other.validate() == validated


def test_clipping(stage1: Make) -> None:
    norms = []
    for clip in (0.0, 0.1):
        trainer = trainer_of(stage1(optimizer__clip=clip))
        reported = trainer._update(trainer.maker(0))["gradient_norm"]
        norm = torch.nn.utils.get_total_norm(list(gradients(trainer).values()))
        norms.append((reported, float(norm)))
    assert norms[0][0] == pytest.approx(norms[0][1])
    assert norms[1] == (norms[0][0], pytest.approx(0.1, rel=1e-4))


@pytest.mark.parametrize("parts", [1, 2])
def test_smoothing_is_once_per_step(gap: Make, parts: int) -> None:
    """α·loss + (1 - α)·previous; the gradient is α times the loss's, whatever the accumulation."""
    plain = trainer_of(gap(loop__accumulation=parts, denoising_weight=0.0))
    smooth = trainer_of(gap(loop__accumulation=parts, denoising_weight=0.0, energy_smoothing=0.25))
    for trainer in (plain, smooth):
        trainer.optimizer.step = lambda: None  # type: ignore[assignment,method-assign]
    first, first_smooth = plain._update(plain.maker(0)), smooth._update(smooth.maker(0))
    assert first_smooth["gap"] == pytest.approx(first["gap"])
    assert first_smooth["gradient_norm"] == pytest.approx(0.25 * first["gradient_norm"])
    second, second_smooth = plain._update(plain.maker(1)), smooth._update(smooth.maker(1))
    assert second["gap"] != pytest.approx(first["gap"], rel=1e-3)
    assert second_smooth["gap"] == pytest.approx(0.25 * second["gap"] + 0.75 * first["gap"])
    assert second_smooth["gradient_norm"] == pytest.approx(0.25 * second["gradient_norm"])


def spoil(monkeypatch: pytest.MonkeyPatch, bad: int, change: Callable[[Batch, Tensor], None]) -> None:
    """Let the store hand out a row with `change(batch, its atoms)` applied."""
    read = Store.batch

    def batch(self: Store, rows: Any, **options: Any) -> Batch:
        made = read(self, rows, **options)
        if (made.row == bad).any():
            change(made, (made.row == bad)[made.molecule])
        return made

    monkeypatch.setattr(Store, "batch", batch)


def nan_spectrum(batch: Batch, atoms: Tensor) -> None:
    if "ir" in batch.spectra:  # a run also reads structures alone, to learn which elements there are
        batch.spectra["ir"][batch.molecule[atoms][0], 100] = torch.nan


def nan_position(batch: Batch, atoms: Tensor) -> None:
    batch.positions[atoms.nonzero()[0]] = torch.nan


@pytest.mark.parametrize("change", [nan_spectrum, nan_position])
def test_a_bad_molecule_is_named_and_nothing_is_updated(
    stage2: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    config = stage2(loop__save_every=1)
    maker = trainer_of(config).maker
    seen = [set(maker(step)[0].batch.row.tolist()) for step in range(3)]
    has_ir = Store(config.data.store).has("ir")
    bad = next(row for row in sorted(seen[2] - seen[0] - seen[1]) if has_ir[row])
    spoil(monkeypatch, bad, change)
    run = tmp_path / "run"
    with pytest.raises(NonFiniteError) as caught:
        pretrain(config, run, show=False)
    said = str(caught.value)
    assert "not finite in step 3" in said
    assert f"by ID{bad:04d} (row {bad});" in said
    assert "\n" not in said
    saved = newest(run / "checkpoints")
    assert saved is not None
    assert saved.name == "step-000000002"
    assert all(bool(value.isfinite().all()) for value in load_file(saved / "model.safetensors").values())
    assert not json.loads((run / "record.json").read_text())["finished"]
    monkeypatch.undo()
    assert pretrain(config, run, resume=True, show=False).metrics  # with the data mended it goes on


def test_no_weight_changes_when_a_loss_is_not_finite(stage1: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(stage1())
    micros = trainer.maker(0)
    before = {name: value.clone() for name, value in trainer.stage.named_parameters()}
    micros[0].batch.positions[0] = torch.nan
    with pytest.raises(NonFiniteError, match="no molecule alone"):
        trainer._update(micros)  # the store's own rows are sound
    assert all(torch.equal(before[name], value) for name, value in trainer.stage.named_parameters())
    for state in trainer.optimizer.state.values():
        assert not any(bool(value.any()) for value in state.values())
    trainer._update(trainer.maker(0))  # a caller may go on
    assert not all(torch.equal(before[name], value) for name, value in trainer.stage.named_parameters())


def test_a_device_ahead_of_the_host_leaves_out_a_bad_step_and_all_after_it(stage1: Make) -> None:
    config = stage1(loop__steps=9, loop__log_every=9, loop__validate_every=0, loop__save_every=0)
    usual, ahead = trainer_of(config), trainer_of(config)
    ahead.max_pending = 1  # as on a GPU

    def step(trainer: Trainer, micros: list[Micro]) -> dict[str, float]:
        values = trainer._update(micros)
        trainer.step += 1
        return values

    known = [step(usual, usual.maker(number)) for number in range(3)]
    assert [step(ahead, ahead.maker(number)) for number in range(3)] == [{}, *known[:2]]
    assert ahead._finish_steps() == known[2]
    before = {name: value.clone() for name, value in ahead.stage.named_parameters()}
    assert all(torch.equal(before[name], value) for name, value in usual.stage.named_parameters())

    bad = ahead.maker(3)
    bad[0].batch.positions[0] = torch.nan
    assert step(ahead, bad) == known[2]
    with pytest.raises(NonFiniteError, match=r"denoising .* step 4, by no molecule alone"):
        step(ahead, ahead.maker(4))
    assert all(torch.equal(before[name], value) for name, value in ahead.stage.named_parameters())
    assert all(state["step"] == 3 for state in ahead.optimizer.state.values())
    assert not ahead.pending


def test_a_bad_gradient_is_named(stage1: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss can be finite where its gradient is not."""
    trainer = trainer_of(stage1())
    micros = trainer.maker(0)
    bad = int(micros[0].batch.row[2])
    encode = MolSpectra.encode

    class Spoilt(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, values: Tensor) -> Tensor:
            return values.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient * torch.nan

    def spoilt(self: MolSpectra, batch: Batch) -> Any:
        found = encode(self, batch)
        return found._replace(vectors=Spoilt.apply(found.vectors)) if (batch.row == bad).any() else found

    monkeypatch.setattr(MolSpectra, "encode", spoilt)
    with pytest.raises(NonFiniteError, match=rf"gradient .* step 1, by ID{bad:04d} "):
        trainer._update(micros)


def test_weights_that_blow_up_are_not_blamed_on_molecules(stage1: Make) -> None:
    trainer = trainer_of(stage1())
    with torch.no_grad():
        trainer.stage.model.encoder.embedding.weight.fill_(torch.inf)
    with pytest.raises(NonFiniteError, match="every molecule"):
        trainer._update(trainer.maker(0))


def test_validation_names_bad_molecules(
    stage1: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = stage1()
    bad = int(Selection.of(config.data).val[1])
    spoil(monkeypatch, bad, nan_position)
    with pytest.raises(NonFiniteError, match=rf"validation loss .* after step 2, by ID{bad:04d} "):
        pretrain(config, tmp_path / "run", show=False)


def test_an_unknown_element_is_named(stage1: Make, tmp_path: Path) -> None:
    with pytest.raises(ElementError, match=r"row \d+: atomic number [678] .*max_number 5"):
        pretrain(stage1(model__encoder__max_number=5), tmp_path / "run", show=False)


def test_validation_is_the_same_for_any_share(stage2: Make) -> None:
    """The batches of validation, and so its contrasts, do not depend on the number of ranks."""
    trainer = trainer_of(stage2(loop__batch_size=4))
    whole = [micro.batch.row.tolist() for (micro,) in trainer._validation_batches()]
    parts = []
    for rank in (0, 1):
        trainer.ranks.world, trainer.ranks.rank = 2, rank
        parts += [micro.batch.row.tolist() for (micro,) in trainer._validation_batches()]
    assert sorted(parts) == sorted(whole)


def test_a_checkpoint_of_another_run_is_refused(stage1: Make, stage2: Make, tmp_path: Path) -> None:
    trainer = trainer_of(stage1(), tmp_path)
    trainer.save()
    with pytest.raises(MismatchError, match=r"step-000000000"):
        trainer_of(stage2(), tmp_path).resume()
    assert not trainer_of(stage2(), tmp_path / "elsewhere").resume()


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
@pytest.mark.parametrize("kind", ["stage2", "gap"])
def test_other_precisions(kind: str, precision: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"loop__steps": 2, "optimizer__learning_rate": 1e-6}  # Adam magnifies rounding
    if kind == "gap":  # forces of nearly flat molecules are no better than noise in bfloat16
        changes["forces"] = precision == "64-true"
    config = request.getfixturevalue(kind)(loop__precision=precision, **changes)
    reference = request.getfixturevalue(kind)(**changes)
    start = finetune if kind == "gap" else pretrain
    found = start(config, tmp_path / "run", show=False)
    usual = start(reference, tmp_path / "usual", show=False)
    assert found.metrics == pytest.approx(usual.metrics, rel=0.05 if precision == "bf16-mixed" else 1e-3)
    weights = load_file(tmp_path / "run" / "checkpoints" / "step-000000002" / "model.safetensors")
    wanted = torch.float64 if precision == "64-true" else torch.float32
    assert weights["encoder.embedding.weight"].dtype == wanted


def test_batches_are_a_pure_function_of_the_step(stage2: Make) -> None:
    maker: BatchMaker = trainer_of(stage2(loop__accumulation=2)).maker

    def content(micros: list[Micro]) -> list[tuple[list[int], list[int]]]:
        return [(micro.batch.row.tolist(), micro.key.epoch.tolist()) for micro in micros]

    assert content(maker(5)) == content(maker(5))
    assert content(maker(5)) != content(maker(6))
    halves = [replace(maker, world=2, rank=rank)(5) for rank in (0, 1)]
    joined = [pair for half in halves for pair in content(half)]
    rows = [[row for rows, _ in parts for row in rows] for parts in (joined, content(maker(5)))]
    assert rows[0] == rows[1]
