"""The answers of a search as an HTML table with drawn structures."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from molspectra.reporting.content import Depicted
from molspectra.reporting.drawing import Pictures
from molspectra.reporting.markup import Child, Markup, element, table

FIGURES = ("score", "confidence", "share", "uncertainty", "residual")
"""Columns of numbers that are shown where a table has them; the last three are those of a mixture."""

DRAWN = 50
"""Answers of the table whose structures are drawn."""


def answers_table(pictures: Pictures, answers: pa.Table, top: int | None = None) -> Markup:
    """Return the table of answers.

    Args:
        pictures: of the page.
        answers: see `molspectra.search.hits.Hits` and `molspectra.search.mixture.Mixture`.
        top: rows that are shown; None for all.
    """
    first = [name for name in ("sample",) if name in answers.column_names]
    numbers = [name for name in FIGURES if name in answers.column_names]
    extra = [name for name in ("group", "rank_before") if name in answers.column_names]
    rows: list[Sequence[Child]] = []
    for place, hit in enumerate(answers.slice(0, top).to_pylist()):
        depicted = Depicted(hit["identity"], hit["name"], hit["smiles"], hit["formula"])
        drawing = pictures.molecule(depicted) if place < DRAWN else None
        rows.append(
            [
                *(hit[name] for name in first),
                str(hit["rank"]),
                None if drawing is None else element("div", drawing, class_="drawing", style="width: 7rem"),
                [hit["name"] or "–", element("div", hit["smiles"], class_="soft") if hit["smiles"] else None],
                hit["formula"],
                *(fixed(hit[name], 3) for name in numbers),
                *("–" if hit[name] is None else str(hit[name]) for name in extra),
            ]
        )
    caption = "The answers, best first; a dash where nothing is known."
    if len(rows) < len(answers):
        caption += f" The first {len(rows)} of {len(answers)} are shown."
    if len(rows) > DRAWN:
        caption += f" The structures of the first {DRAWN} are drawn."
    head = [*first, "rank", "structure", "name and SMILES", "formula", *numbers, *extra]
    right = range(len(first) + 4, len(first) + 4 + len(numbers))
    return table(caption, head, rows, numbers=right)


def fixed(value: float | None, digits: int = 2) -> str:
    """A number with that many decimals, so that a column can be compared; a dash for none."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")
