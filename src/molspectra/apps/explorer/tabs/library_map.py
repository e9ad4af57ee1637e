"""The tab with a map of the library."""

from __future__ import annotations

from typing import Any

import gradio as gr

from molspectra.apps.explorer.colours import COLOURS
from molspectra.apps.explorer.frames import message
from molspectra.apps.explorer.site import COMPUTE, LISTEN, SELECT, Site, chosen, guarded
from molspectra.errors import SettingError

WAIT = "The map is being made; the first time this takes about ten seconds for 2,000 molecules."


def add_tab(site: Site) -> None:
    """Add the tab to the page that is being built."""
    with gr.Tab("Map", id="map", elem_id="map-tab") as tab:
        memory = gr.State(None)  # the map and what the last search found
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                text = gr.Textbox(label="Find a name, SMILES or formula", max_lines=1, elem_id="map-search")
                find = gr.Button("Find on the map", variant="primary", elem_id="map-find")
                colour = gr.Dropdown(list(COLOURS), value=COLOURS[0], label="Colour by", elem_id="map-colour")
                status = gr.HTML(message("The map is made when this tab is opened."), elem_id="map-told")
                found = gr.HTML("", js_on_load=SELECT, elem_id="map-matches")
            with gr.Column(scale=3, min_width=320):
                shown = gr.HTML("", js_on_load=LISTEN, elem_id="map-frame")
                molecule = gr.HTML("", elem_id="map-molecule")

        @guarded(4)
        def search(known: Any, colour: str, text: str) -> Any:
            from molspectra.apps.explorer import library_map  # now, as the page is there sooner without it

            if known is None:
                yield message(WAIT), gr.skip(), gr.skip(), gr.skip()
            made = library_map.library_map(site.library) if known is None else known[0]
            matches = library_map.matching(site.library, text)
            yield (
                library_map.told(site.library, made, matches),
                library_map.listed(site.library, matches),
                library_map.drawn(site.library, made, colour, matches),
                (made, matches),
            )

        @guarded(4)
        def enter(known: Any, colour: str, text: str) -> Any:
            if known is None:
                yield from search(known, colour, text)
            else:
                yield tuple(gr.skip() for _ in range(4))

        @guarded(2)
        def recolour(known: Any, colour: str) -> Any:
            from molspectra.apps.explorer import library_map

            if known is None:
                raise SettingError("the map is not there yet")
            told = library_map.told(site.library, *known)
            return told, library_map.drawn(site.library, known[0], colour, known[1])

        @guarded(2)
        def choose(known: Any, event: gr.EventData) -> Any:
            from molspectra.apps.explorer import library_map

            if known is None:
                raise SettingError("the map is not there yet")
            return library_map.told(site.library, *known), library_map.molecule(
                site.library, chosen(event, "choice")
            )

        outputs = [status, found, shown, memory]
        tab.select(enter, [memory, colour, text], outputs, **COMPUTE)
        for event in (text.submit, find.click):
            event(search, [memory, colour, text], outputs, **COMPUTE)
        colour.input(recolour, [memory, colour], [status, shown], **COMPUTE)
        for element in (shown, found):
            element.select(choose, memory, [status, molecule], **COMPUTE)
