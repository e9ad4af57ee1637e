from importlib import import_module

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from molspectra.chem.readers import from_smiles
from molspectra.simulation import api
from molspectra.simulation.api import simulate
from molspectra.simulation.threads import one_thread


def counts():
    return {each["filepath"]: each["num_threads"] for each in threadpool_info()}


def test_every_library_is_held_to_one_thread_and_let_go():
    import_module("pyscf.dft")
    import_module("tblite.interface")
    with threadpool_limits(2):
        before = counts()
        assert max(before.values()) == 2
        with one_thread(("tblite.interface", "pyscf.dft")):
            assert set(counts().values()) == {1}
        assert counts() == before


def test_a_simulation_holds_the_libraries_that_it_loads(monkeypatch):
    seen = []

    def look(*_):
        seen.append(counts())
        raise InterruptedError

    monkeypatch.setattr(api, "_vibrations", look)
    with threadpool_limits(2), pytest.raises(InterruptedError):
        simulate(from_smiles("O"))
    assert set(seen[0].values()) == {1}
    assert any("pyscf" in path for path in seen[0])
