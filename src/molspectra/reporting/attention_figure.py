"""The figure of an attention map: attention received over each mean spectrum, and between modalities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from safetensors.numpy import save

from molspectra.data.atomic import atomic_file
from molspectra.evaluation.attention import AttentionMap, patch_centres
from molspectra.reporting.canvas import write_figure
from molspectra.reporting.wording import number
from molspectra.spectra.style import INK, SERIES, new_figure, styled
from molspectra.training.record import write_json

_LAYER_LINES = ("-", "--", "-.", ":")


def write_attention(attention: AttentionMap, out: str | Path) -> None:
    """Write `attention.json`, `attention.safetensors` (the matrix), `attention.svg` and `.png` into a folder.

    Raises:
        InputError: a file cannot be written.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "attention.json", attention.plain())
    with atomic_file(folder / "attention.safetensors") as file:
        file.write(save({"matrix": attention.matrix.astype(np.float32)}))
    drawn = attention_figure(attention)
    for suffix in (".svg", ".png"):
        write_figure(folder / f"attention{suffix}", drawn, overwrite=True)


def attention_figure(attention: AttentionMap) -> Figure:
    """Draw a panel per modality (mean spectrum, attention of each layer), and a row of matrices below."""
    modalities, layers = list(attention.kinds), len(attention.layers)
    with styled():
        drawn = new_figure(9.6, 2.3 * len(modalities) + 2.9)
        halves: Any = drawn.subfigures(2, 1, height_ratios=(2.3 * len(modalities), 2.9))
        upper, lower = halves
        for row, name in enumerate(modalities):
            axes = upper.add_subplot(len(modalities), 1, row + 1)
            _spectrum_panel(axes, attention, name)
            if row == 0:
                handles, names = axes.get_legend_handles_labels()
                upper.legend(handles, names, loc="outside upper right", ncols=layers + 1)
        for column in range(layers):
            _block_panel(lower.add_subplot(1, layers, column + 1), attention, column)
    return drawn


def _spectrum_panel(axes: Axes, attention: AttentionMap, name: str) -> None:
    """Draw the attention received by the patches over the mean spectrum, scaled to the panel's height."""
    kind, received = attention.kinds[name], attention.received()[name]
    axis, spectrum = kind.axis(), attention.spectra[name]
    top = max(float(received.max()) * 1.08, 1.2)
    height = spectrum / (float(spectrum.max()) or 1.0) * top * 0.9
    axes.fill_between(axis, height, color=INK, alpha=0.14, linewidth=0, label="mean spectrum")
    for index, layer in enumerate(attention.layers):
        style: Any = {
            "color": SERIES[index % len(SERIES)],
            "linestyle": _LAYER_LINES[index % len(_LAYER_LINES)],
        }
        axes.plot(patch_centres(kind), received[index], linewidth=1.3, label=f"layer {layer}", **style)
    axes.axhline(1.0, color=INK, linestyle="--", linewidth=0.9, alpha=0.6)
    axes.set(xlim=(axis[0], axis[-1]), ylim=(0, top), xlabel=kind.unit, title=kind.title or kind.name)
    axes.set_ylabel("attention / uniform")
    axes.grid(False)


def _block_panel(axes: Axes, attention: AttentionMap, index: int) -> None:
    """Draw a layer's share of attention from each modality (rows) to each (columns), uniform shares below."""
    blocks, names = attention.blocks()[index], [name.replace("_", "-") for name in attention.kinds]
    axes.imshow(blocks, vmin=0.0, vmax=1.0, cmap="Blues", alpha=0.75)
    for row in range(len(names)):
        for column, uniform in enumerate(attention.uniform()):
            text = f"{number(float(blocks[row, column]), 2)}\n({number(uniform, 2)})"
            axes.text(column, row, text, ha="center", va="center", fontsize=9)
    axes.set_xticks(range(len(names)), [f"to {name}" for name in names])
    axes.set_yticks(
        range(len(names)), [f"from {name}" for name in names] if index == 0 else [""] * len(names)
    )
    axes.set_title(f"layer {attention.layers[index]} (uniform share)")
    axes.grid(False)
