"""The sections of a report that show results; empty for content that is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from molspectra.evaluation.ranking import RankFigures
from molspectra.evaluation.representation import GALLERIES, METHODS
from molspectra.reporting import figures, wording
from molspectra.reporting.content import (
    Candidate,
    Curve,
    LossLine,
    ReportContent,
    Representation,
    ResultTable,
    RetrievalResult,
    SimulatedMolecule,
)
from molspectra.reporting.drawing import Pictures
from molspectra.reporting.markup import Child, Markup, details, element, listing, paragraph, table
from molspectra.reporting.wording import duration, mean_sd, number, percent
from molspectra.spectra.modality import MODALITIES
from molspectra.spectra.style import figure_of


def modality_title(name: str) -> str:
    """Return the displayed name of a modality; other quantities keep theirs."""
    return MODALITIES[name].title if name in MODALITIES else name


def result(pictures: Pictures, results: ResultTable) -> list[Child]:
    """Return one table of fine-tuning results: every seed, mean ± sd, sentences and a figure."""
    seeds = sorted({seed for arm in results.arms for seed in arm.mae})
    rows = []
    for arm in results.arms:
        r2 = [score.r2 for score in arm.scores if score.r2 is not None]
        maes = [number(arm.mae.get(seed)) for seed in seeds]
        summary = [list(arm.mae.values()), [score.rmse for score in arm.scores], r2]
        rows.append([arm.label, *maes, *(mean_sd(values) if values else "–" for values in summary)])
    caption = (
        f"Mean absolute error of the {results.target} in {results.unit} on {results.molecules} molecules of "
        f"the {results.part} part, learnt from {results.training_molecules}; lower is better. "
        "± is the sample standard deviation over the seeds."
    )
    head = ["start", *(f"seed {seed}" for seed in seeds), "mean ± sd", "RMSE", "R²"]
    return [
        element("h3", f"{results.target} ({results.settings})") if results.settings else None,
        table(caption, head, rows, numbers=range(1, len(head))),
        listing(wording.table_sentences(results)),
        errors_figure(
            pictures, [(arm.key, arm.label, arm.mae) for arm in results.arms], results.target, results.unit
        ),
    ]


def errors_figure(pictures: Pictures, arms: Sequence[figures.Errors], quantity: str, unit: str) -> Markup:
    """Return the figure of the errors of every run, by start."""
    by_start = "; ".join(f"{label} {', '.join(map(number, maes.values()))}" for _, label, maes in arms)
    alt = f"Mean absolute errors in {unit}: {by_start}"
    caption = "Every point is one run; thin lines join runs of one seed; bars are means."
    return pictures.figure(figures.errors_by_start(arms, quantity, unit), alt, caption, medium=True)


def learning(pictures: Pictures, curves: Sequence[Curve]) -> list[Markup]:
    """Return the learning curves of pre-training and of fine-tuning."""
    parts = []
    for group, title in (("pretraining", "Pre-training"), ("finetuning", "Fine-tuning")):
        chosen = [curve for curve in curves if curve.group == group]
        if not chosen:
            continue
        last = "; ".join(
            f"{curve.panel}, {curve.label}, seed {curve.seed}: {number(curve.values[-1])}"
            for curve in chosen
            if curve.part == "val" and curve.values
        )
        lines = "losses on the validation part, one line per seed"
        if any(curve.part == "train" for curve in chosen):
            lines = "strong lines with markers are the validation part, faint lines training batches; one "
            lines += "line per run"
        medium = len({curve.panel for curve in chosen}) == 1
        alt = f"{title}, last validation losses: {last}"
        drawn = figures.learning_curves(chosen)
        parts.append(pictures.figure(drawn, alt, f"{title}: {lines}.", medium=medium))
    return parts


def parities(pictures: Pictures, tables: Sequence[ResultTable]) -> list[Markup]:
    """Return the parity plots of all tables that have predictions."""
    parts = []
    for results in tables:
        drawn = figures.parity(results)
        if drawn is None:
            continue
        settings = f" ({results.settings})" if results.settings else ""
        caption = (
            f"The {results.target}{settings} of the {results.molecules} molecules of the {results.part} "
            "part; on the line the prediction equals the computed value. Markers tell the seeds apart."
        )
        starts = ", ".join(arm.label for arm in results.arms)
        parts.append(
            pictures.figure(drawn, f"Predicted against computed {results.target}: {starts}", caption)
        )
    return parts


def losses(lines: Sequence[LossLine]) -> list[Child]:
    """Return the table of pre-training losses on held-out molecules."""
    if not lines:
        return []
    rows = [[line.run, line.name, number(line.value), number(line.no_skill)] for line in lines]
    caption = (
        "Losses on held-out molecules, with fixed noise and masks. A model that has learnt nothing "
        "predicts no noise, the mean spectrum of these molecules, and all pairs of a batch equally likely."
    )
    head = ["run", "loss", "value", "learnt nothing"]
    return [table(caption, head, rows, numbers=(2, 3)), listing(wording.loss_sentences(lines))]


def reconstructions(pictures: Pictures, content: ReportContent) -> list[Markup]:
    """Return figures of spectra with masked patches and the model's values there."""
    if not content.reconstructions:
        return []
    share = f"{percent(content.mask_ratio)} of the patches" if content.mask_ratio else "Some patches"
    parts = [
        paragraph(
            f"{share} of every spectrum were hidden from {content.reconstructions[0].run}, which was not "
            "trained on these molecules. The thin line is the computed spectrum, broadened; orange are the "
            "model's values in the hidden patches; both in the scale log10(s + 1) in which it learns. Grey "
            "windows belong to hidden patches; dark grey ones lie in no other patch either, while the rest "
            "of a hidden patch is seen through its overlapping neighbours."
        )
    ]
    for shown in content.reconstructions:
        names = ", ".join(modality_title(name) for name in shown.spectra)
        caption = f"{shown.molecule.label} ({shown.molecule.formula}): {shown.why}."
        alt = f"{names} of {shown.molecule.label} with masked patches reconstructed"
        parts.append(pictures.figure(figures.reconstruction(shown), alt, caption))
    return parts


