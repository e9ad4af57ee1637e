"""Sphinx configuration. The pages of the API are written from the modules found in the package."""

import ast
from pathlib import Path

from sphinx.application import Sphinx

import molspectra

PACKAGE = Path(molspectra.__file__).parent
LAYERS = (
    "compiled", "chem", "spectra", "simulation", "data", "datasets", "models", "objectives", "training",
    "evaluation", "reporting", "search", "reproduce", "apps",
)  # fmt: skip

project = "molspectra"
author = "The molspectra developers"
copyright = "The molspectra developers"
version = release = molspectra.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "cache"  # a notebook runs again where its code has changed; `make clean` forgets all
nb_execution_in_temp = True  # runs are not written beside the pages
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # seconds a cell
default_role = "code"
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"molspectra {version}"
html_show_copyright = False

suppress_warnings = ["ref.python"]  # a name that two modules offer may be linked to either
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_default_options = {
    "members": True,
    "ignore-module-all": True,
    "show-inheritance": True,
    # scikit-learn adds these to every estimator, with references into its own documentation
    "exclude-members": "set_fit_request, set_predict_request, set_score_request, set_transform_request",
}
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # fields of a dataclass may stand in "Attributes:"


def modules(layer: str) -> list[str]:
    """Dotted names of a layer's public modules, sorted."""
    paths = sorted(PACKAGE.joinpath(layer).rglob("*.py"))
    names = [".".join(("molspectra", *p.relative_to(PACKAGE).with_suffix("").parts)) for p in paths]
    return [name for name in names if not name.rpartition(".")[2].startswith("_")]


def write_api_pages(app: Sphinx) -> None:
    """Write docs/api/<layer>.md with one section per module; unchanged files are left alone."""
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    for layer in LAYERS:
        purpose = ast.get_docstring(ast.parse((PACKAGE / layer / "__init__.py").read_text(encoding="utf-8")))
        parts = [f"# {layer}", purpose or ""]
        for name in modules(layer):
            parts += [f"## {name}", f"```{{eval-rst}}\n.. automodule:: {name}\n```"]
        text = "\n\n".join(parts) + "\n"
        page = folder / f"{layer}.md"
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")


def escape_bars(
    _app: Sphinx, _what: str, _name: str, _obj: object, _options: object, lines: list[str]
) -> None:
    """Let |x| in docstrings be an absolute value, not a substitution."""
    for i, line in enumerate(lines):
        pieces = line.split("`")
        lines[i] = "`".join(p if k % 2 else p.replace("|", "\\|") for k, p in enumerate(pieces))


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", escape_bars, priority=400)  # before napoleon
    app.connect("builder-inited", write_api_pages)
