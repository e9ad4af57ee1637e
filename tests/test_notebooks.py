"""Notebooks are kept without results; the build of the documentation runs them and stops at an error."""

import ast
import re
import runpy
from pathlib import Path

import pytest
import yaml

DOCS = Path(__file__).resolve().parents[1] / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").iterdir())
HEADER = re.compile(r"\A---\n(.*?)^---\n", re.DOTALL | re.MULTILINE)
CELL = re.compile(r"^```\{code-cell\} python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_text_whose_cells_are_all_run(path):
    assert path.suffix == ".md"
    text = path.read_text(encoding="utf-8")
    header = yaml.safe_load(HEADER.match(text)[1])
    assert header["kernelspec"]["name"] == "python3"  # the Python that builds the documentation
    assert header["jupytext"]["text_representation"]["format_name"] == "myst"
    cells = CELL.findall(text)
    assert len(cells) > 2
    assert len(cells) == text.count("```{")  # no other kind of block, nor a cell of another language
    for cell in cells:
        ast.parse(cell)
        assert not cell.startswith((":", "---"))  # tags, such as one that skips the cell
    assert f"{{nb-download}}`{path.stem}.ipynb`" in text


def test_the_front_page_links_every_notebook():
    opening = (DOCS / "index.md").read_text(encoding="utf-8").partition("```{toctree}")[0]
    linked = re.findall(r"\{doc\}`notebooks/(\w+)`", opening)
    assert {path.stem for path in NOTEBOOKS} == set(linked)


def test_a_failing_cell_fails_the_build():
    settings = runpy.run_path(str(DOCS / "conf.py"))
    assert "myst_nb" in settings["extensions"]
    assert settings["nb_execution_mode"] in {"cache", "force"}
    assert settings["nb_execution_raise_on_error"] is True
    assert not settings.get("nb_execution_excludepatterns")
    assert not settings.get("nb_execution_allow_errors")
