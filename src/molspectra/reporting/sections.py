"""The sections of a report that show results; each returns nothing for content that is not there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from molspectra.evaluation.ranking import RankFigures
from molspectra.reporting import figures, wording
from molspectra.reporting.content import (
    Candidate,
    Curve,
    LossLine,
    ReportContent,
    ResultTable,
    RetrievalResult,
    SimulatedMolecule,
)
from molspectra.reporting.drawing import Pictures
from molspectra.reporting.markup import Child, Markup, element, listing, paragraph, table
from molspectra.reporting.wording import duration, mean_sd, number, percent
from molspectra.spectra.modality import MODALITIES


def modality_title(name: str) -> str:
    """A modality, or another quantity, for people."""
    return MODALITIES[name].title if name in MODALITIES else name


def result(pictures: Pictures, found: ResultTable) -> list[Child]:
    """One table of fine-tuning results: every seed, mean ± sd, and what follows from them."""
    seeds = sorted({seed for arm in found.arms for seed in arm.mae})
    rows = []
    for arm in found.arms:
        r2 = [score.r2 for score in arm.scores if score.r2 is not None]
        each = [number(arm.mae.get(seed)) for seed in seeds]
        summary = [list(arm.mae.values()), [score.rmse for score in arm.scores], r2]
        rows.append([arm.label, *each, *(mean_sd(values) if values else "–" for values in summary)])
    caption = (
        f"Mean absolute error of the {found.target} in {found.unit} on {found.molecules} molecules of the "
        f"{found.part} part, learnt from {found.training_molecules}; lower is better. "
        "± is the sample standard deviation over the seeds."
    )
    head = ["start", *(f"seed {seed}" for seed in seeds), "mean ± sd", "RMSE", "R²"]
    alt = "; ".join(f"{arm.label} {', '.join(map(number, arm.mae.values()))}" for arm in found.arms)
    return [
        element("h3", f"{found.target} ({found.settings})") if found.settings else None,
        table(caption, head, rows, numbers=range(1, len(head))),
        listing(wording.table_sentences(found)),
        pictures.figure(
            figures.errors_by_start(found),
            f"Mean absolute errors in {found.unit}: {alt}",
            "Every point is one run; thin lines join runs of one seed; bars are means.",
            medium=True,
        ),
    ]


def learning(pictures: Pictures, curves: Sequence[Curve]) -> list[Markup]:
    """Learning curves of pre-training and of fine-tuning."""
    found = []
    for group, title in (("pretraining", "Pre-training"), ("finetuning", "Fine-tuning")):
        chosen = [curve for curve in curves if curve.group == group]
        if not chosen:
            continue
        last = "; ".join(
            f"{curve.panel}, {curve.label}, seed {curve.seed}: {number(curve.values[-1])}"
            for curve in chosen
            if curve.part == "val" and curve.values
        )
        caption = (
            f"{title}: strong lines with markers are the validation part, faint lines training batches; one "
            "line per run."
        )
        medium = len({curve.panel for curve in chosen}) == 1
        alt = f"{title}, last validation losses: {last}"
        found.append(pictures.figure(figures.learning_curves(chosen), alt, caption, medium=medium))
    return found


def parities(pictures: Pictures, tables: Sequence[ResultTable]) -> list[Markup]:
    """Predicted against computed values of every table."""
    parts = []
    for found in tables:
        drawn = figures.parity(found)
        if drawn is None:
            continue
        settings = f" ({found.settings})" if found.settings else ""
        caption = (
            f"The {found.target}{settings} of the {found.molecules} molecules of the {found.part} part; on "
            "the line the prediction equals the computed value. Markers tell the seeds apart."
        )
        starts = ", ".join(arm.label for arm in found.arms)
        parts.append(pictures.figure(drawn, f"Predicted against computed {found.target}: {starts}", caption))
    return parts


def losses(lines: Sequence[LossLine]) -> list[Child]:
    """Pre-training losses on held-out molecules."""
    if not lines:
        return []
    rows = [[each.run, each.name, number(each.value), number(each.no_skill)] for each in lines]
    caption = (
        "Losses on held-out molecules, with fixed noise and masks. A model that has learnt nothing "
        "predicts no noise, the mean spectrum of these molecules, and all pairs of a batch equally likely."
    )
    head = ["run", "loss", "value", "learnt nothing"]
    return [table(caption, head, rows, numbers=(2, 3)), listing(wording.loss_sentences(lines))]


def reconstructions(pictures: Pictures, content: ReportContent) -> list[Markup]:
    """Spectra with masked patches and the model's values there."""
    if not content.reconstructions:
        return []
    share = f"{percent(content.mask_ratio)} of the patches" if content.mask_ratio else "Some patches"
    found = [
        paragraph(
            f"{share} of every spectrum were hidden from {content.reconstructions[0].run}, which was not "
            "trained on these molecules. The thin line is the computed spectrum, broadened; orange are the "
            "model's values in the hidden patches; both in the scale log10(s + 1) in which it learns. Grey "
            "windows belong to hidden patches; dark grey ones lie in no other patch either, while the rest "
            "of a hidden patch is seen through its overlapping neighbours."
        )
    ]
    for each in content.reconstructions:
        names = ", ".join(modality_title(name) for name in each.spectra)
        caption = f"{each.molecule.label} ({each.molecule.formula}): {each.why}."
        alt = f"{names} of {each.molecule.label} with masked patches reconstructed"
        found.append(pictures.figure(figures.reconstruction(each), alt, caption))
    return found


