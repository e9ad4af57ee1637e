"""Which molecules are to be named when a loss or gradient is not a finite number."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from molspectra.data.store.store import Store
from molspectra.errors import MolspectraError
from molspectra.training.data import Micro
from molspectra.training.ranks import Ranks

MAX_NAMED = 5
"""At most this many molecules are named in an error."""


class NonFiniteError(MolspectraError):
    """A loss or gradient is not a finite number; the update was not made."""


def non_finite_error(
    what: str,
    micros: Iterable[Micro],
    is_finite: Callable[[int, Tensor], bool],
    store: Store,
    ranks: Ranks,
) -> NonFiniteError:
    """Try every molecule alone, and return the error that names those whose losses are not finite.

    All ranks must call this at the same step; all return the same message.

    Args:
        what: what is not finite, and in which step.
        micros: micro-batches of this rank.
        is_finite: whether the losses and gradients of a row, in an epoch, are finite.
        store: holds the rows.
        ranks: the processes of the run.
    """
    checked = [
        (int(row), not is_finite(int(row), epoch))
        for micro in micros
        for row, epoch in zip(micro.batch.row, micro.key.epoch, strict=True)
    ]
    table = torch.tensor(checked, dtype=torch.int64, device=ranks.fabric.device).reshape(-1, 2)
    gathered = ranks.gather(table)[0].tolist()
    bad_rows = sorted({row for row, is_bad in gathered if is_bad})
    identities = store.identities
    names = ", ".join(f"{identities[row]} (row {row})" for row in bad_rows[:MAX_NAMED])
    if len(bad_rows) > MAX_NAMED:
        names += f" and {len(bad_rows) - MAX_NAMED} more"
    all_bad = 1 < len(bad_rows) == len({row for row, _ in gathered})
    if not bad_rows or all_bad:  # the fault lies in the weights
        names = f"{'every molecule' if bad_rows else 'no molecule alone'}; try a smaller learning rate"
    return NonFiniteError(f"{what}, by {names}; the weights and checkpoints from before are untouched")
