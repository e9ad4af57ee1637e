"""The tab that shows runs."""

from __future__ import annotations

from typing import Any

import gradio as gr

from molspectra.apps.explorer.frames import message
from molspectra.apps.explorer.site import COMPUTE, Site, guarded

PERIOD = 10
"""Seconds between two looks at the folder while a run is running."""

_QUIET = {**COMPUTE, "show_progress": "hidden"}


def add_tab(site: Site) -> None:
    """Add the tab to the page that is being built."""
    with gr.Tab("Runs", id="runs", elem_id="runs-tab") as tab:
        timer = gr.Timer(PERIOD, active=False)
        status = gr.HTML(message("The folder is read when this tab is opened."), elem_id="runs-told")
        listing = gr.HTML("", elem_id="runs-list")
        with gr.Row():
            choice = gr.Dropdown([], multiselect=True, label="Runs to show", elem_id="runs-choice", scale=3)
            show = gr.Button("Show curves and results", variant="primary", elem_id="runs-show")
            make = gr.Button("Make a report page", elem_id="runs-report")
            refresh = gr.Button("Refresh", elem_id="runs-refresh")
        file = gr.File(label="Report", visible=False, interactive=False, elem_id="runs-file")
        curves = gr.HTML("", elem_id="runs-curves")
        results = gr.HTML("", elem_id="runs-results")

        @guarded(5)
        def look(names: list[str] | None) -> Any:
            from molspectra.apps.explorer import runs  # now, as the page is there sooner without it

            entries = runs.runs_in(site.runs)
            known = [entry.name for entry in entries if entry.is_run]
            kept = [name for name in names or [] if name in known]
            running = {entry.name for entry in entries if entry.state == "running"}
            moves = bool(running & set(kept))  # what stays is not drawn again, which would undo a zoom
            return (
                runs.told(site.runs, entries),
                runs.listed(entries),
                gr.Dropdown(known, value=kept),
                gr.Timer(active=bool(running)),
                runs.curves(runs.chosen_of(site, kept)) if moves else gr.skip(),
            )

        @guarded(3)
        def draw(names: list[str] | None) -> Any:
            from molspectra.apps.explorer import runs

            entries = runs.chosen_of(site, names)
            said = message("The curves and results are below.")
            return said, runs.curves(entries), runs.results(entries)

        @guarded(2)
        def write(names: list[str] | None) -> Any:
            from molspectra.apps.explorer import runs

            path = runs.report(site, names)
            return message("The report is below the buttons."), gr.File(path, visible=True)

        outputs = [status, listing, choice, timer, curves]
        tab.select(look, choice, outputs, **COMPUTE)
        refresh.click(look, choice, outputs, **COMPUTE)
        timer.tick(look, choice, outputs, **_QUIET)
        show.click(draw, choice, [status, curves, results], **COMPUTE)
        make.click(write, choice, [status, file], **COMPUTE)
