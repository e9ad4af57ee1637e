"""The steps that are measured: which model, which molecules, and what one step does.

Models and objectives are those of the package's own recipes `paper-*`. Mode "reference" has the published
variants, "default" the package's own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning_fabric import Fabric

from benchmarks import operations
from benchmarks.molecules import aspirins, qm9_like, store_of
from benchmarks.operations import Sizes
from molspectra.chem.molecule import Molecule
from molspectra.data.batch import Batch
from molspectra.data.neighbours import neighbour_edges
from molspectra.data.stream import BatchStream
from molspectra.models.model import MolSpectra, energy_and_forces
from molspectra.reproduce.scales import merged
from molspectra.training.config import FinetuneConfig, PretrainConfig
from molspectra.training.data import BatchMaker, Micro, Selection
from molspectra.training.loop import Trainer
from molspectra.training.settings import from_dict, read_recipe
from molspectra.training.stages import FinetuneStage, PretrainStage, Stage
from molspectra.training.standardise import standardise

Mode = Literal["reference", "default"]

MOLECULES: dict[str, Callable[[int], list[Molecule]]] = {"qm9": qm9_like, "aspirin": aspirins}

ENCODER = {"whitening": "reference", "vector_cutoff": False}
REFERENCE: dict[str, Any] = {
    "paper-stage1": {"model": {"encoder": ENCODER}, "denoising": {"normalise": "running", "centred": False}},
    "paper-stage2": {
        "model": {"encoder": ENCODER},
        "denoising": {"normalise": "running", "centred": False},
        "alignment": {"form": "reference", "structure": "noised", "masked": True},
    },
    "paper-qm9": {"model": {"encoder": ENCODER}, "denoising": {"normalise": "running", "centred": False}},
    "paper-md17": {
        "model": {"encoder": ENCODER},
        "noisy_nodes": "reference",
        "denoising": {"centred": False},
    },
}
"""What the published variants change in a recipe."""
OWN: dict[str, Any] = {"paper-stage2": {"alignment": {"masked": True}}}
"""What the package's own recipes have that a recipe of the paper has not."""

TINY: dict[str, Any] = {"channels": 16, "layers": 2, "heads": 2, "radial": 8}
TINY_SPECTRA: dict[str, Any] = {"width": 16, "heads": 2, "layers": 2, "feed_forward": 16}
"""Sizes for a test of the benchmarks themselves."""


@dataclass(frozen=True)
class Case:
    """One kind of step."""

    recipe: str
    """Recipe that has the model and the objectives."""
    molecules: str
    """"qm9" or "aspirin"."""
    work: operations.Work
    """Which passes it takes."""
    batch: int
    """Molecules of a step unless told otherwise."""
    inner: int = 1
    """Steps that are timed together, where one is too short."""


CASES: dict[str, Case] = {
    "qm9-stage1": Case("paper-stage1", "qm9", "training", 128),
    "qm9-stage2": Case("paper-stage2", "qm9", "training", 128),
    "qm9-finetune": Case("paper-qm9", "qm9", "training", 128),
    "md17-finetune": Case("paper-md17", "aspirin", "force training", 8),
    "qm9-inference": Case("paper-qm9", "qm9", "inference", 128),
    "md17-force": Case("paper-md17", "aspirin", "forces", 1, inner=5),
}


@dataclass(frozen=True)
class Options:
    """How a case is run."""

    batch: int
    mode: Mode = "reference"
    precision: str = "32-true"
    device: str = "cpu"
    tiny: bool = False


Config = PretrainConfig | FinetuneConfig


