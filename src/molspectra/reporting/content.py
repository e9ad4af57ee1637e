"""Content of a report as plain values, filled from run directories or by the caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from molspectra.evaluation.ranking import RankFigures
from molspectra.evaluation.reconstruct import ReconstructedSpectrum


@dataclass(frozen=True)
class RunFacts:
    """Facts about one run.

    Attributes:
        name: usually the name of its directory.
        stage: "stage1", "stage2" or "finetune".
        start: label of what it started from, "scratch" or another run's.
        seed: of weights, batches, noise and masks.
        steps: optimizer steps done.
        seconds: wall time of its training, in s; None where unknown.
        finished: whether all steps were done.
        molecules: number by part of the split.
        store: name or path of the dataset.
        data_hash: SHA-256 of the dataset's content.
        commit: of the code; None where unknown.
        machine: processor, cores, memory.
        versions: of Python and packages.
        settings: the whole configuration as JSON text.
    """

    name: str
    stage: str
    start: str
    seed: int
    steps: int
    seconds: float | None
    finished: bool
    molecules: Mapping[str, int]
    store: str
    data_hash: str
    commit: str | None
    machine: str
    versions: Mapping[str, str]
    settings: str = ""


@dataclass(frozen=True)
class Curve:
    """One loss over the steps of one run.

    Attributes:
        group: "pretraining" or "finetuning", one figure each.
        panel: title of the panel, such as "denoising".
        key: determines the colour: "scratch", "stage1", "stage2", or a name.
        label: displayed name of the key.
        part: "train" or "val".
        seed: of the run.
        steps: optimizer steps.
        values: losses.
    """

    group: str
    panel: str
    key: str
    label: str
    part: str
    seed: int
    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Score:
    """Test errors of one fine-tuned run, in the table's unit."""

    seed: int
    run: str
    mae: float
    rmse: float
    r2: float | None
    target: tuple[float, ...] = ()
    """Computed values of the test molecules, for the parity plot."""
    prediction: tuple[float, ...] = ()
    """Predicted values of the test molecules."""


@dataclass(frozen=True)
class Arm:
    """Runs that differ only in the seed.

    Attributes:
        key: "scratch", "stage1", "stage2", or a name.
        label: displayed name.
        scores: one per seed.
        pretraining: sentence on whether pre-training was repeated for every seed.
    """

    key: str
    label: str
    scores: tuple[Score, ...]
    pretraining: str = ""

    @property
    def start(self) -> str:
        """The label without its "from", for sentences."""
        return self.label.removeprefix("from ")

    @property
    def mae(self) -> dict[int, float]:
        """Mean absolute error by seed."""
        return {score.seed: score.mae for score in self.scores}


@dataclass(frozen=True)
class ResultTable:
    """Arms with the same data, steps and settings that differ in their initialisation.

    Attributes:
        target: name of the property.
        unit: of all errors.
        level: level of theory of the property.
        part: part of the split that was predicted.
        molecules: number of predicted molecules.
        training_molecules: number of training molecules.
        arms: in the order of the table, "scratch" first where it is present.
        constant_mae: error of predicting the training part's median for all.
        settings: settings that differ from those of other tables; "" for a single table.
    """

    target: str
    unit: str
    level: str
    part: str
    molecules: int
    training_molecules: int
    arms: tuple[Arm, ...]
    constant_mae: float | None = None
    settings: str = ""


@dataclass(frozen=True)
class LossLine:
    """One pre-training loss on held-out molecules, beside that of a model without skill."""

    run: str
    stage: str
    name: str
    value: float
    no_skill: float | None
    part: str = "test"


@dataclass(frozen=True)
class Depicted:
    """A molecule to be labelled and drawn."""

    identity: str
    name: str | None = None
    smiles: str | None = None
    formula: str = ""

    @property
    def label(self) -> str:
        """Name, or else SMILES, or else identity."""
        return self.name or self.smiles or self.identity


@dataclass(frozen=True, eq=False)
class ReconstructedMolecule:
    """Spectra of a held-out molecule with masked patches and the model's values there.

    Attributes:
        molecule: the molecule.
        run: name of the run whose model is shown.
        why: how it was chosen, such as "median error of the test part".
        error: mean squared error over the masked patches, in log10(s + 1).
        spectra: by modality.
    """

    molecule: Depicted
    run: str
    why: str
    error: float
    spectra: Mapping[str, ReconstructedSpectrum]


@dataclass(frozen=True)
class Candidate:
    """One of the best answers of a search."""

    molecule: Depicted
    score: float
    true: bool


@dataclass(frozen=True)
class Search:
    """One query and its best candidates."""

    molecule: Depicted
    rank: int
    score: float
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, eq=False)
class RetrievalResult:
    """Retrieval of held-out molecules by their spectra with one model.

    Attributes:
        run: name of the run whose model searches.
        part: part of the split that the queries are from.
        gallery_size: number of different molecules searched.
        gallery_parts: parts of the split that these are from.
        similarity: "cosine" or "inner".
        modalities: spectra used together.
        figures: of the search with all of these.
        ranks: [Q] int64 ranks in that search.
        isomers: figures among molecules of the same formula; None where no query has an isomer.
        subsets: figures by subset of the spectra, all of them last.
        isomer_subsets: the same among molecules of the same formula.
        examples: a few queries with their best answers.
        why: how the examples were chosen.
    """

    run: str
    part: str
    gallery_size: int
    gallery_parts: tuple[str, ...]
    similarity: str
    modalities: tuple[str, ...]
    figures: RankFigures
    ranks: npt.NDArray[np.int64]
    isomers: RankFigures | None = None
    subsets: Mapping[str, RankFigures] = field(default_factory=dict)
    isomer_subsets: Mapping[str, RankFigures] = field(default_factory=dict)
    examples: tuple[Search, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class SimulatedMolecule:
    """A molecule whose spectra were computed while the report's runs were made.

    Attributes:
        molecule: the molecule.
        seconds: wall time of its simulation, in s; None where unknown.
        lines: number of lines by modality, dark ones included.
        bands: by modality, positions of the strongest maxima of the broadened spectrum, strongest first, in
            the modality's unit.
        levels: level of theory by modality.
    """

    molecule: Depicted
    seconds: float | None
    lines: Mapping[str, int]
    bands: Mapping[str, tuple[float, ...]]
    levels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ReportContent:
    """Everything that a report shows; empty parts are left out.

    Attributes:
        title: heading.
        runs: facts about the runs.
        tables: results of fine-tuning.
        losses: pre-training losses on held-out molecules.
        curves: learning curves.
        reconstructions: spectra with reconstructed patches.
        mask_ratio: fraction of the patches that were masked there.
        retrievals: one per stage-2 run.
        simulated: molecules simulated along with the runs.
        levels: level of theory of geometries, spectra and properties, by name.
        wall_seconds: total time in s; None where unknown.
        notes: further facts, one sentence each.
    """

    title: str = "molspectra report"
    runs: tuple[RunFacts, ...] = ()
    tables: tuple[ResultTable, ...] = ()
    losses: tuple[LossLine, ...] = ()
    curves: tuple[Curve, ...] = ()
    reconstructions: tuple[ReconstructedMolecule, ...] = ()
    mask_ratio: float | None = None
    retrievals: tuple[RetrievalResult, ...] = ()
    simulated: tuple[SimulatedMolecule, ...] = ()
    levels: Mapping[str, str] = field(default_factory=dict)
    wall_seconds: float | None = None
    notes: tuple[str, ...] = ()
