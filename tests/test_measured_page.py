"""The code that docs/measured_spectra.md shows runs, and its tables name what there is."""

import dataclasses
import re
from pathlib import Path

from molspectra.spectra.measured import Preparation
from molspectra.training.config import SpectraConfig

TEXT = (Path(__file__).resolve().parents[1] / "docs/measured_spectra.md").read_text(encoding="utf-8")


def test_the_code_runs():
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        exec(compile(block, "measured_spectra.md", "exec"), {})


def test_the_tables_name_every_setting():
    for field in dataclasses.fields(Preparation):
        assert f"`{field.name}`" in TEXT
    for field in dataclasses.fields(SpectraConfig):
        assert field.name == "dropout" or f"`spectra.{field.name}`" in TEXT
