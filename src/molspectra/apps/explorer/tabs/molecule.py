"""The tab that shows one molecule: typed, drawn, or of the library."""

from __future__ import annotations

from typing import Any

import gradio as gr

from molspectra.apps.explorer.frames import frame, message
from molspectra.apps.explorer.site import COMPUTE, LIGHT, LISTEN, SELECT, Site, chosen, guarded
from molspectra.apps.explorer.tabs.identify import WAIT
from molspectra.errors import InputError, SettingError
from molspectra.spectra.modality import MODALITIES

_KINDS = [(MODALITIES[name].title, name) for name in ("ir", "raman", "uv_vis")]
_LEVELS = [
    ("GFN2-xTB (seconds)", "gfn2"),
    ("GFN2-xTB with a scaled force field, near to observed frequencies (seconds)", "scaled"),
    ("B3LYP/def2-SVP: infrared alone, minutes even for four heavy atoms", "dft"),
]
_SIMULATE: dict[str, Any] = {
    "concurrency_id": "simulate",
    "concurrency_limit": 1,
    "api_visibility": "private",
    "show_progress": "hidden",
}
"""Simulations take their turn among themselves: minutes of one keep nobody from searching."""


class _Look:
    """What one visitor looks at, and whether its simulation is still wanted."""

    def __init__(self, shown: Any) -> None:
        self.shown, self.is_wanted = shown, False


def add_tab(site: Site) -> None:
    """Add the tab to the page that is being built."""
    with gr.Tab("Molecule", id="molecule"):
        memory = gr.State(None)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                smiles = gr.Textbox(
                    label="SMILES", placeholder="CCO", max_lines=1, max_length=1000, elem_id="smiles"
                )
                with gr.Accordion("Draw it", open=False, elem_id="sketch-open"):
                    sketch = gr.HTML(
                        frame("sketch", {}, "drawing of a molecule", 420), js_on_load=LISTEN, elem_id="sketch"
                    )
                show = gr.Button("Show", variant="primary", elem_id="run-molecule")
                with gr.Accordion("Simulate its spectra", open=True, elem_id="simulate-open"):
                    level = gr.Radio(_LEVELS, value="scaled", label="Level of vibrations", elem_id="level")
                    kinds = gr.CheckboxGroup(_KINDS, value=["ir", "raman"], label="Spectra", elem_id="kinds")
                    with gr.Row():
                        run = gr.Button("Simulate", elem_id="run-simulate")
                        cancel = gr.Button("Cancel", elem_id="cancel-simulate")
                    progress = gr.HTML("", elem_id="simulate-told")
            with gr.Column(scale=3, min_width=320):
                status = gr.HTML(
                    message("Type a SMILES, or draw a molecule, and show it."), elem_id="molecule-told"
                )
                near = gr.HTML("", js_on_load=SELECT, elem_id="nearest")
        drawing = gr.HTML("", elem_id="molecule-drawing")
        caption = gr.HTML("", elem_id="molecule-caption")

        def stop(look: Any) -> Any:
            if look is None or not look.is_wanted:
                return message("Nothing is being simulated.")
            look.is_wanted = False
            return message("Cancelled.")

        @guarded(3)
        def simulate(look: Any, asked: Any, names: list[str]) -> Any:
            from molspectra.apps.explorer import molecule  # now, as the page is there sooner without it

            if look is None:
                raise SettingError("show a molecule first")
            shown, look.is_wanted, before = look.shown, True, None
            for told, result in molecule.simulated(shown.molecule, names, asked):
                if not look.is_wanted:  # cancelled, or another molecule is shown: the process is killed
                    return
                if result is before:
                    yield message(told), gr.skip(), gr.skip()
                else:
                    yield message(told), molecule.drawn(shown, result), molecule.captions(shown, result)
                before = result
            look.is_wanted = False

        run.click(simulate, [memory, level, kinds], [progress, drawing, caption], **_SIMULATE)
        outputs = [status, drawing, caption, near, memory, progress]

        def present(look: Any, molecule_: Any) -> Any:
            """Show a molecule in place of another, then the nearest ones."""
            from molspectra.apps.explorer import molecule

            stop(look)
            shown = molecule.look(site, molecule_)
            told = molecule.told(shown), molecule.drawn(shown), molecule.captions(shown)
            yield *told, "" if site.is_ready else message(WAIT), _Look(shown), ""
            try:
                found = molecule.listed(molecule.nearest(site, molecule_))
            except InputError as error:
                found = message(f"No nearest molecules: {error}")
            yield *(gr.skip() for _ in told), found, gr.skip(), gr.skip()

        @guarded(len(outputs))
        def show_typed(look: Any, text: str) -> Any:
            from molspectra.apps.explorer import molecule

            yield from present(look, molecule.read(text))

        @guarded(len(outputs) + 1)
        def show_near(look: Any, event: gr.EventData) -> Any:
            from molspectra.apps.explorer import molecule

            one = molecule.of_library(site, chosen(event, "choice"))
            for told in present(look, one):
                yield *told, one.smiles or ""

        @guarded(2)
        def drawn(event: gr.EventData) -> Any:
            text = chosen(event, "choice")
            if not isinstance(text, str):
                raise SettingError("draw a molecule")
            return message("Drawn; show it, or go on drawing."), text[:1000]

        for start in (show.click, smiles.submit):
            start(show_typed, [memory, smiles], outputs, **COMPUTE)
        near.select(show_near, memory, [*outputs, smiles], **COMPUTE)
        sketch.select(drawn, None, [status, smiles], **LIGHT)
        cancel.click(stop, memory, progress, **LIGHT)