def retrieval(pictures: Pictures, results: RetrievalResult) -> list[Child]:
    """Return the search by spectra with one model: sentences, table, curve, examples."""
    main, isomers = results.whole
    at = list(main.recall)
    rows = _rank_rows({name: ranks for name, (ranks, _) in results.subsets.items()}, main, "random order")
    if isomers is not None:
        labelled = {f"among isomers: {name}": own for name, (_, own) in results.subsets.items() if own}
        rows += _rank_rows(labelled, isomers, "among isomers, random order")
    caption = (
        f"Recall@k with {results.run}: share of queries whose molecule is among the first k of "
        f"{results.gallery_size}; ties count against the query. With a part of the spectra the others are "
        "withheld."
    )
    head = ["spectra", "queries", *(f"R@{k}" for k in at), "MRR", "median rank"]
    return [
        element("h3", results.run),
        *map(paragraph, wording.retrieval_sentences(results)),
        table(caption, head, rows, numbers=range(1, len(head))),
        pictures.figure(
            figures.recall_curve(results),
            "Recall at k: " + ", ".join(f"{k}: {percent(main.recall[k])}" for k in at),
            "Share of the queries whose molecule is among the first k, and what a random order gives.",
            medium=True,
        ),
        *_examples(pictures, results),
    ]


def _rank_rows(subsets: Mapping[str, RankFigures], chance: RankFigures, name: str) -> list[list[str]]:
    """Return one row per subset of spectra, and a last one, called `name`, for a random order."""
    rows = []
    for spectra, ranks in subsets.items():
        shares = [percent(share) for share in ranks.recall.values()]
        rows.append([spectra, str(ranks.queries), *shares, number(ranks.mrr), f"{ranks.median_rank:g}"])
    shares = [percent(share) for share in chance.chance_recall.values()]
    return [*rows, [name, "", *shares, number(chance.chance_mrr), ""]]


def _examples(pictures: Pictures, results: RetrievalResult) -> Iterator[Markup]:
    if results.examples:
        yield paragraph(f"Examples: {results.why}.")
    for search in results.examples:
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


