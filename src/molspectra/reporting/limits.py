"""Remarks on how to read a report and on the limits of its results."""

from __future__ import annotations

from collections.abc import Iterator

from molspectra.reporting.content import ReportContent

PAIRED = (
    "Runs of one table see the same molecules, the same number of steps and the same settings; runs of one "
    "seed also the same batches and noise. They differ in the weights that they start from. Compare them "
    "seed by seed. A run from a pre-trained start has had the steps of its pre-training in addition."
)
SPREAD = (
    "The spread over seeds is that of new initial weights, batch order and noise. It does not hold the "
    "choice of test molecules: the split is one and the same."
)
CHECKPOINT = "Tested is the checkpoint with the lowest validation loss; the test part decides nothing."
SAME_SOURCE = (
    "The spectra that are searched with and reconstructed come from the same source and level of theory as "
    "those of training. Measured spectra differ from them in more than noise; nothing here tells how well "
    "they would be found."
)
CHANCE = (
    "Chance is the expected figure of a random order. The search among isomers leaves out queries that "
    "have no isomer in the gallery; in it, composition is of no help."
)
OVERLAP = (
    "Neighbouring patches overlap, so most of a masked patch is visible in its neighbours; the dark "
    "windows are what the model could not see. The molecules shown stand at fixed places of the ranking by "
    "error."
)
GFN2 = (
    "GFN2-xTB is fast and approximate: some infrared intensities are several times too strong (C–H "
    "stretches of arenes), and polarisabilities are about half of those of density functionals, which "
    "weakens Raman activities."
)
COMPUTED = (
    "All reference values are computed, at the levels of theory named above; an error here is the distance "
    "to such a computation, not to an experiment."
)
SMALL = (
    "The largest training part has {} molecules. Published figures of the method come from models and "
    "datasets many times larger and from other levels of theory; these numbers are not comparable with "
    "them."
)
SMALL_BELOW = 50_000


def limits(content: ReportContent) -> Iterator[str]:
    """Yield the remarks that apply to the report's content."""
    if content.tables:
        yield from (PAIRED, SPREAD, CHECKPOINT)
    if content.retrievals or content.reconstructions:
        yield SAME_SOURCE
    if content.retrievals:
        yield CHANCE
    if content.reconstructions:
        yield OVERLAP
    levels = [
        *content.levels.values(),
        *(level for molecule in content.simulated for level in molecule.levels.values()),
    ]
    if any("GFN2-xTB" in level for level in levels):
        yield GFN2
    if levels:
        yield COMPUTED
    train = max((run.molecules.get("train", 0) for run in content.runs), default=0)
    if 0 < train < SMALL_BELOW:
        yield SMALL.format(train)
