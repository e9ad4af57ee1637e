"""A batch of molecules and the directed edges between their atoms, as flat tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from molspectra.data.coordinates import InternalBatch
from molspectra.data.neighbours import Edges, neighbour_edges, offsets_of

if TYPE_CHECKING:
    from molspectra.chem.molecule import Molecule


@dataclass(frozen=True, eq=False)
class CleanSpectra:
    """Spectra of a training batch before augmentation.

    Attributes:
        spectra: per modality [B, points], as in `Batch`.
        present: per modality [B] bool on the CPU, as in `Batch`.
    """

    spectra: dict[str, Tensor]
    present: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Batch:
    """B molecules with N atoms in total, their spectra, targets and (optionally) edges.

    Atoms of molecule ``b`` are ``ptr[b]:ptr[b + 1]``. Units: Å for positions, the modality's units for
    spectra, the store's units for targets.

    Attributes:
        numbers: [N] int64 atomic numbers.
        positions: [N, 3] float32 or float64, Å.
        ptr: [B + 1] int64 atom offsets.
        molecule: [N] int64, the index 0..B-1 of each atom's molecule.
        row: [B] int64 row in the store, -1 for a molecule that is not from a store.
        geometry_id: [B] int64, `Molecule.geometry_id`; seeds noise and masks.
        spectra: per modality [B, points], non-negative and untransformed; zeros where `present` is False.
        present: per modality [B] bool, whether the molecule has that spectrum; stays on the CPU, so that
            reading it does not wait for a device.
        targets: scalars [B] (NaN where the store has no value) and ``"forces"`` [N, 3].
        edges: the neighbour list, or None before `with_edges`.
        internal: the internal coordinates, for the objectives that change them; else None.
        clean: spectra before augmentation, for the objective that predicts them; None for those in `spectra`.
        pairs: number of pairs of atoms of one molecule, Σ n(n-1)/2; None where it was not counted. `to`
            counts it before it moves a batch, since a GPU would have to be waited for.
    """

    numbers: Tensor
    positions: Tensor
    ptr: Tensor
    molecule: Tensor
    row: Tensor
    geometry_id: Tensor
    spectra: dict[str, Tensor] = field(default_factory=dict)
    present: dict[str, Tensor] = field(default_factory=dict)
    targets: dict[str, Tensor] = field(default_factory=dict)
    edges: Edges | None = None
    internal: InternalBatch | None = None
    clean: CleanSpectra | None = None
    pairs: int | None = None

    def __len__(self) -> int:
        """Return the number of molecules B."""
        return self.ptr.shape[0] - 1

    @property
    def before_augmentation(self) -> CleanSpectra:
        """The spectra before augmentation."""
        return CleanSpectra(self.spectra, self.present) if self.clean is None else self.clean

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Batch:
        """Return the batch on `device`, with positions and spectra as `dtype`; a GPU is not waited for.

        Targets keep their dtype: float32 is too coarse for a total energy that is not standardised.
        """
        moved: Batch = replace(to_device(replace(self, present={}, clean=None), device), present=self.present)
        if self.pairs is None and not self.ptr.is_cuda:
            atoms = self.ptr.diff()
            moved = replace(moved, pairs=int((atoms * (atoms - 1)).sum()) // 2)
        spectra = {name: tensor.to(dtype) for name, tensor in moved.spectra.items()}
        clean = self.clean
        if clean is not None:
            values = {name: values.to(dtype) for name, values in to_device(clean.spectra, device).items()}
            clean = CleanSpectra(values, clean.present)
        return replace(moved, positions=moved.positions.to(dtype), spectra=spectra, clean=clean)

    def with_positions(self, positions: Tensor) -> Batch:
        """Return the batch with other coordinates [N, 3] in Å and without edges.

        Raises:
            ValueError: if the shape differs.
        """
        if positions.shape != self.positions.shape:
            raise ValueError(f"positions {tuple(positions.shape)} instead of {tuple(self.positions.shape)}")
        return replace(self, positions=positions, edges=None)

    def with_edges(self, cutoff: float) -> Batch:
        """Return the batch with all edges shorter than `cutoff` Å, from the detached coordinates."""
        return replace(self, edges=neighbour_edges(self.positions.detach(), self.ptr, cutoff, self.pairs))

    def with_edge_list(self, edges: Edges | None) -> Batch:
        """Return the batch with a given neighbour list, which must fit its coordinates."""
        return replace(self, edges=edges)


def to_device(value: Any, device: torch.device | str | None) -> Any:
    """Return a tensor, or the tensors in a (nested) dataclass or dict, on a device; others as they are.

    On its way to a GPU a tensor is pinned, so that the host can go on while it is copied.
    """
    if isinstance(value, Tensor):
        if device is not None and torch.device(device).type == "cuda" and value.device.type == "cpu":
            return value.pin_memory().to(device=device, non_blocking=True)
        return value.to(device=device)
    if isinstance(value, dict):
        return {name: to_device(item, device) for name, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        changes = {field.name: to_device(getattr(value, field.name), device) for field in fields(value)}
        return replace(value, **changes)
    return value


def batch_of(molecules: Sequence[Molecule], dtype: torch.dtype = torch.float32) -> Batch:
    """Return the batch of the given molecules, without spectra and targets; rows are -1.

    Raises:
        ValueError: if there is no molecule.
    """
    if not molecules:
        raise ValueError("a batch needs at least one molecule")
    counts = torch.tensor([len(molecule) for molecule in molecules])
    return Batch(
        numbers=torch.from_numpy(np.concatenate([molecule.numbers for molecule in molecules])),
        positions=torch.from_numpy(np.concatenate([molecule.positions for molecule in molecules])).to(dtype),
        ptr=offsets_of(counts),
        molecule=torch.repeat_interleave(counts),
        row=torch.full((len(molecules),), -1),
        geometry_id=torch.tensor([molecule.geometry_id for molecule in molecules]),
    )
