import subprocess
import sys

import pytest
import torch

from molspectra.compiled import fast, installed, kernels, use
from molspectra.compiled import switch as module
from molspectra.errors import MissingExtraError, SettingError

HERE = torch.zeros(2)


def test_auto_takes_kernels_where_they_apply():
    with use("auto"):
        assert fast(HERE, HERE) == installed()
        assert fast(HERE.double()) == installed()
        assert not fast(HERE, HERE.double())  # a kernel has one precision
        assert not fast(HERE.bfloat16())
        assert not fast(HERE.to("meta"))


def test_plain_takes_none():
    with use("plain"):
        assert kernels() == "plain"
        assert not fast(HERE)


def test_the_innermost_choice_counts_and_ends_with_its_block(monkeypatch):
    monkeypatch.setenv(module.VARIABLE, "plain")
    assert kernels() == "plain"
    with use("auto"):
        with use("plain"):
            assert kernels() == "plain"
        assert kernels() == "auto"
    assert kernels() == "plain"


def test_unknown_choice(monkeypatch):
    with pytest.raises(SettingError, match=r"'quick'.*auto, plain, compiled"), use("quick"):
        pass
    monkeypatch.setenv(module.VARIABLE, "quick")
    with pytest.raises(SettingError, match=r"MOLSPECTRA_KERNELS.*'quick'"):
        kernels()


def test_without_numba(monkeypatch):
    monkeypatch.setattr(module, "installed", lambda: False)
    with use("auto"):
        assert not fast(HERE)
    with pytest.raises(MissingExtraError, match=r"numba.*molspectra\[fast\]"), use("compiled"):
        pass


def test_a_numba_that_cannot_be_imported_is_none(tmp_path):
    (tmp_path / "numba.py").write_text("raise ImportError('numba needs another numpy')")
    code = f"""import sys
sys.path.insert(0, {str(tmp_path)!r})
import torch
from molspectra.compiled import fast
assert not fast(torch.zeros(2))
assert not fast(torch.zeros(2))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [
        "no compiled kernels, because numba cannot be imported: numba needs another numpy"
    ]


def test_importing_the_package_does_not_import_numba():
    code = "import sys, molspectra.models.model, molspectra.training.loop; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
