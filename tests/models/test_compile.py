"""`torch.compile` traces the passes of all encoders in one graph each, and changes no number."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from molspectra.compiled import use
from molspectra.data.batch import Batch
from molspectra.data.store.bundled import bundled
from molspectra.errors import SettingError
from molspectra.models.config import (
    EGNNConfig,
    EquivariantTransformerConfig,
    ModelConfig,
    SpecFormerConfig,
)
from molspectra.models.model import MolSpectra, energy_and_forces
from molspectra.training.config import FinetuneConfig, LoopConfig

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*should not be instantiated:DeprecationWarning"
)  # torch's own

ENCODERS = [
    EquivariantTransformerConfig(channels=16, layers=1, heads=2, radial=8),
    EquivariantTransformerConfig(channels=16, layers=1, heads=2, radial=8, whitening="reference"),
    EGNNConfig(channels=8, layers=1),
]
SPECFORMER = SpecFormerConfig(width=16, heads=2, layers=2, feed_forward=16)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    with use("plain"):
        yield
    torch._dynamo.reset()


def model_of(encoder: object = ENCODERS[0]) -> MolSpectra:
    torch.manual_seed(0)
    return MolSpectra(ModelConfig(encoder, SPECFORMER, property="scalar"))


def batch_of_rows(*rows: int) -> Batch:
    return bundled().batch(np.array(rows), modalities=("uv_vis", "ir", "raman"))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_3d_encoder_is_one_graph(encoder: object) -> None:
    model = model_of(encoder)
    found = torch._dynamo.explain(model.encoder)(model.with_edges(batch_of_rows(0, 1)))
    assert (found.graph_count, found.graph_break_count) == (1, 0), found.break_reasons


@pytest.mark.parametrize("absent", [False, True])
def test_the_spectrum_encoder_is_one_graph(absent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, batch, seen = model_of().spectrum_encoder, batch_of_rows(0, 1), []
    assert encoder is not None
    batch.present["ir"][1] = not absent
    compute = encoder.compute
    monkeypatch.setattr(encoder, "compute", lambda *args: seen.append(args) or compute(*args))
    encoder(batch.spectra, batch.present)
    found = torch._dynamo.explain(compute)(*seen[0])
    assert (seen[0][4] is None) is not absent
    assert (found.graph_count, found.graph_break_count) == (1, 0), found.break_reasons


def gradients(model: MolSpectra, batch: Batch) -> Tensor:
    model.zero_grad()
    assert model.spectrum_encoder is not None
    encoded = model.encode(batch)
    read = model.spectrum_encoder(batch.spectra, batch.present).representation
    (model.predict(encoded, batch)[0].sum() + encoded.vectors.square().sum() + read.pow(3).sum()).backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


def test_compiled_passes_give_the_same_gradients_and_forces() -> None:
    plain, compiled = model_of(), model_of()
    compiled.compile_passes("aot_eager")
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    for rows in ((0, 1, 2), (3, 4)):  # other sizes
        batch = batch_of_rows(*rows)
        torch.testing.assert_close(gradients(compiled, batch), gradients(plain, batch), rtol=1e-5, atol=1e-5)
    forces = (energy_and_forces(model, batch).forces for model in (plain, compiled))
    torch.testing.assert_close(*forces, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_compiled_is_refused() -> None:
    with pytest.raises(SettingError, match=r"loop\.compile works on one device, not 2"):
        LoopConfig(compile=True, devices=2)
    with pytest.raises(SettingError, match=r"set loop\.kernels: auto"):
        LoopConfig(compile=True, kernels="compiled")
    with pytest.raises(SettingError, match="takes second derivatives"):
        FinetuneConfig(forces=True, loop=LoopConfig(compile=True))
