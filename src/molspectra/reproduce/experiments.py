"""Definitions of the experiments: their arms, the starts of these, and the corresponding published rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from molspectra.errors import NotFoundError, hint
from molspectra.spectra.modality import DOS

Kind = Literal["qm9", "md17", "pilot", "attention"]
"""Fine-tuning on a property of many molecules, on energies and forces of one, on a property with spectra as
input; or only pre-training, whose attention is shown."""


@dataclass(frozen=True)
class Variant:
    """What a fine-tuning run can start from: a pre-training run, or nothing.

    Attributes:
        label: displayed name.
        cost: kind of the pre-training run in the scale's times per step: "stage1", "stage2" or "control";
            "" where nothing is pre-trained.
        parent: the variant that the pre-training starts from; None starts from scratch.
        changes: settings of the pre-training, or else of the fine-tuning, by dotted name that differ from
            the scale's.
    """

    label: str
    cost: str = ""
    parent: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def section(self) -> str:
        """Section of the scale with the settings of the pre-training."""
        return "stage1" if self.cost == "stage1" else "stage2"


def _stage2(label: str, changes: Mapping[str, Any]) -> Variant:
    return Variant(label, "stage2", "stage1", changes)


def _denoised(kind: str, title: str) -> dict[str, Variant]:
    """Return the pre-training runs of another denoising, with and without spectra."""
    changes, stage1 = {"denoising.kind": kind}, f"stage1-{kind}"
    control = f"stage 1 continued without spectra, {title}"
    return {
        stage1: Variant(f"stage 1, {title}", "stage1", None, changes),
        f"control-{kind}": Variant(control, "control", stage1, WITHOUT_SPECTRA | changes),
        f"stage2-{kind}": Variant(f"stages 1+2, {title}", "stage2", stage1, changes),
    }


WITHOUT_SPECTRA: dict[str, Any] = {"model.spectrum_encoder": None}
"""Stage 2 without its spectrum encoder: the same molecules, batches, noise and steps, only denoising."""

_MODALITIES = "model.spectrum_encoder.modalities"
_MASKED = {"alignment.masked": True}
_APART = {"model.spectrum_encoder.stride": "patch"}
_PATCHES = {
    "model.spectrum_encoder.patch": [20, 20, 20],
    "model.spectrum_encoder.stride": [10, 10, 10],
}

VARIANTS: Mapping[str, Variant] = {
    "stage1": Variant("stage 1", "stage1"),
    "control": Variant("stage 1 continued without spectra", "control", "stage1", WITHOUT_SPECTRA),
    "stage2": _stage2("stages 1+2", {}),
    "stage2-patch20": _stage2("patches of 20, stride 10", _PATCHES),
    "stage2-mask0.05": _stage2("mask ratio 0.05", {"reconstruction.mask_ratio": 0.05}),
    "stage2-mask0.30": _stage2("mask ratio 0.30", {"reconstruction.mask_ratio": 0.3}),
    "stage2-no-reconstruction": _stage2("without reconstruction", {"weights.reconstruction": 0.0}),
    "stage2-no-alignment": _stage2("without alignment", {"weights.alignment": 0.0}),
    "stage2-no-uv_vis": _stage2("without UV-Vis", {_MODALITIES: ["ir", "raman"]}),
    "stage2-no-ir": _stage2("without IR", {_MODALITIES: ["uv_vis", "raman"]}),
    "stage2-no-raman": _stage2("without Raman", {_MODALITIES: ["uv_vis", "ir"]}),
    "stage2-masked": _stage2("masked spectra aligned, one pass", _MASKED),
    "stage2-stride": _stage2("patches that do not overlap", _APART),
    "stage2-stride-masked": _stage2("patches that do not overlap, one pass", _APART | _MASKED),
    "stage2-dos": _stage2(
        "stages 1+2 with densities of states", {_MODALITIES: ["uv_vis", "ir", "raman", *DOS]}
    ),
    **_denoised("frad", "Frad"),
    **_denoised("slide", "SliDe"),
}
"""Pre-training runs by the name of their directory."""


FROM_SCRATCH: Mapping[str, Variant] = {
    "scratch": Variant("from scratch"),
    "base": Variant('shipped model "base"', changes={"init": "base"}),
    "descriptors": Variant("descriptors, gradient boosting"),
    "fingerprints": Variant("fingerprints, random forest"),
    "egnn": Variant("EGNN", changes={"model.spectrum_input": False, "model.spectrum_encoder": None}),
    "egnn-spectrum": Variant("EGNN with UV-Vis as input"),
}
"""Arms that start from no pre-training run of the experiment."""

PAIRS = (
    ("stage2", "control", "what the spectra gave, further steps on the same molecules set aside"),
    ("stage2", "stage1", "the published comparison: spectra and further steps together"),
    ("control", "stage1", "what further steps without spectra gave"),
    ("stage1", "scratch", "what stage 1 gave"),
    ("stage2", "scratch", "what all of pre-training gave"),
)
"""Comparisons of the usual arms: first minus second, and what the difference shows."""


@dataclass(frozen=True)
class Experiment:
    """One table of the paper, repeated.

    Attributes:
        key: name on the command line.
        arms: keys of `VARIANTS` and `FROM_SCRATCH`, in the order of the table.
        pairs: arms that are compared (first, second, what the difference shows).
        published: name of the published row of an arm.
        about: remark for the reader.
        is_sized: whether it is repeated for every number of labels (frames with forces) of the scale.
    """

    key: str
    title: str
    kind: Kind
    arms: tuple[str, ...]
    pairs: tuple[tuple[str, str, str], ...] = PAIRS
    published: Mapping[str, str] = field(default_factory=dict)
    about: str = ""
    is_sized: bool = False

    @property
    def counted(self) -> str:
        """What a model learns from, as a word: "labels" or "frames"."""
        return "frames" if self.kind == "md17" else "labels"


FLOORS_ABOUT = (
    "Descriptors (RDKit's two-dimensional ones) with gradient boosting and Morgan fingerprints with a random "
    "forest learn nothing before: they are what pre-training has to beat."
)

_USUAL = ("scratch", "stage1", "control", "stage2")
_ROWS = {"scratch": "TorchMD-NET, from scratch", "stage1": "Coord", "stage2": "MolSpectra"}


def _ablation(key: str, title: str, published: Mapping[str, str], about: str = "") -> Experiment:
    """Return an ablation of stage 2: its variants, the whole method and the control.

    `published` has the name of the published row of every arm, "" where there is none.
    """
    variants = [arm for arm in published if arm not in ("stage2", "control")]
    pairs = [(arm, "stage2", "what the change gave") for arm in variants]
    arms = ("control", *variants, "stage2")
    return Experiment(key, title, "qm9", arms, (*pairs, PAIRS[0]), dict(published), about)


def _denoising(key: str, kind: str, title: str, published: Mapping[str, str], about: str) -> Experiment:
    """Return an experiment with another denoising, with and without spectra."""
    arms = ("scratch", *(f"{stage}-{kind}" for stage in _USUAL[1:]))
    usual = dict(zip(_USUAL, arms, strict=True))
    pairs = tuple((usual[first], usual[second], meaning) for first, second, meaning in PAIRS)
    rows = {usual[arm]: row for arm, row in published.items()}
    return Experiment(key, f"{title} with and without spectra", "qm9", arms, pairs, rows, about)


EXPERIMENTS: Mapping[str, Experiment] = {
    experiment.key: experiment
    for experiment in (
        Experiment("table2", "Properties of QM9", "qm9", _USUAL, published=_ROWS),
        Experiment("table3", "Forces of MD17", "md17", _USUAL, published=_ROWS),
        _ablation(
            "table4",
            "Length and stride of patches",
            {"stage2-patch20": "", "stage2": ""},
            "The paper's text gives patches of 20 with stride 10 for all spectra, its scripts 50 with stride "
            "25 for IR and Raman. The published errors of this ablation are not among the figures kept here.",
        ),
        _ablation(
            "table5",
            "Mask ratio",
            {
                "stage2-mask0.05": "mask ratio 0.05",
                "stage2": "mask ratio 0.10",
                "stage2-mask0.30": "mask ratio 0.30",
            },
        ),
        _ablation(
            "table6",
            "Objectives of stage 2",
            {
                "control": "without reconstruction and contrast",
                "stage2-no-reconstruction": "without reconstruction",
                "stage2": "all objectives",
            },
            "Without reconstruction and contrast, stage 2 is denoising alone: that is the control.",
        ),
        _ablation(
            "table7",
            "Kinds of spectra",
            {
                "stage2-no-uv_vis": "without UV-Vis",
                "stage2-no-ir": "without IR",
                "stage2-no-raman": "without Raman",
                "stage2": "all spectra",
            },
        ),
        _denoising(
            "tableA1",
            "frad",
            "Frad",
            {"scratch": _ROWS["scratch"]},
            "What the paper's table A1 shows is not among the figures kept here; this is Frad in "
            "the place of plain denoising.",
        ),
        _denoising(
            "tableA2",
            "slide",
            "SliDe",
            {"scratch": _ROWS["scratch"], "stage1": "SliDe"},
            "The published error of SliDe with spectra is not among the figures kept here.",
        ),
        Experiment(
            "pilot",
            "Spectra as input",
            "pilot",
            ("egnn", "egnn-spectrum"),
            (("egnn-spectrum", "egnn", "what the spectrum as a further input gave"),),
            {"egnn": "EGNN", "egnn-spectrum": "EGNN with the UV-Vis spectrum as further input"},
            "Another task than all other tables: here the UV-Vis spectrum of a molecule must be known to "
            "predict its property. A spectrum computed at the level of the labels tells much of them.",
        ),
        _ablation(
            "ablation",
            "Which part of stage 2 helps",
            dict.fromkeys(
                (
                    "stage2-no-reconstruction",
                    "stage2-no-alignment",
                    "stage2-no-uv_vis",
                    "stage2-no-ir",
                    "stage2-no-raman",
                    "stage2-dos",
                    "stage2",
                ),
                "",
            ),
            "Objectives and kinds of spectra are left out one at a time; densities of states are added.",
        ),
        Experiment(
            "cost",
            "Cheaper stages 2",
            "qm9",
            ("control", "stage2", "stage2-masked", "stage2-stride", "stage2-stride-masked"),
            (
                ("stage2-masked", "stage2", "what one pass instead of two gave"),
                ("stage2-stride", "stage2", "what patches without overlap gave"),
                ("stage2-stride-masked", "stage2", "what both gave"),
                PAIRS[0],
            ),
            about="All have the same steps; what is cheaper takes fewer operations per step.",
            is_sized=True,
        ),
        Experiment(
            "efficiency",
            "Label efficiency",
            "qm9",
            ("descriptors", "scratch", "stage1", "control", "stage2", "stage2-dos"),
            (
                ("stage2-dos", "control", "what all spectra with densities of states gave"),
                *PAIRS,
                ("stage2-dos", "descriptors", "what the best pre-training gains over fixed descriptors"),
            ),
            about=FLOORS_ABOUT,
            is_sized=True,
        ),
        Experiment(
            "forces",
            "Forces by number of frames",
            "md17",
            (*_USUAL, "stage2-dos"),
            (("stage2-dos", "control", "what all spectra with densities of states gave"), *PAIRS),
            is_sized=True,
        ),
        Experiment(
            "base",
            "What the shipped model buys",
            "qm9",
            ("fingerprints", "descriptors", "scratch", "base"),
            (
                ("base", "scratch", "what all of its pre-training gave"),
                ("base", "descriptors", "what it gains over fixed descriptors"),
            ),
            about=FLOORS_ABOUT,
            is_sized=True,
        ),
        Experiment("attention", "Attention over wavenumbers", "attention", ("stage2",), ()),
    )
}
"""Experiments by name; tables 4 to 7 are the paper's ablations in the order of its text."""


def experiment(key: str) -> Experiment:
    """Return an experiment by its key.

    Raises:
        NotFoundError: there is none with that key.
    """
    if key not in EXPERIMENTS:
        raise NotFoundError(f"unknown experiment {key!r}; {hint(key, EXPERIMENTS)}")
    return EXPERIMENTS[key]


def label(arm: str) -> str:
    """Return the displayed name of an arm."""
    return (FROM_SCRATCH.get(arm) or VARIANTS[arm]).label


def chain(arms: tuple[str, ...]) -> list[str]:
    """Return the pre-training runs that arms need, each after the one that it starts from."""
    variants: list[str] = []
    for arm in arms:
        lineage: list[str] = []
        key: str | None = None if arm in FROM_SCRATCH else arm
        while key is not None:
            lineage.insert(0, key)
            key = VARIANTS[key].parent
        variants += [variant for variant in lineage if variant not in variants]
    return variants