def retrieval(pictures: Pictures, found: RetrievalResult) -> list[Child]:
    """Search by spectra with one model: sentences, table, curve, examples."""
    main, isomers = found.figures, found.isomers
    at = list(main.recall)
    everything = " + ".join(found.modalities)
    rows = _rank_rows({**found.subsets, everything: main}, main, "random order")
    if isomers is not None:
        among = {**found.isomer_subsets, everything: isomers}
        among = {f"among isomers: {name}": each for name, each in among.items()}
        rows += _rank_rows(among, isomers, "among isomers, random order")
    caption = (
        f"Recall@k with {found.run}: share of queries whose molecule is among the first k of "
        f"{found.gallery_size}; ties count against the query. With a part of the spectra the others are "
        "withheld."
    )
    head = ["spectra", "queries", *(f"R@{k}" for k in at), "MRR", "median rank"]
    return [
        element("h3", found.run),
        *map(paragraph, wording.retrieval_sentences(found)),
        table(caption, head, rows, numbers=range(1, len(head))),
        pictures.figure(
            figures.recall_curves([found]),
            "Recall at k: " + ", ".join(f"{k}: {percent(main.recall[k])}" for k in at),
            "Share of the queries whose molecule is among the first k, and what a random order gives.",
            medium=True,
        ),
        *_examples(pictures, found),
    ]


def _rank_rows(figures: Mapping[str, RankFigures], chance: RankFigures, name: str) -> list[list[str]]:
    """One row per subset of spectra, and a last one with that name: what a random order gives."""
    rows = []
    for spectra, each in figures.items():
        shares = [percent(share) for share in each.recall.values()]
        rows.append([spectra, str(each.queries), *shares, number(each.mrr), f"{each.median_rank:g}"])
    shares = [percent(share) for share in chance.chance_recall.values()]
    return [*rows, [name, "", *shares, number(chance.chance_mrr), ""]]


def _examples(pictures: Pictures, found: RetrievalResult) -> Iterator[Markup]:
    if found.examples:
        yield paragraph(f"Examples: {found.why}.")
    for search in found.examples:
        molecule = search.molecule
        yield element("h4", f"Searched: {molecule.label} ({molecule.formula}); found at rank {search.rank}")
        ranked = list(enumerate(search.candidates, 1))
        if not any(candidate.true for _, candidate in ranked):
            ranked.append((search.rank, Candidate(molecule, search.score, true=True)))
        cards = [_card(pictures, rank, candidate) for rank, candidate in ranked]
        yield element("ul", cards, class_="row")


def _card(pictures: Pictures, rank: int, candidate: Candidate) -> Markup:
    return element(
        "li",
        pictures.molecule(candidate.molecule),
        element("div", f"{rank}. {candidate.molecule.label}"),
        element("div", f"similarity {number(candidate.score)}"),
        element("div", "✓ the right one", class_="mark") if candidate.true else None,
        class_="card true" if candidate.true else "card",
    )


def simulated(pictures: Pictures, molecules: Sequence[SimulatedMolecule]) -> list[Markup]:
    """Molecules whose spectra were computed along with the runs."""
    if not molecules:
        return []
    names = [name for name in MODALITIES if any(name in each.lines for each in molecules)]
    rows: list[Sequence[Child]] = []
    for each in molecules:
        drawing = pictures.molecule(each.molecule)
        structure = None if drawing is None else element("div", drawing, class_="drawing")
        label = element("div", each.molecule.label), element("div", each.molecule.formula, class_="soft")
        rows.append([label, structure, *(_bands(each, name) for name in names), duration(each.seconds)])
    units = {name: MODALITIES[name].unit for name in names}
    head = ["molecule", "structure", *(f"{modality_title(n)} ({units[n]})" for n in names), "time"]
    levels = {f"{modality_title(name)}: {level}" for each in molecules for name, level in each.levels.items()}
    caption = "Molecules whose spectra were computed in this run: number of lines, and the strongest bands."
    return [
        table(caption, head, rows, numbers=[len(head) - 1]),
        paragraph("Levels of theory: ", "; ".join(sorted(levels)), "."),
    ]


def _bands(molecule: SimulatedMolecule, name: str) -> Child:
    if name not in molecule.lines:
        return "–"
    digits = 2 if MODALITIES[name].unit == "eV" else 0
    bands = ", ".join(f"{value:.{digits}f}" for value in molecule.bands.get(name, ()))
    return [element("div", f"{molecule.lines[name]} lines"), element("div", bands)]
