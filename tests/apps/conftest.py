"""A quickly trained potential of ethanol, for the calculator and for dynamics."""

import pytest

from molspectra.apps.commands.training import read_recipe
from molspectra.training.config import FinetuneConfig
from molspectra.training.run import finetune
from molspectra.training.settings import from_dict


@pytest.fixture(scope="session")
def ethanol_run(tmp_path_factory):
    """Recipe small-md17, smaller and shorter: holds ethanol together, no more."""
    values = read_recipe("small-md17")
    values["model"]["encoder"] |= {"channels": 32, "layers": 2, "radial": 16}
    values["loop"] |= {"steps": 150, "validate_every": 150, "save_every": 0, "log_every": 100}
    values["optimizer"]["learning_rate"] = 3e-3
    out = tmp_path_factory.mktemp("ethanol") / "run"
    return finetune(from_dict(FinetuneConfig, values, "small-md17"), out, show=False).directory
