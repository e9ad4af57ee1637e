"""The training loop: fetch a step's micro-batches, losses, backward, step; now and then validate and save."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from molspectra.errors import InputError, MolspectraError
from molspectra.models.shared import gathering
from molspectra.objectives.loss import Loss
from molspectra.training.average import WeightAverage
from molspectra.training.checkpoint import newest, read_resume, save_checkpoint
from molspectra.training.config import LoopConfig, OptimizerConfig
from molspectra.training.contrast import Contrast, Gather, StepContrast
from molspectra.training.data import BatchMaker, Micro, Rows, in_order, prepared
from molspectra.training.interrupt import Interrupted, stop_requests
from molspectra.training.progress import progress
from molspectra.training.ranks import Ranks
from molspectra.training.record import MetricLog
from molspectra.training.schedule import Plateau, learning_rate
from molspectra.training.stages import Stage


class Readout:
    """A copy of a few numbers that is under way, so that the device goes on with the next step meanwhile.

    Args:
        values: [n] on any device; on a GPU the copy waits its turn there, and nobody waits for it here.
    """

    def __init__(self, values: Tensor) -> None:
        self._values, self._arrived = values, None
        if values.device.type == "cuda":
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def read(self) -> list[float]:
        """The numbers, as soon as they are there."""
        if self._arrived is not None:
            self._arrived.synchronize()
        found: list[float] = self._values.tolist()
        return found


@dataclass(frozen=True)
class Launched:
    """A step that the device was told to do, and what has to be known of it when its numbers are there."""

    step: int
    """Its number, from 1."""
    micros: list[Micro]
    """Its molecules, to name those that are to blame."""
    numbers: Readout
    """Sums of the losses, then the gradient's norm."""
    counts: dict[str, float]
    """Items of the losses."""
    rate: float
    """Learning rate."""


NAMED = 5
"""At most this many molecules are named in an error."""


class NonFiniteError(MolspectraError):
    """A loss or gradient is not a finite number; the update was not made."""