def representation(pictures: Pictures, tests: Representation) -> list[Child]:
    """Return the tests of a model's embeddings: tables and figures of those that were made."""
    left_out = f" {tests.left_out} that are not new to the model are left out." if tests.left_out else ""
    parts: list[Child] = [
        element("h3", tests.run),
        paragraph(f"{tests.tested} test molecules of {tests.store}; before, {tests.seen}.{left_out}"),
    ]
    if tests.probes:
        rows = [
            [
                f"{line.name} ({line.unit})" if line.unit else line.name,
                line.features,
                str(line.fitted),
                *(number(value) for which in figures.PROBES for value in line.figures[which]),
            ]
            for line in tests.probes
        ]
        caption = (
            "Probes of frozen embeddings (their sum over the atoms, or what a pooled head reads): mean "
            "absolute error and R² of ridge regression, of the nearest neighbours and of the best constant; "
            "of classes the area under the precision-recall curve and AUROC."
        )
        head = ["property", "features", "fitted to"]
        head += [f"{which}: {name}" for which in figures.PROBES.values() for name in ("error", "R²")]
        alt = "R² of ridge regression: " + ", ".join(
            f"{line.name}, {line.features} {number(line.figures['linear'][1])}" for line in tests.probes
        )
        parts += [
            table(caption, head, rows, numbers=range(2, len(head))),
            pictures.figure(
                figure_of(figures.probes(tests)), alt, "R² (of classes AUROC) on new molecules.", medium=True
            ),
        ]
    if tests.galleries:
        parts += _galleries(pictures, tests)
    if tests.alignment:
        rows = [
            [
                line.spectra,
                str(line.molecules),
                *map(number, (line.alignment, line.of_others, line.of_spectra, line.of_structures)),
            ]
            for line in tests.alignment
        ]
        caption = (
            "Alignment E‖f(x) − f(y)‖² of the structure and the spectra of a molecule, and of another "
            "molecule; uniformity log E exp(−2‖f(x) − f(y)‖²) over molecules; of unit vectors "
            "(Wang and Isola 2020). Lower is better."
        )
        head = ["spectra", "molecules", "alignment", "of others", "uniformity: spectra", "structures"]
        alt = "Alignment: " + ", ".join(
            f"{line.spectra} {number(line.alignment)}" for line in tests.alignment
        )
        parts += [
            table(caption, head, rows, numbers=range(1, len(head))),
            pictures.figure(
                figure_of(figures.alignment(tests)),
                alt,
                "Lower left is better: pairs close, molecules spread.",
                medium=True,
            ),
        ]
    return parts


def _galleries(pictures: Pictures, tests: Representation) -> Iterator[Child]:
    """Yield recall in the whole galleries, its figure against their size, and the table behind the figure."""
    head = ["search", "among", "spectra", "gallery", "queries", "R@1", "R@10", "R@1 by chance"]
    rows = [
        (
            line.found.size is None,
            [
                METHODS[line.method],
                GALLERIES[line.kind],
                line.spectra,
                f"{line.found.candidates:.0f}" if line.found.size is None else str(line.found.size),
                str(line.found.queries),
                *map(percent, line.found.recall.values()),
                percent(line.found.chance_recall[1]),
            ],
        )
        for line in tests.galleries
    ]
    caption = (
        "Recall among the structures of the whole store, by spectra used together; the gallery is the mean "
        "number of candidates. Queries without another molecule of their mass or formula are left out there."
    )
    yield table(caption, head, [row for is_whole, row in rows if is_whole], numbers=range(3, len(head)))
    alt = "Recall at 1 in the whole gallery: " + ", ".join(
        f"{line.spectra} {METHODS[line.method]}, {GALLERIES[line.kind]} {percent(line.found.recall[1])}"
        for line in tests.galleries
        if line.found.size is None
    )
    yield pictures.figure(
        figure_of(figures.recall_by_size(tests, GALLERIES, METHODS)),
        alt,
        "Recall@1 expected in random galleries of a size, of queries with more candidates; dashed: chance.",
    )
    caption = "Recall expected in random parts of the galleries, of queries with more candidates."
    parts = [row for is_whole, row in rows if not is_whole]
    yield details("Every size", [table(caption, head, parts, numbers=range(3, len(head)))])


def simulated(pictures: Pictures, molecules: Sequence[SimulatedMolecule]) -> list[Markup]:
    """Return the table of molecules whose spectra were computed along with the runs."""
    if not molecules:
        return []
    names = [name for name in MODALITIES if any(name in molecule.lines for molecule in molecules)]
    rows: list[Sequence[Child]] = []
    for row in molecules:
        drawing = pictures.molecule(row.molecule)
        structure = None if drawing is None else element("div", drawing, class_="drawing")
        label = element("div", row.molecule.label), element("div", row.molecule.formula, class_="soft")
        rows.append([label, structure, *(_bands(row, name) for name in names), duration(row.seconds)])
    units = {name: MODALITIES[name].unit for name in names}
    head = ["molecule", "structure", *(f"{modality_title(n)} ({units[n]})" for n in names), "time"]
    levels = {f"{modality_title(name)}: {level}" for row in molecules for name, level in row.levels.items()}
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
