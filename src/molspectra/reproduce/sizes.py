"""One experiment over several numbers of labels: errors by size and arm, as text, Markdown, HTML and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from molspectra.reporting.drawing import Pictures
from molspectra.reporting.figures import errors_by_size
from molspectra.reporting.markup import element, listing, page, paragraph, table
from molspectra.reporting.wording import number, signed
from molspectra.reproduce.experiments import label
from molspectra.reproduce.page import columns, interval, markdown_table, write_pages
from molspectra.reproduce.plan import Plan
from molspectra.reproduce.results import Results, collect

Rows = list[list[str]]

CAPTION = (
    "Mean absolute errors of the {quantity} in {unit} on the same {test} of the test part; mean ± "
    "sample standard deviation over the seeds ({seeds}). Lower is better."
)
PAIRED = (
    "Paired differences in {unit}: mean over the seeds (95 % interval, t). Negative: the first is better."
)


def write(plans: Sequence[Plan], command: str) -> Path:
    """Write `EXPERIMENT-SUBJECT.json`, `.md` and `.html` about the runs so far; returns the Markdown's path.

    Args:
        plans: of one experiment, one per number of labels.
        command: the command line that repeats them.

    Raises:
        InputError: a damaged file, or one that cannot be written.
    """
    results = [collect(plan) for plan in plans]
    whole = replace(plans[0], labels=None)
    markdown, html = _markdown(plans, results, command), _html(plans, results, command)
    return write_pages(whole, _values(plans, results, command), markdown, html)


def text(plans: Sequence[Plan]) -> str:
    """Return the table of errors for a terminal."""
    results = [collect(plan) for plan in plans]
    return "\n".join([_title(plans), _caption(results), *columns(_with_head(arm_rows(plans, results)))])


def arm_rows(plans: Sequence[Plan], results: Sequence[Results]) -> tuple[list[str], Rows]:
    """Return head and rows of the table of errors: one row per arm, one column per number of labels."""
    head = ["start", *map(_size, plans)]
    rows = []
    for place, arm in enumerate(plans[0].experiment.arms):
        found = [result.arms[place] for result in results]
        cells = [number(one.mean, 4) + ("" if one.sd is None else f" ± {number(one.sd, 2)}") for one in found]
        rows.append([label(arm), *cells])
    return head, rows


def pair_rows(plans: Sequence[Plan], results: Sequence[Results]) -> tuple[list[str], Rows]:
    """Return head and rows of the table of paired differences, for those with a result."""
    head = ["first − second", *map(_size, plans)]
    rows = []
    for first, second, _ in plans[0].experiment.pairs:
        names = label(first), label(second)
        cells = []
        for result in results:
            pair = next((one for one in result.comparisons if (one.first, one.second) == names), None)
            cells.append("–" if pair is None else f"{signed(pair.test.mean)} ({interval(pair.test)})")
        if any(cell != "–" for cell in cells):
            rows.append([" − ".join(names), *cells])
    return head, rows


def _size(plan: Plan) -> str:
    return f"{plan.labels:,} {plan.experiment.counted}"


def _title(plans: Sequence[Plan]) -> str:
    first = plans[0]
    about = f"{first.scale.name}, seeds {', '.join(map(str, first.seeds))}"
    return f"{first.experiment.key}: {first.experiment.title}, {first.subject} ({about})"


def _caption(results: Sequence[Results]) -> str:
    first = results[0]
    test = "–" if first.test is None else f"{first.test:,}"
    seeds = ", ".join(map(str, first.seeds))
    return CAPTION.format(quantity=first.quantity, unit=first.unit, test=test, seeds=seeds)


def _with_head(head_and_rows: tuple[list[str], Rows]) -> Rows:
    head, rows = head_and_rows
    return [head, *rows]


def _unfinished(results: Sequence[Results]) -> list[str]:
    done, total = sum(one.finished for one in results), sum(len(one.runs) for one in results)
    return (
        []
        if done == total
        else [f"Unfinished: {done} of {total} runs are done; what stands here may change."]
    )


def _values(plans: Sequence[Plan], results: Sequence[Results], command: str) -> dict[str, Any]:
    """Return the errors and differences by number of labels; runs are in the files of each number."""
    return {
        "command": command,
        "complete": not _unfinished(results),
        "experiment": plans[0].experiment.key,
        "subject": plans[0].subject,
        "scale": plans[0].scale.name,
        "unit": results[0].unit,
        "sizes": {
            str(plan.labels): {
                "file": f"{plan.stem}.json",
                "mae": {arm.key: {str(seed): mae for seed, mae in arm.mae.items()} for arm in result.arms},
            }
            for plan, result in zip(plans, results, strict=True)
        },
    }


def _markdown(plans: Sequence[Plan], results: Sequence[Results], command: str) -> str:
    parts = [f"# {_title(plans)}", "", *_unfinished(results), plans[0].experiment.about, ""]
    parts += [_caption(results), "", *markdown_table(*arm_rows(plans, results)), ""]
    parts += [PAIRED.format(unit=results[0].unit), "", *markdown_table(*pair_rows(plans, results)), ""]
    parts += [*(f"- {_size(plan)}: [{plan.stem}.md]({plan.stem}.md)" for plan in plans), ""]
    return "\n".join([*parts, "```", command, "```", ""])


def _html(plans: Sequence[Plan], results: Sequence[Results], command: str) -> str:
    head, rows = arm_rows(plans, results)
    points = {
        (arm.key, arm.label): {
            plan.labels or 0: list(result.arms[place].mae.values())
            for plan, result in zip(plans, results, strict=True)
            if result.arms[place].mae
        }
        for place, arm in enumerate(results[0].arms)
    }
    known = {arm: by_size for arm, by_size in points.items() if by_size}
    figure = None
    if known:
        drawn = errors_by_size(known, results[0].quantity, results[0].unit, plans[0].experiment.counted)
        alt = "; ".join(" ".join(row) for row in rows)
        figure = Pictures().figure(drawn, alt, "Every point is one run; lines join the means.", medium=True)
    numbers = range(1, len(head))
    return page(
        _title(plans),
        element("h1", _title(plans)),
        element("div", listing(_unfinished(results)), class_="short") if _unfinished(results) else None,
        paragraph(plans[0].experiment.about),
        table(_caption(results), head, rows, numbers=numbers),
        figure,
        table(PAIRED.format(unit=results[0].unit), *pair_rows(plans, results), numbers=numbers),
        listing(f"{_size(plan)}: {plan.stem}.html" for plan in plans),
        element("pre", command),
    )
