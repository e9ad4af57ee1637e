"""The page: its tabs and its style."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from molspectra._version import __version__
from molspectra.apps.explorer.site import Site
from molspectra.apps.explorer.tabs import identify, library_map, molecule, runs

_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")

STYLE = """
.gradio-container { max-width: 1500px !important; --seen: #0b5cad; }
.dark .gradio-container, .gradio-container.dark { --seen: #7cb7f5; }
.gradio-container :is(input, textarea):focus-visible { outline: 2px solid var(--seen) !important; }
:root:not(.dark) body:not(.dark) button[role=tab].selected { color: var(--seen); }
.wrap .or { color: inherit; }
.told { border-left: 4px solid var(--seen); padding: 2px 12px; margin: 4px 0; overflow-wrap: anywhere; }
.told p { margin: 4px 0; } .told ul { margin: 4px 0; padding-left: 20px; list-style: disc; }
.told.wrong { border-left-color: #d55e00; }
.told.wrong p::before { content: "⚠ "; }
.choices { list-style: none; padding: 0; margin: 0; display: grid; gap: 4px;
  grid-template-columns: repeat(auto-fill, minmax(270px, 1fr)); }
.choices button { width: 100%; height: 100%; display: flex; gap: 10px; align-items: center; text-align: left;
  border: 1px solid var(--border-color-primary); border-radius: 6px; padding: 4px 8px; cursor: pointer;
  background: var(--block-background-fill); font-weight: 400; overflow-wrap: anywhere; }
.choices button[aria-pressed=true] { border-color: var(--seen); box-shadow: inset 0 0 0 1px var(--seen); }
.choices button:focus-visible { outline: 2px solid var(--seen); outline-offset: 1px; }
.picture { flex: 0 0 84px; } .picture svg { width: 84px; height: auto; display: block; }
.choices strong { display: block; }
.scroll { overflow: auto; max-height: 420px; }
.scroll td, .scroll th { text-align: left; overflow-wrap: anywhere; }
.plot > svg { max-width: 42rem; height: auto; }
#map-matches .choices { max-height: 480px; overflow-y: auto; }
.entry { display: flex; gap: 14px; flex-wrap: wrap; } .facts { overflow-wrap: anywhere; }
.soft { opacity: .75; font-size: .9em; }
@media (max-width: 780px) { iframe.drawing-answer, iframe.drawing-molecule { height: 960px !important; } }
"""


def theme() -> gr.themes.Base:
    """Fonts of the machine alone: nothing is loaded from elsewhere."""
    return gr.themes.Default(
        font=[*_FONTS], font_mono=["ui-monospace", "Consolas", "monospace"], primary_hue="blue"
    ).set(  # white on primary_500 is too faint
        button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700"
    )


class Page(gr.Blocks):
    """A page that takes files which were uploaded to it, and no others.

    A request may name any path or address as its file. Gradio would copy it to where it can be downloaded:
    of paths, it checks those of pages that it serves itself, which a mounted one is not; of addresses, it
    takes all but those of this machine.
    """

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *more: Any, **options: Any) -> Any:
        """Refuse inputs with other files."""
        folder = Path(get_upload_folder()).resolve()
        for path in _files(inputs):
            # a NUL cannot be resolved; an address is a relative path, and as such not below the folder
            if "\0" in path or "://" in path or not Path(path).resolve().is_relative_to(folder):
                raise gr.Error("this file was not uploaded; drop it on the page", print_exception=False)
        return await super().preprocess_data(block_fn, inputs, *more, **options)


def _files(values: Any) -> Iterator[str]:
    """Paths of the files in the inputs of a request, at any depth."""
    if isinstance(values, dict):
        if isinstance(values.get("path"), str):
            yield values["path"]
        values = list(values.values())
    if isinstance(values, list):
        for value in values:
            yield from _files(value)


def build(site: Site) -> gr.Blocks:
    """Build the page."""
    with Page(title="molspectra", analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
        gr.Markdown(f"# molspectra explorer\n{__version__} · on this computer alone: nothing leaves it")
        with gr.Tabs():
            identify.add_tab(site)
            molecule.add_tab(site)
            library_map.add_tab(site)
            runs.add_tab(site)
    return blocks
