"""Identifying a measured spectrum: the search, and what the page shows of its answers."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from molspectra.apps.explorer import frames
from molspectra.apps.explorer.frames import card, choices, message
from molspectra.apps.explorer.site import AS_FILE, Site
from molspectra.errors import InputError, NotFoundError, SettingError, ValueRangeError
from molspectra.printable import printable
from molspectra.reporting.markup import Markup, element
from molspectra.search.bands import Band
from molspectra.search.explain import Explanation, explain
from molspectra.search.figure import SYMBOLS, position
from molspectra.search.hits import Hits
from molspectra.search.page import write_page
from molspectra.search.pipeline import Choice, Pipeline
from molspectra.search.query import Prepared, read_query
from molspectra.spectra.modality import modality

if TYPE_CHECKING:
    from collections.abc import Mapping

LARGEST = 20_000_000
"""Bytes of a file that is read; a spectrum as text has some hundred thousand."""

LISTED = 10
"""Candidates that are shown."""

_CHOOSE = r"choose its \1 under “What the file holds”, and press Identify; it is one of"

_HEIGHT = 560  # pixels of an answer
_TELLING = 0.02  # loss of the score where a band is hidden, from which it is told


@dataclass(frozen=True, eq=False)
class Found:
    """What one search found, kept for one visitor.

    Attributes:
        source: name of the file.
        kind: its modality.
        prepared: the spectrum as it was searched with.
        pipeline: what was done to it.
        hits: the answers.
    """

    source: str
    kind: str
    prepared: Prepared
    pipeline: Pipeline
    hits: Hits


def identify(
    site: Site,
    path: str | None,
    kind: str,
    unit: str,
    quantity: str,
    steps: Choice,
    scale: float | None,
    baseline: float | None,
    smooth: float | None,
    low: float | None,
    high: float | None,
    formula: str,
    mass: float | None,
) -> Found:
    """Search the library for one file.

    Raises:
        InputError: no file, or one that cannot be used, or settings that cannot be.
    """
    if not path:
        raise SettingError("choose a file or an example first")
    if not Path(path).is_file():  # uploads are deleted after an hour
        raise NotFoundError("the file is no longer there; drop it again")
    if (size := Path(path).stat().st_size) > LARGEST:
        raise ValueRangeError(
            f"the file has {size / 1e6:.0f} MB; at most {LARGEST / 1e6:.0f} MB are read here"
        )
    window = None
    if low is not None or high is not None:
        known = modality(kind)
        window = {kind: (known.start if low is None else low, known.stop if high is None else high)}
    if smooth is not None and smooth < 0:
        raise ValueRangeError(f"a smoothing window is 0 or more, not {smooth:g}")
    pipeline = Pipeline(steps, scale or None, baseline, smooth or 0.0, window)
    try:
        prepared = read_query(
            path,
            kind,
            unit=None if unit == AS_FILE else unit,
            quantity=None if quantity == AS_FILE else quantity,
            pipeline=pipeline,
        )
    except InputError as error:
        # people know the name of their file, not where it was uploaded to, and have no command line here
        said = str(error).replace(path, Path(path).name)
        raise InputError(re.sub(r"give (unit|quantity)= \(.*?\) one of", _CHOOSE, said)) from error
    hits = site.library.search(
        {kind: prepared},
        pipeline=pipeline,
        formula=formula.strip() or None,
        mass=mass or None,
        top=LISTED,
    )
    return Found(Path(path).name, kind, prepared, pipeline, hits)


def told(found: Found) -> Markup:
    """What was read and done, and how many candidates there are."""
    hits = found.hits
    text = (
        f"{printable(found.source)}: the first {len(hits)} of {hits.candidates} candidates, "
        f"from {hits.library} molecules in the library. Those of one group are as good as equal. "
        "What was read and done:"
    )
    if not len(hits):
        text = f"{printable(found.source)}: no molecule of the library passes the filters."
    return message(text, items=hits.remarks)


def listed(found: Found, rank: int) -> Markup:
    """The candidates as buttons, with drawing, formula, score and confidence."""
    rows = []
    for place, hit in enumerate(found.hits):
        name = hit["name"] or hit["smiles"] or hit["formula"]
        sure = "" if hit["confidence"] is None else f" · confidence {hit['confidence']:.2f}"
        group = hit.get("group")
        near = f" · group {group}" if group is not None else ""
        line = f"{hit['formula']} · score {hit['score']:.3f}{sure}{near}"
        content = card(hit["smiles"], f"{hit['rank']}. {name}", line, f"c{place}")
        rows.append((str(hit["rank"]), content))
    return frames.whole(choices(rows, "candidates", str(rank)))


def explained(site: Site, found: Found, rank: int) -> Markup:
    """Spectra, bands and structure of one candidate."""
    (each,) = explain(
        site.library,
        _first(found.hits, rank),
        {found.kind: found.prepared},
        pipeline=found.pipeline,
        count=1,
    )
    own = [remark for remark in each.remarks if remark not in found.hits.remarks]
    verdicts = [
        f"{group.group}: {group.verdict} ({group.reason})" for group in each.groups if group.verdict != "open"
    ]
    heading = f"{each.rank}. {each.name or each.smiles or each.formula} ({each.formula})"
    return frames.whole(
        element("h3", heading)
        + _drawn(each)
        + message("Groups that the bands speak for or against:" if verdicts else "", items=[*verdicts, *own])
    )


def _drawn(each: Explanation) -> Markup:
    """Draw one answer: both spectra with their bands, the structure, and the motion of a chosen band."""
    kind = modality(each.modality)
    measured = np.where(each.known, each.query, np.nan)
    candidate = np.where(each.known, each.candidate, np.nan)
    axis, above, below = frames.thinned(each.axis, measured, candidate)
    known = each.axis[each.known] if each.known.any() else each.axis
    shown, rotation = frames.structure(each.molecule if each.assignment is None else each.assignment.molecule)
    moving = None if each.assignment is None else each.assignment.displacements
    bands = [
        {
            "status": band.status,
            "symbol": SYMBOLS[band.status],
            "measured": band.measured,
            "measuredHeight": band.measured_height,
            "computed": band.computed,
            "computedHeight": band.computed_height,
            "label": " / ".join(
                position(place, kind) for place in (band.measured, band.computed) if place is not None
            ),
            "motion": band.motion,
            "role": _role(band),
            "attention": ""
            if band.attention is None
            else f"receives {band.attention:.1f} times uniform attention",
            "moves": None
            if moving is None or not band.modes
            else frames.moves(moving[band.modes[0]], rotation),
        }
        for band in each.bands
    ]
    name = each.name or each.smiles or each.formula
    data = {
        "name": name,
        "unit": kind.unit,
        "axisTitle": f"{kind.quantity} / {kind.unit}",
        "range": [float(known.max()), float(known.min())][:: 1 if kind.name == "ir" else -1],
        "axis": frames.numbers(axis, 6),
        "measured": frames.numbers(above),
        "candidate": frames.numbers(-below),
        "bands": bands,
        "structure": shown,
    }
    return frames.frame("answer", data, f"{kind.title} spectrum, bands and structure of {name}", _HEIGHT)


def _role(band: Band) -> str:
    """What hiding the band changes, in words; "" for little."""
    if band.weight is None or abs(band.weight) < _TELLING:
        return ""
    said = "speaks for this molecule" if band.weight > 0 else "speaks against it"
    return f"{said} ({band.weight:+.2f})".replace("-", "−")


def _first(hits: Hits, rank: int) -> Hits:
    """The answers with that of one rank in front, so that it is explained beside the others."""
    ranks = [hit["rank"] for hit in hits]
    if rank not in ranks:
        raise ValueRangeError(f"there is no candidate {rank}; search again")
    order = sorted(range(len(ranks)), key=lambda place: ranks[place] != rank)
    return replace(hits, table=hits.table.take(order))


def exported(site: Site, found: Found | None) -> list[str]:
    """Write the page and the table of a search; returns their paths.

    Raises:
        SettingError: nothing was searched yet.
    """
    if found is None:
        raise SettingError("search first; the page and the table are about its answers")
    folder = site.folder()
    spectra: Mapping[str, Prepared] = {found.kind: found.prepared}
    explanations = explain(site.library, found.hits, spectra, pipeline=found.pipeline, count=3)
    page = write_page(folder / "candidates.html", found.hits, explanations, {found.kind: found.source})
    found.hits.write(folder / "candidates.csv")
    return [str(page), str(folder / "candidates.csv")]
