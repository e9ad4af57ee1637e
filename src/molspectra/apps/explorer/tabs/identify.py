"""The tab that identifies a measured spectrum."""

from __future__ import annotations

from typing import Any

import gradio as gr

from molspectra.apps.explorer.examples import EXAMPLES, write_example
from molspectra.apps.explorer.frames import message
from molspectra.apps.explorer.site import AS_FILE, COMPUTE, LIGHT, SELECT, Site, chosen, guarded
from molspectra.errors import SettingError
from molspectra.spectra.files.units import AXIS_UNITS, QUANTITIES
from molspectra.spectra.modality import DOS, MODALITIES

_KINDS = [(kind.title, name) for name, kind in MODALITIES.items() if name not in DOS]
WAIT = "The library is being opened; the first time its index is made, which takes half a minute."
_STEPS = [("by what the file says", "auto"), ("as a measured spectrum", "measured"), ("none", "none")]


def add_tab(site: Site) -> None:
    """Add the tab to the page that is being built."""
    with gr.Tab("Identify", id="identify"):
        memory = gr.State(None)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                file = gr.File(label="Spectrum file", file_count="single", type="filepath", height=130)
                example = gr.Dropdown(
                    list(EXAMPLES), value=None, label="Or an example", elem_id="example", interactive=True
                )
                formula = gr.Textbox(label="Molecular formula, if known", max_lines=1, elem_id="formula")
                with gr.Accordion("What the file holds, and what is done to it", open=False):
                    kind = gr.Dropdown(_KINDS, value="ir", label="Kind of spectrum", elem_id="kind")
                    unit = gr.Dropdown([AS_FILE, *AXIS_UNITS], value=AS_FILE, label="Unit of the axis")
                    quantity = gr.Dropdown(
                        [AS_FILE, *QUANTITIES], value=AS_FILE, label="Quantity of the values"
                    )
                    steps = gr.Dropdown(_STEPS, value="auto", label="Steps")
                    with gr.Row():
                        baseline = gr.Number(None, label="Width of the baseline (0: none)")
                        smooth = gr.Number(None, label="Smoothing window")
                    with gr.Row():
                        low = gr.Number(None, label="Compare from")
                        high = gr.Number(None, label="to")
                    with gr.Row():
                        scale = gr.Number(None, label="Factor on the library's axis")
                        mass = gr.Number(None, label="Exact mass, Da (10 ppm)")
                run = gr.Button("Identify", variant="primary", elem_id="run-identify")
                export = gr.Button("Make a page and a table of the answers", elem_id="export")
                files = gr.File(label="Page and table", visible=False, interactive=False, elem_id="exported")
            with gr.Column(scale=3, min_width=320):
                status = gr.HTML(
                    message(
                        "Drop the file of a measured spectrum (JCAMP-DX, text, SPC …), or choose an example."
                        " The molecules of the library whose spectra are most alike are "
                        "listed here, best first; each is drawn below with its spectrum."
                    ),
                    elem_id="identify-told",
                )
                candidates = gr.HTML("", js_on_load=SELECT, elem_id="candidates")
        answer = gr.HTML("", elem_id="answer")

        settings = [kind, unit, quantity, steps, scale, baseline, smooth, low, high, formula, mass]
        outputs = [status, candidates, answer, memory, files]

        @guarded(len(outputs))
        def search(*arguments: Any) -> Any:
            from molspectra.apps.explorer import identify  # now, as the page is there sooner without it

            if not site.is_ready:
                yield message(WAIT), "", "", None, gr.File(visible=False)
            found = identify.identify(site, *arguments)
            shown = identify.explained(site, found, 1) if len(found.hits) else ""
            yield (
                identify.told(found),
                identify.listed(found, 1),
                shown,
                found,
                gr.File(visible=False),
            )

        @guarded(len(outputs))
        def search_example(name: str | None, *values: Any) -> Any:
            if name not in EXAMPLES:
                raise SettingError("choose one of the examples")
            path = write_example(name, site.temporary)
            yield from search(str(path), "ir", *values[1:])

        @guarded(2)
        def choose(found: Any, event: gr.EventData) -> Any:
            from molspectra.apps.explorer import identify

            if found is None:
                raise SettingError("search first")
            try:
                rank = int(chosen(event, "choice"))
            except (TypeError, ValueError):
                raise SettingError("choose one of the candidates") from None
            return identify.told(found), identify.explained(site, found, rank)

        @guarded(2)
        def write(found: Any) -> Any:
            from molspectra.apps.explorer import identify

            paths = identify.exported(site, found)
            return message("The page and the table are below the button."), gr.File(paths, visible=True)

        file.upload(search, [file, *settings], outputs, **COMPUTE)

        def search_either(path: str | None, name: str | None, *values: Any) -> Any:
            yield from search_example(name, *values) if name and not path else search(path, *values)

        run.click(
            search_either,
            [file, example, *settings],
            outputs,
            **COMPUTE,
        )
        example.input(lambda: None, None, file, **LIGHT).then(
            search_example, [example, *settings], outputs, **COMPUTE
        )
        file.upload(lambda: None, None, example, **LIGHT)
        candidates.select(choose, memory, [status, answer], **COMPUTE)
        export.click(write, memory, [status, files], **COMPUTE)
