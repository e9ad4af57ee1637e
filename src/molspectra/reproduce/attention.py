"""The experiment about attention: maps over wavenumbers of the stage-2 runs, one per seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from molspectra.data.atomic import atomic_file
from molspectra.evaluation.attention import AttentionMap, attention_map
from molspectra.reporting.attention_figure import attention_figure, write_attention
from molspectra.reporting.drawing import Pictures
from molspectra.reporting.markup import Markup, element, page, paragraph, section, table
from molspectra.reporting.wording import number
from molspectra.reproduce.page import run_rows, title
from molspectra.reproduce.plan import Plan
from molspectra.reproduce.results import Results
from molspectra.reproduce.run import state
from molspectra.training.record import write_json

ABOUT = (
    "Mean attention of the spectrum encoder over whole, unmasked spectra of held-out molecules. A value of 1 "
    "is what a patch would receive if every token paid the same attention to all; the tables tell how the "
    "tokens of one kind of spectrum share theirs out, with the even share in brackets. The paper shows such "
    "maps as pictures; it gives no numbers to compare with."
)


def write(plan: Plan, results: Results, command: str) -> Path:
    """Write the maps of the finished stage-2 runs and a page about them; returns the Markdown's path.

    Maps lie in `attention/seedS/`.

    Args:
        plan: of the experiment.
        results: for the list of runs.
        command: how to repeat it.

    Raises:
        InputError: a run's data are gone or a file cannot be written.
    """
    found: dict[int, AttentionMap] = {}
    for run in plan.runs:
        if run.arm == "stage2" and state(run).finished:
            found[run.seed] = attention_map(run.directory)
    for seed, each in found.items():
        write_attention(each, plan.out / plan.stem / f"seed{seed}")
    base = plan.out / plan.stem
    maps = {str(seed): _facts(each) for seed, each in found.items()}
    write_json(base.with_name(f"{plan.stem}.json"), {"command": command, "seeds": maps})
    for suffix, text in (
        (".md", _markdown(results, found, command)),
        (".html", _html(results, found, command)),
    ):
        with atomic_file(base.with_name(f"{plan.stem}{suffix}")) as file:
            file.write(text.encode())
    return base.with_name(f"{plan.stem}.md")


def _facts(found: AttentionMap) -> dict[str, Any]:
    """The numbers of a map without those per patch."""
    values = found.plain()
    return {key: values[key] for key in ("run", "part", "molecules", "layers", "heads", "blocks")}


def _block_rows(found: AttentionMap) -> list[list[str]]:
    """Rows (layer and modality that looks, then shares) of the shares between modalities."""
    even = found.uniform()
    return [
        [
            f"layer {layer}, {name}",
            *(f"{number(v, 2)} ({number(u, 2)})" for v, u in zip(row, even, strict=True)),
        ]
        for layer, block in zip(found.layers, found.blocks(), strict=True)
        for name, row in zip(found.kinds, block, strict=True)
    ]


def _caption(seed: int, found: AttentionMap) -> str:
    return f"Seed {seed}: attention between kinds of spectra, mean of {len(found.rows)} molecules"


def _markdown(results: Results, found: dict[int, AttentionMap], command: str) -> str:
    parts = [f"# {title(results)}", "", ABOUT, ""]
    for seed, each in found.items():
        head = ["from", *(f"to {name}" for name in each.kinds)]
        parts += [f"## {_caption(seed, each)}", "", f"![map](attention/seed{seed}/attention.png)", ""]
        lines = [head, ["---"] * len(head), *_block_rows(each)]
        parts += ["| " + " | ".join(line) + " |" for line in lines] + [""]
    head, rows = run_rows(results)
    parts += ["## Runs", "", "```", command, "```", ""]
    parts += ["| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rows]]
    return "\n".join([*parts, ""])


def _html(results: Results, found: dict[int, AttentionMap], command: str) -> str:
    pictures = Pictures()
    parts: list[Markup] = []
    for seed, each in found.items():
        head = ["from", *(f"to {name}" for name in each.kinds)]
        text = f"{_caption(seed, each)}."
        parts.append(
            section(
                f"Seed {seed}",
                pictures.figure(attention_figure(each), text, text),
                table(text, head, _block_rows(each), numbers=range(1, len(head))),
                id_=f"seed{seed}",
            )
        )
    runs = section("Runs", element("pre", command), table("All runs.", *run_rows(results)), id_="runs")
    return page(title(results), element("h1", title(results)), paragraph(ABOUT), *parts, runs)
