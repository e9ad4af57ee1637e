"""A trained model as one file that PyTorch alone runs, by `torch.export`."""

from __future__ import annotations

import json
import os
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from molspectra._version import __version__
from molspectra.apps.loading import LoadedModel, loaded
from molspectra.chem.elements import SYMBOLS
from molspectra.chem.readers import from_smiles
from molspectra.compiled import use
from molspectra.data.atomic import atomic_file
from molspectra.data.batch import Batch, batch_of
from molspectra.data.neighbours import edges_of_pairs, offsets_of
from molspectra.data.output import free_path
from molspectra.errors import MismatchError, MolspectraError, SettingError
from molspectra.models.model import MolSpectra
from molspectra.training.targets import quantities_of

ABOUT = "molspectra.json"
"""Name, inside an exported file, of what is told about the model."""

EMBEDDING = "embedding"
"""Name of the output that every model has."""

TOLERANCE = 1e-5
"""Largest difference of an exported from the original model, relative to the largest value of an output."""

_EXAMPLE = ("CCO", "C", "C1CC1")
_OTHERS = ("CCCCC", "C=O", "O", "CO")  # other numbers of molecules, atoms and pairs than those of the example


class Program(nn.Module):
    """What is exported: structures to embeddings and properties, neighbour list included.

    Args:
        model: in evaluation mode.
        targets: names of its properties.
    """

    def __init__(self, model: MolSpectra, targets: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.targets = targets

    def forward(self, numbers: Tensor, positions: Tensor, atoms: Tensor) -> dict[str, Tensor]:
        """Embed and predict B molecules of N atoms in all, those of a molecule one after another.

        Args:
            numbers: [N] int64 atomic numbers.
            positions: [N, 3] in Å.
            atoms: [B] int64, how many atoms each molecule has.

        Returns:
            "embedding" [B, C], and each property [B] by name, in the unit of its training values.
        """
        molecule = torch.repeat_interleave(atoms, output_size=numbers.shape[0])
        first, second = _close_pairs(positions, molecule, self.model.encoder.cutoff)
        edges = edges_of_pairs(first, second, numbers.shape[0])
        unknown = torch.full_like(atoms, -1)
        batch = Batch(numbers, positions, offsets_of(atoms), molecule, unknown, unknown, edges=edges)
        encoded = self.model.encode(batch)
        values = self.model.predict(encoded, batch) if self.targets else []
        embedding = self.model.molecule_features(encoded, batch)
        return {EMBEDDING: embedding, **dict(zip(self.targets, values, strict=True))}


def _close_pairs(positions: Tensor, molecule: Tensor, cutoff: float) -> tuple[Tensor, Tensor]:
    """Pairs [Q] of `neighbour_edges`, without its blocks, whose number depends on the molecules.

    The memory therefore grows with N², a byte for each pair of atoms of the batch.
    """
    index = torch.arange(molecule.shape[0], device=molecule.device)
    together = (molecule[:, None] == molecule) & (index[:, None] < index)
    first, second = torch.nonzero(together).unbind(1)
    squared = (positions[first] - positions[second]).square().sum(1)
    near = torch.nonzero(~(squared >= cutoff * cutoff)).squeeze(1)  # not (>=): a NaN is kept
    return first[near], second[near]


def export_model(
    model: str | os.PathLike[str] | LoadedModel,
    out: str | os.PathLike[str],
    *,
    dtype: Literal["float32", "float64"] = "float32",
    overwrite: bool = False,
) -> None:
    """Write a model as a program that `torch.export.load` reads without this package.

    Numbers of molecules, atoms and neighbours are free, the floating-point type is not. The program is made
    for the CPU, of plain torch: compiled kernels cannot be exported. Before it is written it is compared with
    the model, on other molecules than those of its example.

    Args:
        model: see `load`; pre-trained (embeddings), or fine-tuned (its properties too).
        out: file to write (.pt2).
        dtype: of positions, weights and results.
        overwrite: replace an existing file.

    Raises:
        InputError: no such model, one with spectra as input, a file that is there or cannot be written.
        MolspectraError: the program does not compute what the model does.
    """
    path = free_path(out, (".pt2",), overwrite=overwrite)
    if dtype not in ("float32", "float64"):
        raise SettingError(f"dtype must be float32 or float64, not {dtype!r}")
    model = loaded(model)
    if model.model.input_spectra:
        names = ", ".join(model.model.input_spectra)
        raise MismatchError(f"{model.name}: a model that takes spectra ({names}) as input cannot be exported")
    net = deepcopy(model.model).to("cpu", getattr(torch, dtype)).eval()
    for part in ("noise_head", "force_head", "spectrum_encoder", "spectrum_head"):  # not run, not written
        setattr(net, part, None)
    quantities = quantities_of(model.about) if net.property_head is not None else {}
    program = Program(net, tuple(quantities))
    atoms, molecules = torch.export.Dim("atoms"), torch.export.Dim("molecules")
    with use("plain"), torch.no_grad():
        exported = torch.export.export(
            program,
            _inputs(_EXAMPLE, dtype),
            dynamic_shapes={"numbers": {0: atoms}, "positions": {0: atoms}, "atoms": {0: molecules}},
        )
        _compare(model.name, exported.module(), net, dtype)
    about = {
        "molspectra": __version__,
        "model": model.name,
        "dtype": dtype,
        "cutoff": net.encoder.cutoff,
        "elements": None if model.elements is None else [SYMBOLS[z] for z in sorted(model.elements)],
        "properties": {name: {"unit": one.unit, "level": one.level} for name, one in quantities.items()},
    }
    with atomic_file(path) as file:
        text = json.dumps(about, ensure_ascii=False)
        torch.export.save(exported, file, extra_files={ABOUT: text})


def _inputs(smiles: tuple[str, ...], dtype: str) -> tuple[Tensor, Tensor, Tensor]:
    batch = batch_of([from_smiles(one) for one in smiles], getattr(torch, dtype))
    return batch.numbers, batch.positions, batch.ptr.diff()


def _compare(name: str, program: Any, net: MolSpectra, dtype: str) -> None:
    """Refuse a program that differs from the model, with the model's own neighbour list."""
    batch = batch_of([from_smiles(one) for one in _OTHERS], getattr(torch, dtype))
    encoded = net.encode(batch)
    properties = net.predict(encoded, batch) if net.property_head is not None else []
    wanted = [net.molecule_features(encoded, batch), *properties]
    found = program(*_inputs(_OTHERS, dtype))
    for (output, value), right in zip(found.items(), wanted, strict=True):
        error = float((value - right).abs().max() / right.abs().max().clamp(min=1e-30))
        if not error <= TOLERANCE:
            raise MolspectraError(f"{name}: its exported program gives another {output} (by {error:.1g})")
