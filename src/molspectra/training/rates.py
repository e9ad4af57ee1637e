"""Learning-rate factors of the parts of a model, so that fine-tuning keeps what the encoder has learnt."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from torch import nn

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
    """Group the parameters of a model by their rate.

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
        rate = Rate()
        if name.startswith("encoder."):
            layer = _LAYER.match(name)
            is_input = name.startswith(("encoder.embedding", "encoder.neighbours"))
            depth = layers if is_input else layers - 1 - int(layer[1]) if layer else 0
            rate = Rate(config.encoder_factor * config.layer_decay**depth, config.head_steps)
        groups.setdefault(rate, []).append(weight)
    return groups
