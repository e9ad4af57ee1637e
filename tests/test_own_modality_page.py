"""The code that docs/own_modality.md shows runs."""

import re
from pathlib import Path

import pytest

from molspectra.spectra.modality import MODALITIES

PAGE = Path(__file__).resolve().parents[1] / "docs/own_modality.md"


@pytest.fixture
def undeclared():
    before = dict(MODALITIES)
    yield
    for name in MODALITIES.keys() - before.keys():
        del MODALITIES[name]


@pytest.mark.usefixtures("undeclared")
def test_the_code_runs():
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(block, PAGE.name, "exec"), {})
    assert MODALITIES["nmr_h"].points == 1201
