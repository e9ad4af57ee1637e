"""The training loop: fetch a step's micro-batches, losses, backward, step; now and then validate and save."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from torch import Tensor

from molspectra.data.batch import to_device
from molspectra.data.loader import batches
from molspectra.errors import DamagedError, ElementError, MismatchError
from molspectra.models.shared import gathering
from molspectra.objectives.loss import Loss
from molspectra.objectives.supervised import auroc
from molspectra.training.average import WeightAverage
from molspectra.training.checkpoint import (
    check,
    first_good,
    read_resume,
    remove_checkpoint,
    save_checkpoint,
    saved,
    step_of,
)
from molspectra.training.config import LoopConfig, OptimizerConfig
from molspectra.training.data import BatchMaker, Micro, Rows, in_order
from molspectra.training.interrupt import Interrupted, stop_requests
from molspectra.training.nonfinite import NonFiniteError, non_finite_error
from molspectra.training.progress import progress
from molspectra.training.ranks import Gather, Negatives, Ranks, StepNegatives
from molspectra.training.rates import freeze, rate_groups
from molspectra.training.record import MetricLog
from molspectra.training.schedule import Plateau, learning_rate
from molspectra.training.stages import Stage, auroc_of, error_of


class PendingValues:
    """Numbers that are being copied to the host while the device goes on with the next step.

    Args:
        values: [n] on any device; on a GPU the copy is queued there and nothing waits for it here.
    """

    def __init__(self, values: Tensor) -> None:
        self._values, self._copied = values, None
        if values.device.type == "cuda":
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def read(self) -> list[float]:
        """Wait for the copy and return the numbers."""
        if self._copied is not None:
            self._copied.synchronize()
        values: list[float] = self._values.tolist()
        return values


@dataclass(frozen=True)
class PendingStep:
    """A step that the device was told to do, with what is needed once its numbers are there."""

    step: int
    """Its number, from 1."""
    micros: list[Micro]
    """Its micro-batches, to name molecules whose losses are not finite."""
    values: PendingValues
    """Sums of the losses, then the gradient's norm."""
    counts: dict[str, float]
    """Items of the losses."""
    learning_rate: float
    """Learning rate of its update."""


