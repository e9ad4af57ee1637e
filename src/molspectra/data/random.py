"""Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011) in integer arithmetic.

A number depends only on (seed, epoch, molecule id, purpose, index), not on the batch, its order, the worker
or the device: the integers are the same on a CPU and a GPU. The five fields occupy separate bits of Philox's
32-bit words, so that no two uses share a random number:

===========  =======================================================
key          seed, 64 bits (low word first)
counter 0    block: index // 4, since a block has four words
counter 1    purpose, high 8 bits; epoch, low 24 bits
counter 2-3  molecule id, 64 bits (low word first)
===========  =======================================================
"""

import hashlib
import math
from enum import IntEnum
from functools import lru_cache

import torch
from torch import Tensor

from molspectra.data.neighbours import offsets_of

WORD = 0xFFFFFFFF
"""Mask of the low 32 bits."""

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)  # of counter words 0 and 2
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_EPOCHS = 1 << 24


class Purpose(IntEnum):
    """Use of a random number (8 bits); numbers of different purposes are independent."""

    NOISE = 1
    MASK = 2
    TORSION = 5
    BOND = 6
    ANGLE = 7
    MODALITY = 8
    SHUFFLE = 9
    DISTORTION = 10
    SAMPLE_NOISE = 11


def seed_for(seed: int, name: str) -> int:
    """Return a 64-bit seed derived from a seed and a name, such as that of a modality."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest(), "little")


def philox(counter: Tensor, seed: int) -> Tensor:
    """Return the four random words [n, 4] of Philox4x32-10 for each counter, as int64 in [0, 2³²).

    Args:
        counter: [n, 4] int64, words in [0, 2³²), least significant first.
        seed: the key of 64 bits; any integer, taken modulo 2⁶⁴.
    """
    table = _constants(seed % (1 << 64), counter.device)
    multipliers, *keys = table[:, :, None]
    factor, mixed = counter.T[0::2], counter.T[1::2]  # words 0 and 2 are multiplied, 1 and 3 mixed in
    for key in keys:
        product = (factor * multipliers).flip(0)  # wraps modulo 2⁶⁴: all 64 bits of the unsigned product
        factor = ((product >> 32) ^ mixed ^ key) & WORD
        mixed = product & WORD
    return torch.stack((factor[0], mixed[0], factor[1], mixed[1]), dim=1)


def uniform(seed: int, epoch: int | Tensor, ids: Tensor, purpose: Purpose, n: int) -> Tensor:
    """Return n uniform numbers per molecule, [B, n] float64: multiples of 2⁻³² in [0, 1).

    In float32 the largest would round to 1.

    Args:
        seed: any integer, taken modulo 2⁶⁴.
        epoch: one for all or [B] int64, below 2²⁴ (a batch may contain molecules of two epochs).
        ids: [B] int64 molecule ids (`Batch.geometry_id`).
        purpose: of the numbers.
        n: numbers per molecule, below 2³⁴.

    Raises:
        ValueError: if the epoch or n is out of range.
    """
    blocks = -(-n // 4)
    owner = torch.arange(ids.shape[0], device=ids.device).repeat_interleave(blocks)
    block = torch.arange(blocks, device=ids.device).repeat(ids.shape[0])
    words = philox(_counters(epoch, ids, purpose, owner, block), seed)
    return words.reshape(ids.shape[0], 4 * blocks)[:, :n].double() * 2.0**-32


def normal(
    seed: int,
    epoch: int | Tensor,
    ids: Tensor,
    purpose: Purpose,
    counts: Tensor,
    width: int,
    *,
    total: int | None = None,
) -> Tensor:
    """Return standard normal vectors for the atoms of each molecule, [N, width] float64 with N = sum(counts).

    Box-Muller (1958) in float64 on words of 32 bits, which bounds the values by 6.7. The k-th vector of a
    molecule uses blocks of its own, so that it does not depend on the number of vectors.

    Args:
        seed: any integer, taken modulo 2⁶⁴.
        epoch: one for all or [B] int64, below 2²⁴.
        ids: [B] int64 molecule ids (`Batch.geometry_id`).
        purpose: of the numbers.
        counts: [B] int64, vectors per molecule.
        width: components per vector.
        total: N if the caller knows it, which saves a GPU one synchronisation.

    Raises:
        ValueError: if the epoch is out of range.
    """
    blocks = -(-width // 4)
    owner = torch.repeat_interleave(counts, output_size=total)
    vector = torch.arange(owner.shape[0], device=ids.device) - offsets_of(counts)[owner]
    block = (vector[:, None] * blocks + torch.arange(blocks, device=ids.device)).reshape(-1)
    words = philox(_counters(epoch, ids, purpose, owner.repeat_interleave(blocks), block), seed)
    radius = ((words[:, 0::2] + 1).double() * 2.0**-32).log().mul(-2).sqrt()  # of a uniform number in (0, 1]
    angle = words[:, 1::2].double() * (math.tau * 2.0**-32)
    pairs = torch.stack((radius * angle.cos(), radius * angle.sin()), dim=2)
    return pairs.reshape(-1, 4 * blocks)[:, :width]


def _counters(epoch: int | Tensor, ids: Tensor, purpose: Purpose, owner: Tensor, block: Tensor) -> Tensor:
    """Return the counters [n, 4] of the given blocks [n] of the molecules `ids[owner]`."""
    if isinstance(epoch, int) and not 0 <= epoch < _EPOCHS:
        raise ValueError(f"epoch {epoch} is not in 0..{_EPOCHS - 1}")
    tag = ((purpose << 24) | epoch) + torch.zeros_like(ids)
    per_molecule = torch.stack((tag, ids & WORD, (ids >> 32) & WORD), dim=1)
    return torch.cat((block[:, None], per_molecule[owner]), dim=1)


@lru_cache(maxsize=64)
def _constants(key: int, device: torch.device) -> Tensor:
    """Return the multipliers (row 0) and the keys of the rounds, [1 + rounds, 2] int64, on a device."""
    halves = (key & WORD, key >> 32)
    keys = [
        [(half + step * r) & WORD for half, step in zip(halves, _WEYL, strict=True)] for r in range(_ROUNDS)
    ]
    return torch.tensor([_MULTIPLIERS, *keys], dtype=torch.int64).to(device)
