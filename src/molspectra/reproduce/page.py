"""The results of an experiment as text, Markdown, HTML and JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from molspectra.data.atomic import atomic_file
from molspectra.evaluation.evaluate import plain_json
from molspectra.evaluation.paired import MoleculeInterval, SeedTest
from molspectra.evaluation.published import Published
from molspectra.reporting.collect import metric_series, panel_title
from molspectra.reporting.content import Curve
from molspectra.reporting.drawing import Pictures
from molspectra.reporting.markup import (
    Child,
    Markup,
    details,
    element,
    listing,
    page,
    paragraph,
    section,
    table,
)
from molspectra.reporting.sections import errors_figure, learning
from molspectra.reporting.wording import duration, few_seeds, number, signed
from molspectra.reproduce.experiments import chain, label
from molspectra.reproduce.plan import Plan
from molspectra.reproduce.results import ArmResult, Comparison, Results
from molspectra.training.record import unreadable_metrics, write_json

Rows = list[list[str]]


def write(plan: Plan, results: Results, command: str) -> Path:
    """Write the results so far, with the command line that repeats them, as `write_pages` does."""
    complete = results.finished == len(results.runs)
    values = {"command": command, "complete": complete, **plain_json(dataclasses.asdict(results))}
    return write_pages(plan, values, markdown(results, command), html(plan, results, command))


def write_pages(plan: Plan, values: Mapping[str, Any], markdown: str, html: str) -> Path:
    """Write `STEM.json`, `STEM.md` and `STEM.html` into the plan's directory; returns the Markdown's path.

    Raises:
        InputError: a file cannot be written.
    """
    write_json(plan.out / f"{plan.stem}.json", values)
    for suffix, text in (("md", markdown), ("html", html)):
        with atomic_file(plan.out / f"{plan.stem}.{suffix}") as file:
            file.write(text.encode())
    return plan.out / f"{plan.stem}.md"


def title(results: Results) -> str:
    """Return the heading of the page."""
    seeds = f"seed{'s' if len(results.seeds) > 1 else ''} {', '.join(map(str, results.seeds))}"
    return (
        f"{results.experiment.key}: {results.experiment.title}, {results.subject} ({results.scale}, {seeds})"
    )


def summary(results: Results) -> Iterator[str]:
    """Yield the state of the runs, comparability, and the first conclusion."""
    done, total = results.finished, len(results.runs)
    if done < total:
        yield f"Unfinished: {done} of {total} runs are done; what stands here may change."
    yield from (f"{run.name} {run.state}" for run in results.runs if run.state.startswith("failed"))
    if results.comparable:
        yield "The settings, data and levels of theory are those of the published values."
    else:
        yield "Not comparable with the published values; the table of errors is followed by the reasons."
    for comparison in results.comparisons[:1]:
        yield f"{comparison.tells[0].upper()}{comparison.tells[1:]}: {comparison.conclusion}"


def arm_rows(results: Results) -> tuple[list[str], Rows]:
    """Return head and rows of the table of arms."""
    published = "published" if results.comparable else "published (not comparable)"
    head = ["arm", *(f"seed {seed}" for seed in results.seeds), "mean ± sd", published, "as"]
    return head, [_arm_row(results, arm) for arm in results.arms]


def _arm_row(results: Results, arm: ArmResult) -> list[str]:
    maes = [number(arm.mae.get(seed), 4) for seed in results.seeds]
    spread = "" if arm.sd is None else f" ± {number(arm.sd, 2)}"
    published = ("–", "") if arm.published is None else (f"{arm.published.value:g}", arm.published.method)
    return [arm.label, *maes, f"{number(arm.mean, 4)}{spread}", *published]


def published_rows(rows: Sequence[Published]) -> tuple[list[str], Rows]:
    """Return head and rows of the table of published values."""
    return ["published", "value", "by", ""], [[r.method, f"{r.value:g}", r.source, r.note] for r in rows]


def comparison_rows(results: Results) -> tuple[list[str], Rows]:
    """Return head and rows of the table of paired comparisons."""
    head = [
        "first − second",
        "by seed",
        "mean",
        "95 % over seeds (t)",
        "p (t)",
        "p (sign)",
        "p (permutation)",
        "95 % over molecules",
        "first closer",
    ]
    return head, [_comparison_row(comparison) for comparison in results.comparisons]


def _comparison_row(comparison: Comparison) -> list[str]:
    test, molecules = comparison.test, comparison.interval
    return [
        f"{comparison.first} − {comparison.second}",
        ", ".join(signed(value) for value in test.differences),
        signed(test.mean),
        interval(test),
        number(test.t_p, 2),
        number(test.sign_p, 2),
        number(test.permutation_p, 2),
        "–" if molecules is None else interval(molecules),
        "–" if molecules is None else f"{100 * molecules.better:.0f} %",
    ]


def interval(found: SeedTest | MoleculeInterval) -> str:
    """Return a 95 % interval in words, a dash where one seed gives none."""
    return f"{signed(found.low)} to {signed(found.high)}" if math.isfinite(found.low) else "–"


def run_rows(results: Results) -> tuple[list[str], Rows]:
    """Return head and rows of the list of runs."""
    rows = [
        [
            run.name,
            run.state,
            str(run.steps),
            duration(run.seconds),
            " / ".join(str(run.rows.get(part, "–")) for part in ("train", "val", "test")),
            run.data_hash[:12],
            (run.commit or "–")[:12],
        ]
        for run in results.runs
    ]
    return ["run", "state", "steps", "time", "train / val / test", "data", "commit"], rows


def caption(results: Results) -> str:
    """Return the caption of the table of arms."""
    text = f"Mean absolute error of the {results.quantity} in {results.unit}"
    if results.test is not None:
        text += f" on {results.test:,} of the test part, learnt from {results.train:,}"
    text += "; lower is better, ± is the sample standard deviation over seeds"
    text += ", pre-training repeated for each." if chain(results.experiment.arms) else "."
    if results.constant is not None:
        text += f" Predicting the median of the training part for all gives {number(results.constant)}."
    return text


WHY = "Why they are not comparable with the published values:"
SEEN = "Test molecules in pre-training:"

CONTROL = (
    "The control continues stage 1 for as many steps as stage 2, on the same molecules, batches and noise, "
    "without spectra: only against it can an effect be put down to the spectra."
)
HOW = (
    "All arms of a seed have the same fine-tuning molecules, steps, batches and test molecules.",
    "The t-test and the exact tests (sign; all flips of the signs of the differences) go over seeds. The "
    "interval over molecules is a bootstrap of the errors per test molecule, averaged over the seeds; it is "
    "about these very models and holds no spread over seeds.",
    "Several comparisons are made; none of the p-values is corrected for that.",
)


def how(results: Results) -> list[str]:
    """Return remarks on how to read the comparisons."""
    has_control = any(arm.startswith("control") for arm in results.experiment.arms)
    few = few_seeds(len(results.seeds))
    return [*([CONTROL] if has_control else []), *HOW, *([few] if few else [])]


def markdown(results: Results, command: str) -> str:
    """Return the page as Markdown."""
    parts = [f"# {title(results)}", "", *(f"- {sentence}" for sentence in summary(results)), ""]
    if results.experiment.about:
        parts += [results.experiment.about, ""]
    parts += ["## Errors", "", caption(results), "", *markdown_table(*arm_rows(results)), ""]
    if results.reasons:
        parts += [WHY, "", *(f"- {reason}" for reason in results.reasons), ""]
    if results.rows:
        parts += [f"Published for the same quantity, in {results.rows[0].unit}:", ""]
        parts += [*markdown_table(*published_rows(results.rows)), ""]
    if results.seen:
        parts += [SEEN, "", *(f"- {arm}: {sentence}." for arm, sentence in results.seen.items()), ""]
    if results.comparisons:
        parts += ["## Paired comparisons", "", f"In {results.unit}.", ""]
        parts += [*markdown_table(*comparison_rows(results)), ""]
        parts += [f"- {comparison.tells}: {comparison.conclusion}" for comparison in results.comparisons]
        parts += ["", *(f"- {remark}" for remark in how(results)), ""]
    parts += ["## Runs", "", "```", command, "```", "", *markdown_table(*run_rows(results)), ""]
    return "\n".join(parts)


def markdown_table(head: Sequence[str], rows: Rows) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def html(plan: Plan, results: Results, command: str) -> str:
    """Return the page as HTML: one file without scripts."""
    pictures = Pictures()
    errors: list[Child] = [_table(caption(results), *arm_rows(results))]
    if results.reasons:
        errors += [paragraph(WHY), listing(results.reasons)]
    arms = [(arm.key, arm.label, arm.mae) for arm in results.arms if arm.mae]
    if arms:
        errors.append(errors_figure(pictures, arms, results.quantity, results.unit))
    if results.rows:
        text = f"Published for the same quantity, in {results.rows[0].unit}."
        errors.append(_table(text, *published_rows(results.rows)))
    if results.seen:
        sentences = (f"{arm}: {sentence}." for arm, sentence in results.seen.items())
        errors += [paragraph(SEEN), listing(sentences)]
    paired: list[Child] = []
    if results.comparisons:
        paired = [
            _table(f"Differences of the errors in {results.unit}.", *comparison_rows(results)),
            listing([element("strong", f"{c.tells}: "), c.conclusion] for c in results.comparisons),
            listing(how(results)),
        ]
    curves = list(_curves(plan))
    tuned = [curve for curve in curves if curve.group == "finetuning"]
    pretrained = [curve for curve in curves if curve.group == "pretraining"]
    losses: list[Child] = [*learning(pictures, tuned), *learning(pictures, pretrained)]
    if remarks := list(_unreadable(plan)):
        losses.append(listing(remarks))
    runs: list[Child] = [element("pre", command), _table("All runs.", *run_rows(results))]
    runs += _provenance(results)
    parts: list[tuple[str, str, list[Child]]] = [
        ("errors", "Errors", errors),
        ("paired", "Paired comparisons", paired),
        ("curves", "Validation losses", losses),
        ("runs", "Runs", runs),
    ]
    about = paragraph(results.experiment.about) if results.experiment.about else None
    return page(
        title(results),
        element("h1", title(results)),
        element("div", listing(summary(results)), class_="short"),
        about,
        *(section(name, body, id_=key) for key, name, body in parts if body),
    )


def _provenance(results: Results) -> Iterator[Markup]:
    """Yield machines, versions, and the settings of the first seed's runs."""
    facts: list[str] = []
    for run in results.runs:
        if run.machine:
            facts.append("{cpu}, {cores} cores, {memory_gib} GiB, {system}".format_map(run.machine))
            facts.append(", ".join(f"{name} {version}" for name, version in run.versions.items()))
    yield listing(dict.fromkeys(facts)) or Markup("")
    first = [run for run in results.runs if run.seed == results.seeds[0]]
    settings = [
        [element("h3", run.name), element("pre", json.dumps(run.settings, indent=1, ensure_ascii=False))]
        for run in first
    ]
    yield details(f"Settings of the runs of seed {results.seeds[0]}", settings)