@dataclass
class Trainer:
    """The training loop and its state.

    A step takes the micro-batches of this rank, adds up the gradients of their sums of losses, divided by the
    number of items in the whole step over all micro-batches and ranks, adds these gradients up over the
    ranks, and lets AdamW update the weights. So a step is that of one large batch, whatever it is divided
    into. On a GPU the host never waits inside a step: losses and the norm of the gradient are copied
    asynchronously and looked at one step later, or at once where they are logged, validated or saved. The
    device itself checks whether they are finite, and from the first step in which they are not it skips
    all updates (as a gradient scaler does), so that the host may find out late and nothing is lost.
    """

    fabric: Fabric
    """Device, precision and processes; launched."""
    stage: Stage
    """The model with its objectives."""
    maker: BatchMaker
    """The training batches."""
    validation: Rows
    """Rows to validate on."""
    loop: LoopConfig
    """Settings of the loop."""
    adam: OptimizerConfig
    """Settings of the optimizer."""
    directory: Path
    """The run directory."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What every checkpoint says about itself."""
    workers: int = 0
    """Processes that prepare batches."""
    show: bool = True
    """Show progress."""
    run_id: str | None = None
    """Identity of the run, for the manifests of its checkpoints."""

    def __post_init__(self) -> None:
        """Set up ranks, device, optimizer and the weight average."""
        self.ranks = Ranks(self.fabric)
        self.precision = torch.float64 if self.loop.precision == "64-true" else torch.float32
        self.stage.to(self.fabric.device)
        if self.precision == torch.float64:
            self.stage.double()
        model = self.stage.model
        if self.loop.compile:
            model.compile_passes()
        freeze(model.named_parameters(), model.config.encoder.layers, self.adam)
        groups = rate_groups(model.named_parameters(), model.config.encoder.layers, self.adam)
        self.rates = list(groups)
        self.optimizer = torch.optim.AdamW(
            [{"params": weights} for weights in groups.values()],
            lr=self.adam.learning_rate,
            weight_decay=self.adam.weight_decay,
            fused=True,
        )
        self.failed = torch.zeros((), device=self.fabric.device)
        self.pending: deque[PendingStep] = deque()
        self.max_pending = int(self.fabric.device.type == "cuda")
        self.last_values: dict[str, float] = {}
        self.average = WeightAverage(self.stage.model, self.adam.ema) if self.adam.ema else None
        self.checkpoints = self.directory / "checkpoints"
        self.step, self.best, self.plateau = 0, math.inf, Plateau()
        self.waited = 0  # validations since the best one

    def has_waited(self) -> bool:
        """Whether the validation loss has not fallen for as long as the patience lasts."""
        return 0 < self.loop.patience <= self.waited

    def weights(self) -> dict[str, int]:
        """Count the weights of the model that are trained and those that are frozen."""
        counts = {"trained": 0, "frozen": 0}
        for weight in self.stage.model.parameters():
            counts["trained" if weight.requires_grad else "frozen"] += weight.numel()
        return counts

    def run(self, log: MetricLog | None = None) -> dict[str, float]:
        """Train from `self.step` to the end; return the last validation's losses, none if there was no step.

        Args:
            log: where metrics go; None on all ranks but the first.

        Raises:
            NonFiniteError: a loss or gradient is not finite; the last checkpoint is untouched.
            Interrupted: Ctrl-C, SIGTERM or SIGUSR1 came; the state was saved.
            InputError: a batch cannot be read, or a checkpoint cannot be written.
        """
        steps, metrics = self.loop.steps, dict[str, float]()
        if self.has_waited():  # killed after its last save
            return metrics
        title = str(self.about.get("stage", "training"))
        source = closing(batches(self.maker, self.step, steps, workers=self.workers))
        bar = progress(title, steps, self.step, self.show and self.ranks.rank == 0)
        with stop_requests(alone=self.ranks.world == 1) as stop, bar as advance, source as steps_ahead:
            for micros in steps_ahead:
                values = self._update(micros)
                self.step += 1
                stopping = self.ranks.any(stop.is_set())
                if log and _due(self.step, self.loop.log_every, steps):
                    log.write(self.step, {f"train/{name}": value for name, value in values.items()})
                if _due(self.step, self.loop.validate_every, steps):
                    metrics = self.validate()
                    if log:
                        log.write(self.step, {f"val/{name}": value for name, value in metrics.items()})
                    self._judge(metrics["loss"])
                is_over = self.has_waited()
                if stopping or is_over or _due(self.step, self.loop.save_every, steps):
                    self._finish_steps()
                    self.save()
                advance(self.step, f"loss {values.get('loss', math.nan):.4g}{self._errors(metrics)}")
                if is_over:
                    break
                if stopping and self.step < steps:
                    reached = f"stopped at step {self.step} of {steps}"
                    interrupted = Interrupted(f"{reached}, the state is saved; continue with --resume")
                    interrupted.is_said = self.ranks.rank > 0
                    raise interrupted
        return metrics

    def _update(self, micros: list[Micro]) -> dict[str, float]:
        """Do one optimizer step.

        Returns:
            Mean losses, gradient norm and learning rate: of this step on a CPU and where they are logged,
            validated or saved; else, on a GPU, of the step before.
        """
        self.pending.append(self._start_step(micros))
        loop = self.loop
        periods = loop.log_every, loop.validate_every, loop.save_every
        is_needed = any(_due(self.step + 1, every, loop.steps) for every in periods)
        return self._finish_steps(0 if is_needed else self.max_pending)

    def _start_step(self, micros: list[Micro]) -> PendingStep:
        """Queue forward and backward passes and the update on the device."""
        counts = self._counts(micros)
        sums = self._backward(micros, counts)
        norm = self._gradient_norm()
        values = torch.cat([sums, norm.to(sums)[None]])
        self.failed = torch.maximum(self.failed, (~values.isfinite().all()).float())
        learning_rate = self._step_optimizer(norm)
        return PendingStep(self.step + 1, micros, PendingValues(values), counts, learning_rate)

    def _step_optimizer(self, gradient_norm: Tensor) -> float:
        """Clip the gradients, set and return the learning rate, update the weights and their average."""
        adam = self.adam
        if adam.clip:
            torch.nn.utils.clip_grads_with_norm_(self.stage.parameters(), adam.clip, gradient_norm)
        reductions = self.plateau.reductions
        rate = learning_rate(adam.schedule, adam.learning_rate, self.step, self.loop.steps, reductions)
        for group, part in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = part.at(self.step, rate)
        self.optimizer.found_inf = self.failed  # type: ignore[attr-defined]  # as torch's GradScaler does
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.stage.model, self.step)
        return rate

    def _finish_steps(self, max_pending: int = 0) -> dict[str, float]:
        """Wait for all steps but the last `max_pending`; return the values of the last finished one."""
        while len(self.pending) > max_pending:
            self.last_values = self._finish_step(self.pending.popleft())
        return self.last_values

    def _finish_step(self, step: PendingStep) -> dict[str, float]:
        """Return mean losses, gradient norm and learning rate of a step."""
        *sums, norm = step.values.read()
        weights = self.stage.weights()
        means = {name: total / step.counts[name] for name, total in zip(weights, sums, strict=True)}
        for name, value in (*means.items(), ("gradient", norm)):
            if not math.isfinite(value):
                self.failed.zero_()
                self.pending.clear()
                raise self._non_finite(f"the {name} is not finite in step {step.step}", step.micros)
        means = self.stage.smoothed(means)
        loss = sum(weight * means[name] for name, weight in weights.items())
        return {"loss": loss, **means, "gradient_norm": norm, "learning_rate": step.learning_rate}

    def _backward(self, micros: list[Micro], counts: Mapping[str, float]) -> Tensor:
        """Compute the gradients of the whole step, equal on all ranks.

        Returns:
            [losses] sums of the losses over all micro-batches and ranks, in the order of the weights.
        """
        weights = self.stage.gradient_weights()
        sums = torch.zeros(len(weights), dtype=self.precision, device=self.fabric.device)
        zero = sums.new_zeros(())
        is_single = self.ranks.world == 1
        micros = [self._on_device(micro) for micro in micros]
        self.stage.train()
        self.optimizer.zero_grad(set_to_none=True)
        with gathering(self.stage, None if is_single else self.ranks.each):
            self.stage.observe((micro.batch, micro.key) for micro in micros)
            negatives = self._negatives(micros, None if is_single else self.ranks.gather)
            for micro in micros:
                losses = self._losses(micro, negatives)
                parts = [losses[name].sum if name in losses else zero for name in weights]
                factors = [weight / counts[name] for name, weight in weights.items()]
                scaled = [part * factor for part, factor in zip(parts, factors, strict=True)]
                total = torch.stack(scaled).sum()
                if total.requires_grad:  # a micro-batch may have no spectra, and nothing but spectra to learn
                    total.backward()
                sums += torch.stack(parts).detach()
        self.ranks.add_gradients(self.stage.parameters())
        return self.ranks.summed(sums)

    def _counts(self, micros: Iterable[Micro]) -> dict[str, float]:
        """Count the items of every loss over all micro-batches and ranks; 1 where there are none."""
        names = list(self.stage.weights())
        per_micro = [self.stage.counts(micro.batch) for micro in micros]
        counts = torch.tensor([[count[name] for name in names] for count in per_micro], dtype=torch.float64)
        return dict(zip(names, self.ranks.total(counts.sum(0)).clamp(min=1.0).tolist(), strict=True))

    def _gradient_norm(self) -> Tensor:
        """Return the norm [] of all gradients together."""
        gradients = [weight.grad for weight in self.stage.parameters() if weight.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def _negatives(self, micros: list[Micro], gather: Gather | None) -> Negatives:
        """Collect the negatives of the contrastive loss; several micro-batches need a pass of their own."""
        if len(micros) == 1 or not self.stage.gradient_weights().get("alignment"):
            return Negatives(gather)
        negatives = StepNegatives(gather)
        before = [buffer.clone() for buffer in self.stage.buffers()]
        with torch.no_grad():
            for micro in micros:
                self._losses(micro, negatives)
            for buffer, value in zip(self.stage.buffers(), before, strict=True):
                buffer.copy_(value)  # running statistics are updated by the other pass
        with self.fabric.autocast():
            negatives.finish()
        return negatives

    def _losses(self, micro: Micro, negatives: Negatives | None = None) -> dict[str, Loss]:
        """Losses of a micro-batch; without `negatives` it is contrasted within itself."""
        with self.fabric.autocast():
            losses: dict[str, Loss] = self.stage(micro.batch, micro.key, negatives)
        return losses

    def _on_device(self, micro: Micro) -> Micro:
        """Return a micro-batch on the device and in the precision of the run."""
        batch, limit = micro.batch, self.stage.model.config.encoder.max_number
        if int(batch.numbers.max()) > limit:
            row = int(batch.row[batch.molecule[batch.numbers.argmax()]])
            element = f"atomic number {int(batch.numbers.max())} is above model.encoder.max_number {limit}"
            raise ElementError(f"{self.maker.store.path}, row {row}: {element}")
        epoch = to_device(micro.key.epoch, self.fabric.device)
        return Micro(batch.to(self.fabric.device, self.precision), micro.key._replace(epoch=epoch))

    def _errors(self, metrics: Mapping[str, float]) -> str:
        """The errors of the last validation, for people."""
        named = [(name, metrics.get(error_of(name)), unit) for name, unit in self.stage.units.items()]
        told = [f", {name} MAE {error:.3g} {unit}" for name, error, unit in named if error is not None]
        areas = [(name, metrics.get(auroc_of(name))) for name in self.stage.classes]
        return "".join([*told, *(f", {name} AUROC {area:.3g}" for name, area in areas if area is not None)])

    def validate(self) -> dict[str, float]:
        """Mean losses over the validation rows with fixed noise and the weights that would be saved.

        With them come the mean absolute errors of the labels in their units (`error_of`), and of classes
        the AUROC (`auroc_of`) where there are labels of both.

        Raises:
            NonFiniteError: a loss is not finite.
        """
        weights = self.stage.weights()
        names = [*weights, *map(error_of, self.stage.units)]
        totals = torch.zeros(2, len(names), dtype=torch.float64)  # sums and counts
        logits = torch.zeros(len(self.validation), len(self.stage.classes), dtype=torch.float64)
        self.stage.eval()
        with self._averaged(), torch.no_grad():
            for batch in self._validation_batches():
                micros = [self._on_device(micro) for micro in batch]
                negatives = self._negatives(micros, None)
                for micro in micros:
                    losses = self._losses(micro, negatives)
                    for column, name in enumerate(names):
                        if name in losses:
                            totals[:, column] += torch.tensor(
                                [*map(float, (losses[name].sum, losses[name].count))]
                            )
                    if self.stage.logits is not None:  # each rank fills in its own rows
                        places = np.searchsorted(self.validation, micro.batch.row.cpu().numpy())
                        logits[places] = self.stage.logits.cpu().double()
            sums, counts = self.ranks.total(totals).tolist()
            if not all(map(math.isfinite, sums)):
                what = f"the validation loss is not finite after step {self.step}"
                raise self._non_finite(what, chain.from_iterable(self._validation_batches()))
        means = {name: total / count for name, total, count in zip(names, sums, counts, strict=True) if count}
        loss = sum(weights[name] * means[name] for name in weights if name in means)
        areas = self._areas(self.ranks.total(logits).numpy()) if self.stage.classes else {}
        return {"loss": loss, **means, **areas}

    def _areas(self, logits: npt.NDArray[np.float64]) -> dict[str, float]:
        """AUROC of every class that has labels of both, from the logits [rows, classes] of the validation."""
        areas = {}
        for name, scores in zip(self.stage.classes, logits.T, strict=True):
            labels = self.maker.store.column(name)[self.validation]
            known = ~np.isnan(labels)
            areas[auroc_of(name)] = auroc(scores[known], labels[known])
        return {name: area for name, area in areas.items() if not math.isnan(area)}

    def _validation_batches(self) -> Iterator[list[Micro]]:
        """This rank's share of the validation batches, the same for any number of ranks, in micro-batches."""
        rows, size, stage = self.validation, self.loop.batch_size, self.stage
        for start in range(0, len(rows), size)[self.ranks.rank :: self.ranks.world]:
            chosen = rows[start : start + size]
            parts = [chosen[part.numpy()] for part in self.maker.within_budget(chosen)]
            yield [
                micro
                for part in parts
                for micro in in_order(self.maker.store, part, size, stage.modalities, stage.targets)
            ]

    def _averaged(self) -> AbstractContextManager[None]:
        return nullcontext() if self.average is None else self.average.applied(self.stage.model)

    def _non_finite(self, what: str, micros: Iterable[Micro]) -> NonFiniteError:
        """Return the error for losses that are not finite; all ranks must call this."""
        return non_finite_error(what, micros, self._is_finite, self.maker.store, self.ranks)

    def _is_finite(self, row: int, epoch: Tensor) -> bool:
        """Whether the losses of one molecule, and in training their gradients, are finite numbers."""
        self.optimizer.zero_grad(set_to_none=True)
        losses = self._losses(self._on_device(self.maker.micro(np.array([row]), epoch[None]))).values()
        total = torch.stack([loss.sum for loss in losses]).sum()
        if total.requires_grad:
            total.backward()
        return bool(total.isfinite() & self._gradient_norm().isfinite())

    def _judge(self, loss: float) -> None:
        """Save the weights if no validation before was better, and take the loss into the state.

        A validation that is due only because the run ends has no part in the state, and the best checkpoint
        from before is kept beside its own: a run that is extended goes on as if it had not been.
        """
        is_better, is_regular = loss < self.best, self._is_regular(self.step)
        if is_better:
            self._save("best", {"validation_loss": loss}, None, keep=1 if is_regular else 2)
        if is_regular:
            self.best = min(loss, self.best)
            self.waited = 0 if is_better else self.waited + 1
            self.plateau = self.plateau.after(loss, self.adam.schedule)

    def _is_regular(self, step: int) -> bool:
        """Whether a validation is due after a step, wherever the run ends."""
        return self.loop.validate_every > 0 and step % self.loop.validate_every == 0

    def save(self) -> None:
        """Write a checkpoint from which the run continues bit for bit.

        Raises:
            InputError: it cannot be written.
        """
        resume = {
            "step": self.step,
            "best": self.best,
            "waited": self.waited,
            "plateau": tuple(self.plateau),
            # copied, because the averaged weights are about to be put in their place
            "stage": {name: value.clone() for name, value in self.stage.state_dict().items()},
            "optimizer": self.optimizer.state_dict(),
            "average": {} if self.average is None else self.average.state_dict(),
        }
        self._save("step", {}, resume, keep=self.loop.keep)

    def _save(self, kind: str, more: Mapping[str, Any], resume: Mapping[str, Any] | None, keep: int) -> None:
        if self.ranks.rank == 0:
            about = {**self.about, "step": self.step, **more}
            with self._averaged():
                save_checkpoint(
                    self.checkpoints,
                    kind,
                    self.step,
                    self.stage.model,
                    about,
                    resume,
                    run=self.run_id,
                    keep=keep,
                )
        self.ranks.wait()  # a rank that ends early would take the writing one with it

    def resume(self) -> bool:
        """Load the newest checkpoint that is in order; return False where there is none at all.

        Raises:
            InputError: every one is damaged, or not of this run.
        """
        checkpoints = saved(self.checkpoints)
        if checkpoints:
            first_good(checkpoints, self._load, say=self.ranks.rank == 0)
            self._forget_earlier_end()
        return bool(checkpoints)

    def _forget_earlier_end(self) -> None:
        """Remove the best checkpoint of a validation that was due only as the run was to end there before."""
        best = saved(self.checkpoints, "best")
        step = step_of(best[0]) if len(best) > 1 else None
        if step is not None and step != self.loop.steps and not self._is_regular(step):
            self.ranks.wait()  # until all have looked
            if self.ranks.rank == 0:
                remove_checkpoint(best[0])

    def _load(self, directory: Path) -> None:
        """Take over the state in a checkpoint.

        Raises:
            InputError: it is damaged, or not of this run.
        """
        check(directory)
        state = read_resume(directory)
        try:
            step, best = state["step"], float(state["best"])
            if type(step) is not int or step != step_of(directory) or not 0 <= step <= self.loop.steps:
                raise DamagedError(
                    f"{directory}: its step {step!r} is not that of its name, or beyond the run's "
                    f"{self.loop.steps}"
                )
            if math.isnan(best):
                raise ValueError("best is nan")
            self.stage.load_state_dict(state["stage"])
            for group in state["optimizer"]["param_groups"]:
                group["fused"] = True  # runs from before had another AdamW
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            if "plateau" in state or self.adam.schedule.kind == "plateau":  # others had none before
                plateau, bad, reductions = state["plateau"]
                self.plateau = Plateau(float(plateau), int(bad), int(reductions))
            self.step, self.best = step, best
            self.waited = int(state.get("waited", 0))  # runs from before had no patience
        except (KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
            what = f"{type(error).__name__} {error}".splitlines()[0]
            raise MismatchError(
                f"{directory}: not a state that this run can continue from ({what})"
            ) from error


def _due(step: int, every: int, last: int) -> bool:
    return step == last or (every > 0 and step % every == 0)
