"""The training loop: fetch a step's micro-batches, losses, backward, step; now and then validate and save."""

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from molspectra.data.batch import Batch
from molspectra.data.loader import batches
from molspectra.errors import MolspectraError
from molspectra.objectives.loss import NoiseKey
from molspectra.training.average import WeightAverage
from molspectra.training.checkpoint import newest, read_resume, save_checkpoint
from molspectra.training.config import LoopConfig, OptimizerConfig
from molspectra.training.data import BatchMaker, Micro, in_order
from molspectra.training.progress import progress
from molspectra.training.ranks import Ranks
from molspectra.training.record import MetricLog
from molspectra.training.schedule import learning_rate
from molspectra.training.stages import Stage


class NonFiniteError(MolspectraError):
    """A loss or gradient is not a number; the update was not made."""


class Interrupted(MolspectraError):
    """The run was asked to stop and has saved its state."""

    interrupted = True


@dataclass
class Trainer:
    """Everything that a run's loop holds on to."""

    fabric: Any
    stage: Stage
    maker: BatchMaker
    validation: Any  # rows [n] int64
    loop: LoopConfig
    optimizer_config: OptimizerConfig
    directory: Path
    about: dict[str, Any]
    workers: int = 0
    show: bool = True

    def __post_init__(self) -> None:
        """Set up optimizer, devices and the weight average."""
        self.ranks = Ranks(self.fabric)
        optimizer = torch.optim.AdamW(
            self.stage.parameters(),
            lr=self.optimizer_config.learning_rate,
            weight_decay=self.optimizer_config.weight_decay,
        )
        self.wrapped, self.optimizer = self.fabric.setup(self.stage, optimizer)
        decay = self.optimizer_config.ema
        self.average = WeightAverage(self.stage.model, decay) if decay else None
        self.best = math.inf
        self.step = 0
        self.checkpoints = self.directory / "checkpoints"

    def run(self) -> dict[str, float]:
        """Train from `self.step` to the end; returns the last validation's metrics.

        Raises:
            NonFiniteError: a loss or gradient is not finite; the last checkpoint is untouched.
            Interrupted: Ctrl-C or SIGTERM came; the state was saved.
        """
        log = MetricLog(self.directory, self.step, self.loop.tensorboard) if self.ranks.rank == 0 else None
        name, steps, metrics = self.about.get("stage", "training"), self.loop.steps, {}
        source = batches(self.maker, self.step, steps, workers=self.workers)
        try:
            with (
                _stop_requests() as stop,
                progress(name, steps, self.step, self.show and log is not None) as advance,
            ):
                for micros in source:
                    values = self._optimizer_step(micros)
                    self.step += 1
                    if log and (self.step % self.loop.log_every == 0 or self.step == steps):
                        log.write(self.step, {f"train/{key}": value for key, value in values.items()})
                    if _due(self.step, self.loop.validate_every, steps):
                        metrics = self.validate()
                        if log:
                            log.write(self.step, {f"val/{key}": value for key, value in metrics.items()})
                        self._keep_best(metrics["loss"])
                    if stop.is_set() or _due(self.step, self.loop.save_every, steps):
                        self.save()
                    advance(self.step, f"loss {values['loss']:.4g}")
                    if stop.is_set() and self.step < steps:
                        raise Interrupted(
                            f"stopped at step {self.step} of {steps}, the state is saved; continue with --resume"
                        )
        finally:
            if log:
                log.close()
        return metrics

    def _optimizer_step(self, micros: list[Micro]) -> dict[str, float]:
        """One update from a step's micro-batches; returns the mean losses."""
        micros = [Micro(self._here(micro.batch), self._key(micro.key)) for micro in micros]
        weights = self.stage.weights()
        counts = dict.fromkeys(weights, 0.0)
        for micro in micros:
            for name, count in self.stage.counts(micro.batch).items():
                counts[name] += count
        counts = self.ranks.total(counts)
        rate = learning_rate(
            self.optimizer_config.schedule, self.optimizer_config.learning_rate, self.step, self.loop.steps
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate

        self.wrapped.train()
        self.optimizer.zero_grad(set_to_none=True)
        means = dict.fromkeys(weights, 0.0)
        for index, micro in enumerate(micros):
            last = index == len(micros) - 1
            with (
                nullcontext()
                if last
                else self.fabric.no_backward_sync(self.wrapped, enabled=self.ranks.world > 1)
            ):
                total, parts = self._weighted(micro, weights, counts)
                self._check(torch.isfinite(total), micro, "loss")
                self.fabric.backward(
                    total * self.ranks.world
                )  # ranks are averaged, the loss is a sum over them
            for name, value in parts.items():
                means[name] += value
        norm = self._gradient_norm()
        self._check(torch.isfinite(norm), micros[-1], "gradient")
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.stage.model, self.step)
        means = self.ranks.total(means)
        loss = sum(weight * means[name] for name, weight in weights.items())
        return {"loss": loss, **means, "gradient_norm": float(norm), "learning_rate": rate}

    def _weighted(
        self, micro: Micro, weights: dict[str, float], counts: dict[str, float]
    ) -> tuple[Tensor, dict[str, float]]:
        gather = self.ranks.gather if self.ranks.world > 1 else None
        losses = self.wrapped(micro.batch, micro.key, gather)
        total = torch.zeros((), device=self.fabric.device)
        parts = {}
        for name, loss in losses.items():
            mean = loss.sum / max(counts[name], 1.0)
            parts[name] = float(mean.detach())
            total = total + weights[name] * self.stage.smooth(name, mean)
        return total, parts

    def _gradient_norm(self) -> Tensor:
        gradients = [value.grad for value in self.stage.parameters() if value.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        clip = self.optimizer_config.clip
        if clip > 0 and bool(norm > clip):
            torch.nn.utils.clip_grads_with_norm_(self.stage.parameters(), clip, norm)
        return norm

    def _check(self, finite: Tensor, micro: Micro, what: str) -> None:
        """Stop before the update where a number is not finite, and name the molecules that cause it."""
        if bool(finite):
            return
        names = self._offenders(micro)
        where = (
            f"molecules {', '.join(names)}"
            if names
            else "no single molecule; a smaller learning rate may help"
        )
        raise NonFiniteError(
            f"the {what} is not finite at step {self.step}: {where}; the last checkpoint is intact"
        )

    @torch.no_grad()
    def _offenders(self, micro: Micro) -> list[str]:
        store, found = self.maker.store, []
        self.stage.eval()
        for row, epoch in zip(micro.batch.row.tolist(), micro.key.epoch, strict=True):
            alone = store.batch([row], modalities=self.stage.modalities, targets=self.stage.targets)
            key = NoiseKey(micro.key.seed, epoch[None])
            losses = self.stage(self._here(alone), key).values()
            if not all(bool(torch.isfinite(loss.sum)) for loss in losses):
                found.append(f"{store.identities[row]} (row {row})")
        return found

    def validate(self) -> dict[str, float]:
        """Mean losses over the validation rows with fixed noise and the weights that would be saved."""
        self.stage.eval()
        weights = self.stage.weights()
        sums, counts = dict.fromkeys(weights, 0.0), dict.fromkeys(weights, 0.0)
        rows = self.validation[self.ranks.rank :: self.ranks.world]
        batch_size = max(self.loop.batch_size // self.ranks.world, 1)
        stage = self.stage
        with self._averaged(), torch.no_grad():
            for micro in in_order(self.maker.store, rows, batch_size, stage.modalities, stage.targets):
                for name, loss in stage(self._here(micro.batch), self._key(micro.key)).items():
                    sums[name] += float(loss.sum)
                    counts[name] += loss.count
        sums, counts = self.ranks.total(sums), self.ranks.total(counts)
        means = {name: sums[name] / counts[name] for name in weights if counts[name]}
        return {"loss": sum(weights[name] * mean for name, mean in means.items()), **means}

    def _averaged(self) -> Any:
        return nullcontext() if self.average is None else self.average.applied(self.stage.model)

    def _here(self, batch: Batch) -> Batch:
        precision = torch.float64 if self.loop.precision == "64-true" else torch.float32
        moved: Batch = batch.to(self.fabric.device, precision)
        return moved

    def _key(self, key: NoiseKey) -> NoiseKey:
        return key._replace(epoch=key.epoch.to(self.fabric.device))

    def _keep_best(self, loss: float) -> None:
        if loss < self.best:
            self.best = loss
            if self.ranks.rank == 0:
                with self._averaged():
                    about = {**self.about, "step": self.step, "validation_loss": loss}
                    save_checkpoint(self.checkpoints, "best", self.step, self.stage.model, about, None)

    def save(self) -> None:
        """Write a checkpoint from which the run continues bit for bit."""
        if self.ranks.rank:
            return
        resume = {
            "step": self.step,
            "best": self.best,
            # copied, because the averaged weights are about to be put in their place
            "stage": {name: value.clone() for name, value in self.stage.state_dict().items()},
            "optimizer": self.optimizer.state_dict(),
            "average": {} if self.average is None else self.average.state_dict(),
        }
        about = {**self.about, "step": self.step}
        with self._averaged():
            save_checkpoint(self.checkpoints, "step", self.step, self.stage.model, about, resume)

    def resume(self) -> bool:
        """Go back to the newest complete checkpoint; False where there is none."""
        directory = newest(self.checkpoints)
        if directory is None:
            return False
        state = read_resume(directory)
        self.stage.load_state_dict(state["stage"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.step, self.best = int(state["step"]), float(state["best"])
        return True


def _due(step: int, every: int, last: int) -> bool:
    return step == last or (every > 0 and step % every == 0)


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that a run stops between two steps; a second Ctrl-C stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number: int, frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
