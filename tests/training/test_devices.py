"""Names of devices, and what "auto" stands for."""

import pytest

from molspectra.errors import SettingError
from molspectra.evaluation.predict import moved
from molspectra.models.model import ModelConfig, MolSpectra
from molspectra.training.config import LoopConfig
from molspectra.training.devices import chosen, is_device


@pytest.mark.parametrize("is_there", [True, False])
def test_auto_is_a_cuda_gpu_or_the_cpu(is_there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: is_there)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)  # taken only where it is named
    assert chosen(LoopConfig().accelerator) == ("cuda" if is_there else "cpu")
    assert [chosen(name) for name in ("cpu", "mps", "cuda:1")] == ["cpu", "mps", "cuda:1"]


def test_names_of_devices() -> None:
    assert all(map(is_device, ("auto", "cpu", "cuda", "cuda:0", "mps")))
    assert not any(map(is_device, ("", "gpu", "CPU", "cuda:", "cuda:-1", "cpu\n", "tpu")))


def test_one_gpu_by_its_number_is_one_device() -> None:
    with pytest.raises(SettingError, match=r"cuda:1 is one device, not 2"):
        LoopConfig(accelerator="cuda:1", devices=2)


def test_auto_moves_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    model = MolSpectra(ModelConfig())
    assert next(moved(model, "auto").parameters()).device.type == "cpu"
    with pytest.raises(SettingError, match="device 'gpu' cannot be used"):
        moved(model, "gpu")