def _table(text: str, head: Sequence[str], rows: Rows) -> Markup:
    numbers = [column for column in range(1, len(head)) if any(row[column][:1].isdigit() for row in rows)]
    return table(text, head, rows, numbers=numbers)


def _curves(plan: Plan) -> Iterator[Curve]:
    """Yield the validation losses of all runs, one colour per arm."""
    for run in plan.runs:
        group = "pretraining" if run.is_pretraining else "finetuning"
        for name, (steps, values) in metric_series(run.directory).items():
            if name.startswith("val/") and name != "val/loss":
                panel, points = panel_title(name.removeprefix("val/")), (tuple(steps), tuple(values))
                yield Curve(group, panel, run.arm, label(run.arm), "val", run.seed, *points)


def _unreadable(plan: Plan) -> Iterator[str]:
    """Yield a sentence on each run some of whose metrics cannot be read."""
    for run in plan.runs:
        if remark := unreadable_metrics(run.directory / "metrics.csv"):
            yield f"{run.name}, metrics.csv: {remark}."


def text(results: Results) -> str:
    """Return the result for a terminal."""
    head, rows = arm_rows(results)
    lines = [title(results), caption(results), *columns([head, *rows])]
    lines += [_comparison_line(comparison, results.unit) for comparison in results.comparisons]
    lines += [comparison.conclusion for comparison in results.comparisons[:1]]
    if few := few_seeds(len(results.seeds)):
        lines.append(few)
    if results.reasons:
        lines.append(f"not comparable with the published values: {'; '.join(results.reasons)}")
    return "\n".join(lines)


def _comparison_line(comparison: Comparison, unit: str) -> str:
    test, molecules = comparison.test, comparison.interval
    line = f"{comparison.first} − {comparison.second}: {signed(test.mean)} {unit}"
    if len(test.seeds) > 1:
        line += f", 95 % over seeds {interval(test)} (p = {number(test.t_p, 2)})"
    return line + (f", over molecules {interval(molecules)}" if molecules else "")


def columns(rows: Rows) -> Iterator[str]:
    """Yield the lines of a table for a terminal."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
