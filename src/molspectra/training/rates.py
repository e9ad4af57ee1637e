"""Learning-rate factors of the parts of a model, so that fine-tuning keeps what the encoder has learnt."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from torch import nn

from molspectra.errors import SettingError
from molspectra.training.config import OptimizerConfig

_LAYER = re.compile(r"encoder\.\w+\.(\d+)\.")


class Rate(NamedTuple):
    """How fast a group of parameters is trained."""

    factor: float = 1.0
    """Factor on the learning rate."""
    start: int = 0
    """First step in which the group is changed."""

    def at(self, step: int, learning_rate: float) -> float:
        """Return the learning rate of the group in a step, counted from 0."""
        return self.factor * learning_rate if step >= self.start else 0.0


def rate_groups(
    named: Iterable[tuple[str, nn.Parameter]], layers: int, config: OptimizerConfig
) -> dict[Rate, list[nn.Parameter]]:
    """Group the parameters of a model that are trained by their rate.

    Layer l of the encoder has the factor f·d^(L - 1 - l) with f = `encoder_factor` and d = `layer_decay`
    (layer-wise decay; Howard & Ruder 2018), its embedding f·d^L, and norms after the last layer f. All heads
    have the factor 1 and start at once; the encoder starts after `head_steps`.

    Args:
        named: parameters of the model by name, those of the 3D encoder below `encoder.`.
        layers: L.
        config: gives f and d.
    """
    groups: dict[Rate, list[nn.Parameter]] = {}
    for name, weight in named:
        if not weight.requires_grad:
            continue
        rate = Rate()
        if name.startswith("encoder."):
            layer = _layer_of(name)
            depth = 0 if layer is None else layers - 1 - layer
            rate = Rate(config.encoder_factor * config.layer_decay**depth, config.head_steps)
        groups.setdefault(rate, []).append(weight)
    return groups


def freeze(named: Iterable[tuple[str, nn.Parameter]], layers: int, config: OptimizerConfig) -> None:
    """Take the gradients from what `config.freeze` names; arguments as in `rate_groups`.

    Raises:
        SettingError: more layers than there are.
    """
    if isinstance(config.freeze, int) and config.freeze > layers:
        raise SettingError(
            f"optimizer.freeze: the encoder has {layers} layers, not {config.freeze}; encoder freezes all"
        )
    for name, weight in named:
        if not config.freeze or not name.startswith("encoder."):
            continue
        layer = _layer_of(name)
        if config.freeze == "encoder" or (layer is not None and layer < config.freeze):
            weight.requires_grad_(False)


def _layer_of(name: str) -> int | None:
    """Layer of a weight of the encoder, -1 for its embedding, None for what comes after the last layer."""
    if name.startswith(("encoder.embedding", "encoder.neighbours")):
        return -1
    layer = _LAYER.match(name)
    return int(layer[1]) if layer else None
