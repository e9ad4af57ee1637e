"""Descriptors of molecules that a floor learns from."""

import numpy as np
import pytest

from molspectra.chem.molecule import Molecule
from molspectra.errors import ValueRangeError
from molspectra.evaluation.floors import FLOORS, morgan_fingerprints


def molecule(smiles):
    return Molecule(np.array([6]), np.zeros((1, 3)), smiles)


@pytest.mark.parametrize("name", FLOORS)
def test_more_rings_than_their_search_survives_are_refused(name):
    describe = FLOORS[name].describe
    with pytest.raises(ValueRangeError, match="close 301 rings"):
        describe([molecule("C"), molecule("C1CC1" * 301)])


def test_a_smiles_that_cannot_be_read_has_no_environments():
    counts = morgan_fingerprints([molecule("C1CC1"), molecule("C("), molecule("C(C)(C)(C)(C)C")]).sum(1)
    assert counts[0] > 0
    assert counts[1] == counts[2] == 0
