"""The attention experiment: maps over wavenumbers of the stage-2 runs, one per seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from molspectra.evaluation.attention import AttentionMap, attention_map
from molspectra.reporting.attention_figure import attention_figure, write_attention
from molspectra.reporting.drawing import Pictures
from molspectra.reporting.markup import Markup, element, page, paragraph, section, table
from molspectra.reporting.wording import number
from molspectra.reproduce.page import Rows, markdown_table, run_rows, title, write_pages
from molspectra.reproduce.plan import Plan
from molspectra.reproduce.results import Results
from molspectra.reproduce.run import state

ABOUT = (
    "Mean attention of the spectrum encoder over whole, unmasked spectra of held-out molecules. A value of 1 "
    "is what a patch would receive if every token paid the same attention to all; the tables tell how the "
    "tokens of one kind of spectrum share theirs out, with the even share in brackets. The paper shows such "
    "maps as pictures; it gives no numbers to compare with."
)


def write(plan: Plan, results: Results, command: str) -> Path:
    """Write the maps of the finished stage-2 runs to `attention/seedS/`; otherwise as `page.write`.

    Raises:
        InputError: a run's data are gone or a file cannot be written.
    """
    maps: dict[int, AttentionMap] = {}
    for run in plan.runs:
        if run.arm == "stage2" and state(run).finished:
            maps[run.seed] = attention_map(run.directory)
            write_attention(maps[run.seed], plan.out / plan.stem / f"seed{run.seed}")
    keys = ("run", "part", "molecules", "layers", "heads", "blocks")  # without the values per patch
    values = {}
    for seed, attention in maps.items():
        facts = attention.plain()
        values[str(seed)] = {key: facts[key] for key in keys}
    markdown, html = _markdown(results, maps, command), _html(results, maps, command)
    return write_pages(plan, {"command": command, "seeds": values}, markdown, html)


def _block_table(attention: AttentionMap) -> tuple[list[str], Rows]:
    """Return head and rows of the shares of attention between modalities, a row per layer and modality."""
    uniform = attention.uniform()
    rows = [
        [
            f"layer {layer}, {name}",
            *(f"{number(v, 2)} ({number(u, 2)})" for v, u in zip(row, uniform, strict=True)),
        ]
        for layer, block in zip(attention.layers, attention.blocks(), strict=True)
        for name, row in zip(attention.kinds, block, strict=True)
    ]
    return ["from", *(f"to {name}" for name in attention.kinds)], rows


def _caption(seed: int, attention: AttentionMap) -> str:
    return f"Seed {seed}: attention between kinds of spectra, mean of {len(attention.rows)} molecules"


def _markdown(results: Results, maps: Mapping[int, AttentionMap], command: str) -> str:
    parts = [f"# {title(results)}", "", ABOUT, ""]
    for seed, attention in maps.items():
        parts += [f"## {_caption(seed, attention)}", "", f"![map](attention/seed{seed}/attention.png)", ""]
        parts += [*markdown_table(*_block_table(attention)), ""]
    parts += ["## Runs", "", "```", command, "```", "", *markdown_table(*run_rows(results))]
    return "\n".join([*parts, ""])


def _html(results: Results, maps: Mapping[int, AttentionMap], command: str) -> str:
    pictures = Pictures()
    parts: list[Markup] = []
    for seed, attention in maps.items():
        head, rows = _block_table(attention)
        text = f"{_caption(seed, attention)}."
        parts.append(
            section(
                f"Seed {seed}",
                pictures.figure(attention_figure(attention), text, text),
                table(text, head, rows, numbers=range(1, len(head))),
                id_=f"seed{seed}",
            )
        )
    runs = section("Runs", element("pre", command), table("All runs.", *run_rows(results)), id_="runs")
    return page(title(results), element("h1", title(results)), paragraph(ABOUT), *parts, runs)
