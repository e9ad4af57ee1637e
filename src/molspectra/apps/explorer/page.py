"""The page: its tabs and its style."""

from __future__ import annotations

import gradio as gr

from molspectra._version import __version__
from molspectra.apps.explorer.site import Site
from molspectra.apps.explorer.tabs import identify, library_map, molecule, runs

_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")

STYLE = """
.gradio-container { max-width: 1500px !important; }
.told { border-left: 4px solid #0b5cad; padding: 2px 12px; margin: 4px 0; overflow-wrap: anywhere; }
.told p { margin: 4px 0; } .told ul { margin: 4px 0; padding-left: 20px; list-style: disc; }
.told.wrong { border-left-color: #d55e00; }
.told.wrong p::before { content: "⚠ "; }
.choices { list-style: none; padding: 0; margin: 0; display: grid; gap: 4px;
  grid-template-columns: repeat(auto-fill, minmax(270px, 1fr)); }
.choices button { width: 100%; height: 100%; display: flex; gap: 10px; align-items: center; text-align: left;
  border: 1px solid var(--border-color-primary); border-radius: 6px; padding: 4px 8px; cursor: pointer;
  background: var(--block-background-fill); font-weight: 400; overflow-wrap: anywhere; }
.choices button[aria-pressed=true] { border-color: #0b5cad; box-shadow: inset 0 0 0 1px #0b5cad; }
.choices button:focus-visible { outline: 2px solid #0b5cad; outline-offset: 1px; }
.picture { flex: 0 0 84px; } .picture svg { width: 84px; height: auto; display: block; }
.choices strong { display: block; }
.scroll { overflow: auto; max-height: 420px; }
.scroll td, .scroll th { text-align: left; overflow-wrap: anywhere; }
.plot > svg { max-width: 42rem; height: auto; }
#map-matches .choices { max-height: 480px; overflow-y: auto; }
.entry { display: flex; gap: 14px; flex-wrap: wrap; } .facts { overflow-wrap: anywhere; }
.soft { opacity: .75; font-size: .9em; }
"""


def theme() -> gr.themes.Base:
    """Fonts of the machine alone: nothing is loaded from elsewhere."""
    return gr.themes.Default(
        font=[*_FONTS], font_mono=["ui-monospace", "Consolas", "monospace"], primary_hue="blue"
    )


def build(site: Site) -> gr.Blocks:
    """Build the page."""
    with gr.Blocks(title="molspectra", analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
        gr.Markdown(f"# molspectra explorer\n{__version__} · on this computer alone: nothing leaves it")
        with gr.Tabs():
            identify.add_tab(site)
            molecule.add_tab(site)
            library_map.add_tab(site)
            runs.add_tab(site)
    return blocks