def configuration(case: Case, options: Options, changes: Mapping[str, Any] | None = None) -> Config:
    """Settings of a run of a case; `changes` are merged in last."""
    values = read_recipe(case.recipe)
    values |= {"init": None, "data": {}}
    variants = REFERENCE if options.mode == "reference" else OWN
    values = merged(values, variants.get(case.recipe, {}))
    if options.tiny:
        values = merged(values, {"model": {"encoder": TINY}})
        if "spectrum_encoder" in values["model"]:
            values = merged(values, {"model": {"spectrum_encoder": TINY_SPECTRA}})
    if case.recipe == "paper-qm9":  # labels are made up, the table of free atoms has nothing to say
        values = merged(values, {"model": {"property": "scalar", "atom_references": "none"}})
    loop = {"batch_size": options.batch, "precision": options.precision, "accelerator": options.device}
    values = merged(merged(values, {"loop": loop}), changes or {})
    cls = PretrainConfig if case.recipe.startswith("paper-stage") else FinetuneConfig
    return from_dict(cls, values, case.recipe)


class Workload:
    """A case with its model and molecules, ready to do one step after the other."""

    def __init__(
        self,
        name: str,
        options: Options,
        folder: Path,
        changes: Mapping[str, Any] | None = None,
        molecules: list[Molecule] | None = None,
    ) -> None:
        """Build the model and write the store into `folder`; `molecules` replace the case's own."""
        self.case, self.options = CASES[name], options
        self.config = configuration(self.case, options, changes)
        count = max(4 * options.batch, 16)
        store = store_of(molecules or MOLECULES[self.case.molecules](count), folder / "molecules.arrow")
        rows = np.arange(len(store))
        self.fabric = Fabric(accelerator=options.device, devices=1, precision=self.config.loop.precision)
        self.fabric.launch()
        torch.manual_seed(0)
        self.model = MolSpectra(self.config.model)
        if isinstance(self.config, FinetuneConfig):
            standardise(self.model, Selection(store, rows, rows, rows), self.config.targets)
        stage = self._stage()
        loop, adam = self.config.loop, self.config.optimizer
        stream = BatchStream(len(rows), loop.batch_size, loop.seed)
        maker = BatchMaker(store, rows, stream, stage.modalities, stage.targets, loop.seed)
        self.trainer = Trainer(self.fabric, stage, maker, rows, loop, adam, folder, show=False)

    def _stage(self) -> Stage:
        if isinstance(self.config, FinetuneConfig):
            return FinetuneStage(self.model, self.config)
        return PretrainStage(self.model, self.config)

    @property
    def device(self) -> torch.device:
        """Where the steps are done."""
        return self.fabric.device

    def prepare(self, step: int) -> list[Micro]:
        """The batch of a step, as a run makes it."""
        return self.trainer.maker(step)

    def run(self, micros: list[Micro]) -> None:
        """One step, as the loop does it; without training, one evaluation."""
        if self.case.work in ("training", "force training"):
            self.trainer._update(micros)
            self.trainer.step += 1
            return
        batch = micros[0].batch.to(self.device, self.trainer.precision)
        self.model.eval()
        with self.fabric.autocast():
            if self.case.work == "forces":
                energy_and_forces(self.model, batch)
            else:
                with torch.no_grad():
                    self.model(batch)

    def sizes(self, batch: Batch) -> Sizes:
        """Molecules, atoms, and directed edges of the clean structures."""
        edges = neighbour_edges(batch.positions, batch.ptr, self.model.encoder.cutoff)
        return Sizes(len(batch), len(batch.numbers), len(edges))

    def operations(self, sizes: Sizes) -> float:
        """Operations of the matrix products of one step by the formula of `operations`, in mode reference."""
        channels = self.model.encoder.channels
        found = operations.encoder(self.config.model.encoder, sizes)
        spectra = self.config.model.spectrum_encoder
        if self.model.property_head is not None:
            found += operations.head(channels, sizes, vectors=False)
        if isinstance(self.config, PretrainConfig) or self._denoises(self.config):
            found += operations.head(channels, sizes, vectors=True)
        if spectra is not None:
            found += operations.specformer(spectra, channels, sizes)
        return found.total(self.case.work)

    def _denoises(self, config: FinetuneConfig) -> bool:
        return self.case.work == "training" and config.denoising_weight > 0
