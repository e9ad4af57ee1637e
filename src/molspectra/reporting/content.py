"""Content of a report as plain values, filled from run directories or by the caller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from molspectra.evaluation.ranking import RankFigures, SizedRecall
from molspectra.evaluation.reconstruct import ReconstructedSpectrum


@dataclass(frozen=True)
class RunFacts:
    """Facts about one run.

    Attributes:
        start: label of what it started from, "scratch" or another run's.
        seconds: wall time of its training, in s; None where unknown.
        molecules: number by part of the split.
        data_hash: SHA-256 of the dataset's content.
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
        part: "train" or "val".
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
        part: part of the split that was predicted.
        arms: in the order of the table, "scratch" first where it is present.
        constant_mae: error of predicting the training part's median for all.
        settings: settings that differ from those of other tables; "" for a single table.
    """

    target: str
    unit: str
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
    name: str
    value: float
    no_skill: float | None


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
        run: name of the run whose model is shown.
        why: how it was chosen, such as "median error of the test part".
        spectra: by modality.
    """

    molecule: Depicted
    run: str
    why: str
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
        part: part of the split that the queries are from.
        gallery_size: number of different molecules searched.
        gallery_parts: parts of the split that these are from.
        ranks: [Q] int64 ranks in the search with all spectra.
        subsets: by spectra used together, all of them last: the figures among all molecules, and among those
            of the query's formula (None where no query has an isomer).
        examples: a few queries with their best answers.
        why: how the examples were chosen.
    """

    run: str
    part: str
    gallery_size: int
    gallery_parts: tuple[str, ...]
    ranks: npt.NDArray[np.int64]
    subsets: Mapping[str, tuple[RankFigures, RankFigures | None]]
    examples: tuple[Search, ...] = ()
    why: str = ""

    @property
    def whole(self) -> tuple[RankFigures, RankFigures | None]:
        """Figures of the search with all spectra, among all molecules and among isomers."""
        return list(self.subsets.values())[-1]


@dataclass(frozen=True)
class ProbeLine:
    """Figures of the probes of one property by one kind of features.

    Attributes:
        features: "sum" or "pooled".
        is_class: the figures are area under the precision-recall curve and AUROC, not MAE and R².
        fitted: number of molecules that the probes were fitted to.
        figures: error (or AUPRC) and R² (or AUROC) of "linear", "neighbours" and "constant".
    """

    name: str
    unit: str
    features: str
    is_class: bool
    fitted: int
    tested: int
    figures: Mapping[str, tuple[float | None, float | None]]


@dataclass(frozen=True)
class GalleryLine:
    """Recall in galleries of one kind and size.

    Attributes:
        method: of `molspectra.evaluation.representation.METHODS`.
        kind: "all" molecules, those of the query's "mass", or of its "formula".
        spectra: used together.
    """

    method: str
    kind: str
    spectra: str
    found: SizedRecall


@dataclass(frozen=True)
class AlignmentLine:
    """Alignment and uniformity of one subset of spectra, see `evaluation.hypersphere`.

    Attributes:
        of_others: alignment of structures with the spectra of other molecules.
    """

    spectra: str
    molecules: int
    alignment: float
    of_others: float
    of_spectra: float
    of_structures: float


@dataclass(frozen=True)
class Representation:
    """Tests of the embeddings of one model.

    Attributes:
        run: name of the run or model.
        seen: what the test part had in common with the training before it was filtered.
    """

    run: str
    store: str
    tested: int
    left_out: int
    seen: str
    probes: tuple[ProbeLine, ...] = ()
    galleries: tuple[GalleryLine, ...] = ()
    alignment: tuple[AlignmentLine, ...] = ()


@dataclass(frozen=True)
class SimulatedMolecule:
    """A molecule whose spectra were computed while the report's runs were made.

    Attributes:
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
        mask_ratio: fraction of the patches that were masked for `reconstructions`.
        retrievals: one per stage-2 run.
        representations: one per model whose embeddings were tested.
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
    representations: tuple[Representation, ...] = ()
    simulated: tuple[SimulatedMolecule, ...] = ()
    levels: Mapping[str, str] = field(default_factory=dict)
    wall_seconds: float | None = None
    notes: tuple[str, ...] = ()