@dataclass
class Trainer:
    """Everything that a run's loop holds on to."""

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

    def __post_init__(self) -> None:
        """Set up ranks, device, optimizer and the weight average."""
        self.ranks = Ranks(self.fabric)
        self.precision = torch.float64 if self.loop.precision == "64-true" else torch.float32
        self.stage.to(self.fabric.device)
        if self.precision == torch.float64:
            self.stage.double()
        self.optimizer = torch.optim.AdamW(
            self.stage.parameters(),
            lr=self.adam.learning_rate,
            weight_decay=self.adam.weight_decay,
            fused=True,
        )
        self.failed = torch.zeros((), device=self.fabric.device)
        self.launched: deque[Launched] = deque()
        self.ahead = int(self.fabric.device.type == "cuda")
        self.values: dict[str, float] = {}
        self.average = WeightAverage(self.stage.model, self.adam.ema) if self.adam.ema else None
        self.checkpoints = self.directory / "checkpoints"
        self.step, self.best, self.plateau = 0, math.inf, Plateau()

    def run(self, log: MetricLog | None = None) -> dict[str, float]:
        """Train from `self.step` to the end; returns the last validation's losses, none if there was no step.

        Args:
            log: where metrics go; None on all ranks but the first.

        Raises:
            NonFiniteError: a loss or gradient is not finite; the last checkpoint is untouched.
            Interrupted: Ctrl-C or SIGTERM came; the state was saved.
            InputError: a batch cannot be read, or a checkpoint cannot be written.
        """
        steps, metrics = self.loop.steps, {}
        title = str(self.about.get("stage", "training"))
        source = closing(prepared(self.maker, self.step, steps, self.workers))
        bar = progress(title, steps, self.step, self.show and self.ranks.rank == 0)
        with stop_requests() as stop, bar as advance, source as batches:
            for micros in batches:
                values = self._update(micros)
                self.step += 1
                stopping = self.ranks.any(stop.is_set())
                if log and _due(self.step, self.loop.log_every, steps):
                    log.write(self.step, {f"train/{name}": value for name, value in values.items()})
                if _due(self.step, self.loop.validate_every, steps):
                    metrics = self.validate()
                    if log:
                        log.write(self.step, {f"val/{name}": value for name, value in metrics.items()})
                    self._keep_best(metrics["loss"])
                    self.plateau = self.plateau.after(metrics["loss"], self.adam.schedule)
                if stopping or _due(self.step, self.loop.save_every, steps):
                    self._catch_up()
                    self.save()
                advance(self.step, f"loss {values.get('loss', math.nan):.4g}")
                if stopping and self.step < steps:
                    reached = f"stopped at step {self.step} of {steps}"
                    raise Interrupted(f"{reached}, the state is saved; continue with --resume")
        return metrics

    def _update(self, micros: list[Micro]) -> dict[str, float]:
        """One optimizer step; returns mean losses, gradient norm and learning rate of the last that is known.

        That is this one on a CPU, and where its numbers are needed now. Else a GPU goes on with the next step
        while they are on their way.

        Raises:
            NonFiniteError: a loss or gradient is not finite; since before that step no weight was changed.
        """
        self.launched.append(self._launch(micros))
        loop = self.loop
        periods = loop.log_every, loop.validate_every, loop.save_every
        needed = any(_due(self.step + 1, every, loop.steps) for every in periods)
        return self._catch_up(0 if needed else self.ahead)

    def _catch_up(self, ahead: int = 0) -> dict[str, float]:
        """Wait for all steps but the last `ahead`; what is known of the last one."""
        while len(self.launched) > ahead:
            self.values = self._finish(self.launched.popleft())
        return self.values

    def _launch(self, micros: list[Micro]) -> Launched:
        """Tell the device to do a step.

        Micro-batches and ranks add up sums of losses, divided by the number of items in the whole step. If a
        loss or gradient is not finite, the device itself leaves out this update and all after it.
        """
        adam, counts = self.adam, self._counts(micros)
        sums = self._backward(micros, counts)
        norm = self._gradient_norm()
        numbers = torch.cat([sums, norm.to(sums)[None]])
        self.failed = torch.maximum(self.failed, (~numbers.isfinite().all()).float())
        if adam.clip:
            torch.nn.utils.clip_grads_with_norm_(self.stage.parameters(), adam.clip, norm)
        reductions = self.plateau.reductions
        rate = learning_rate(adam.schedule, adam.learning_rate, self.step, self.loop.steps, reductions)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.found_inf = self.failed  # type: ignore[attr-defined]  # as torch's GradScaler does
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.stage.model, self.step)
        return Launched(self.step + 1, micros, Readout(numbers), counts, rate)

    def _finish(self, launched: Launched) -> dict[str, float]:
        """What is known of a step as soon as its numbers are there.

        Raises:
            NonFiniteError: they are not finite.
        """
        *sums, norm = launched.numbers.read()
        weights = self.stage.weights()
        means = {name: total / launched.counts[name] for name, total in zip(weights, sums, strict=True)}
        for what, value in (*means.items(), ("gradient", norm)):
            if not math.isfinite(value):
                self.failed.zero_()
                self.launched.clear()
                raise self._failure(f"the {what} is not finite in step {launched.step}", launched.micros)
        means = self.stage.smoothed(means)
        loss = sum(weight * means[name] for name, weight in weights.items())
        return {"loss": loss, **means, "gradient_norm": norm, "learning_rate": launched.rate}

    def _backward(self, micros: list[Micro], counts: Mapping[str, float]) -> Tensor:
        """Gradients of the whole step on every rank; returns the sums [losses] over all."""
        weights = self.stage.gradient_weights()
        sums = torch.zeros(len(weights), dtype=self.precision, device=self.fabric.device)
        alone = self.ranks.world == 1
        here = [self._here(micro) for micro in micros]
        self.stage.train()
        self.optimizer.zero_grad(set_to_none=True)
        with gathering(self.stage, None if alone else self.ranks.each):
            self.stage.observe((micro.batch, micro.key) for micro in here)
            contrast = self._contrast(here, None if alone else self.ranks.gather)
            for micro in here:
                losses = self._losses(micro, contrast)
                absent = sums.new_zeros(())
                parts = [losses[name].sum if name in losses else absent for name in weights]
                factors = [weight / counts[name] for name, weight in weights.items()]
                scaled = [part * factor for part, factor in zip(parts, factors, strict=True)]
                torch.stack(scaled).sum().backward()
                sums += torch.stack(parts).detach()
        self.ranks.add_gradients(self.stage.parameters())
        return self.ranks.summed(sums)

    def _counts(self, micros: Iterable[Micro]) -> dict[str, float]:
        """Items of every loss in a step, over all micro-batches and ranks; 1 where there are none."""
        names = list(self.stage.weights())
        each = [self.stage.counts(micro.batch) for micro in micros]
        counts = torch.tensor([[count[name] for name in names] for count in each], dtype=torch.float64)
        return dict(zip(names, self.ranks.total(counts.sum(0)).clamp(min=1.0).tolist(), strict=True))

    def _gradient_norm(self) -> Tensor:
        """[] norm of all gradients together."""
        gradients = [weight.grad for weight in self.stage.parameters() if weight.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def _contrast(self, micros: list[Micro], gather: Gather | None) -> Contrast:
        """Who is contrasted with whom in a step; for several micro-batches by a pass of its own."""
        if len(micros) == 1 or not self.stage.gradient_weights().get("alignment"):
            return Contrast(gather)
        contrast = StepContrast(gather)
        before = [buffer.clone() for buffer in self.stage.buffers()]
        with torch.no_grad():
            for micro in micros:
                self._losses(micro, contrast)
            for buffer, value in zip(self.stage.buffers(), before, strict=True):
                buffer.copy_(value)  # running statistics are fed by the other pass
        with self.fabric.autocast():
            contrast.finish()
        return contrast

    def _losses(self, micro: Micro, contrast: Contrast | None = None) -> dict[str, Loss]:
        """Losses of a micro-batch, contrasted by itself if not told otherwise."""
        with self.fabric.autocast():
            losses: dict[str, Loss] = self.stage(micro.batch, micro.key, contrast)
        return losses

    def _here(self, micro: Micro) -> Micro:
        """A micro-batch on the device and in the precision of the run.

        Raises:
            InputError: an element that the encoder does not know.
        """
        batch, limit = micro.batch, self.stage.model.config.encoder.max_number
        if int(batch.numbers.max()) > limit:
            row = int(batch.row[batch.molecule[batch.numbers.argmax()]])
            element = f"atomic number {int(batch.numbers.max())} is above model.encoder.max_number {limit}"
            raise InputError(f"{self.maker.store.path}, row {row}: {element}")
        epoch = micro.key.epoch.to(self.fabric.device)
        return Micro(batch.to(self.fabric.device, self.precision), micro.key._replace(epoch=epoch))

    def validate(self) -> dict[str, float]:
        """Mean losses over the validation rows with fixed noise and the weights that would be saved.

        Raises:
            NonFiniteError: a loss is not finite.
        """
        weights = self.stage.weights()
        table = torch.zeros(2, len(weights), dtype=torch.float64)
        self.stage.eval()
        with self._averaged(), torch.no_grad():
            for micro in map(self._here, self._validation()):
                losses = self._losses(micro)
                for place, name in enumerate(weights):
                    if name in losses:
                        table[:, place] += torch.tensor([float(losses[name].sum), losses[name].count])
            sums, counts = self.ranks.total(table).tolist()
            if not all(map(math.isfinite, sums)):
                what = f"the validation loss is not finite after step {self.step}"
                raise self._failure(what, self._validation())
        means = {
            name: total / count for name, total, count in zip(weights, sums, counts, strict=True) if count
        }
        return {"loss": sum(weights[name] * mean for name, mean in means.items()), **means}

    def _validation(self) -> Iterator[Micro]:
        """This rank's share of the validation batches, which are the same for any number of ranks."""
        rows, size, stage = self.validation, self.loop.batch_size, self.stage
        for start in range(0, len(rows), size)[self.ranks.rank :: self.ranks.world]:
            chosen = rows[start : start + size]
            yield from in_order(self.maker.store, chosen, size, stage.modalities, stage.targets)

    def _averaged(self) -> AbstractContextManager[None]:
        return nullcontext() if self.average is None else self.average.applied(self.stage.model)

    def _failure(self, what: str, micros: Iterable[Micro]) -> NonFiniteError:
        """The error for losses that are not finite, with the molecules that are to blame; on all ranks."""
        guilty = [
            (int(row), not self._is_finite(int(row), epoch))
            for micro in micros
            for row, epoch in zip(micro.batch.row, micro.key.epoch, strict=True)
        ]
        table = torch.tensor(guilty, dtype=torch.int64, device=self.fabric.device).reshape(-1, 2)
        everyone = self.ranks.gather(table)[0].tolist()
        found = sorted({row for row, is_guilty in everyone if is_guilty})
        identities = self.maker.store.identities
        names = ", ".join(f"{identities[row]} (row {row})" for row in found[:NAMED])
        if len(found) > NAMED:
            names += f" and {len(found) - NAMED} more"
        if not found or 1 < len(found) == len({row for row, _ in everyone}):  # the weights are to blame
            names = f"{'every molecule' if found else 'no molecule alone'}; try a smaller learning rate"
        return NonFiniteError(f"{what}, by {names}; the weights and checkpoints from before are untouched")

    def _is_finite(self, row: int, epoch: Tensor) -> bool:
        """Whether the losses of one molecule, and in training their gradients, are finite numbers."""
        self.optimizer.zero_grad(set_to_none=True)
        losses = self._losses(self._here(self.maker.micro(np.array([row]), epoch[None]))).values()
        total = torch.stack([loss.sum for loss in losses]).sum()
        if total.requires_grad:
            total.backward()
        return bool(total.isfinite() & self._gradient_norm().isfinite())

    def _keep_best(self, loss: float) -> None:
        """Save the weights if no validation before was better."""
        if loss < self.best:
            self.best = loss
            self._save("best", {"validation_loss": loss}, None)

    def save(self) -> None:
        """Write a checkpoint from which the run continues bit for bit.

        Raises:
            InputError: it cannot be written.
        """
        resume = {
            "step": self.step,
            "best": self.best,
            "plateau": tuple(self.plateau),
            # copied, because the averaged weights are about to be put in their place
            "stage": {name: value.clone() for name, value in self.stage.state_dict().items()},
            "optimizer": self.optimizer.state_dict(),
            "average": {} if self.average is None else self.average.state_dict(),
        }
        self._save("step", {}, resume)

    def _save(self, kind: str, more: Mapping[str, Any], resume: Mapping[str, Any] | None) -> None:
        if self.ranks.rank == 0:
            about = {**self.about, "step": self.step, **more}
            with self._averaged():
                save_checkpoint(self.checkpoints, kind, self.step, self.stage.model, about, resume)
        self.ranks.wait()  # a rank that ends early would take the writing one with it

    def resume(self) -> bool:
        """Go back to the newest complete checkpoint; False where there is none.

        Raises:
            InputError: it is damaged, or not of this run.
        """
        directory = newest(self.checkpoints)
        if directory is None:
            return False
        state = read_resume(directory)
        try:
            self.stage.load_state_dict(state["stage"])
            for group in state["optimizer"]["param_groups"]:
                group["fused"] = True  # runs from before had another AdamW
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            self.step, self.best = int(state["step"]), float(state["best"])
            if self.adam.schedule.kind == "plateau":  # others had no such state before
                best, bad, reductions = state["plateau"]
                self.plateau = Plateau(float(best), int(bad), int(reductions))
        except (KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
            what = f"{type(error).__name__} {error}".splitlines()[0]
            raise InputError(f"{directory}: not a state that this run can continue from ({what})") from error
        return True


def _due(step: int, every: int, last: int) -> bool:
    return step == last or (every > 0 and step % every == 0)
