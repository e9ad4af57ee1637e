"""Checks of an installation: versions, optional parts, devices, and a self-test that takes seconds."""

import importlib.util
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from molspectra.errors import MolspectraError

EXTRAS = {
    "simulate": ("tblite", "pyscf", "threadpoolctl"),
    "files": ("cclib",),
    "fast": ("numba",),
    "search": ("faiss",),
    "explorer": ("gradio", "plotly"),
    "cluster": ("executorlib", "zmq"),
}
"""Modules of every optional extra."""


@dataclass(frozen=True)
class Check:
    """Result of one check."""

    name: str
    """Subject of the check."""
    state: Literal["ok", "missing", "failed"]
    """"missing": an optional extra is not installed; "failed": a defect."""
    detail: str
    """Result, with advice if something is wrong."""


def checks() -> Iterator[Check]:
    """Run all checks and yield their results one after the other."""
    from molspectra.training.record import machine, versions

    hardware = machine()
    memory = f"{hardware['memory_gib']} GiB"
    yield Check("machine", "ok", f"{hardware['cpu']}, {hardware['cores']} cores, {memory}")
    yield Check("versions", "ok", ", ".join(f"{name} {number}" for name, number in versions().items()))
    yield Check("devices", "ok", _devices())
    for extra, modules in EXTRAS.items():
        absent = [name for name in modules if importlib.util.find_spec(name) is None]
        detail = (
            f"pip install 'molspectra[{extra}]' adds {', '.join(absent)}" if absent else ", ".join(modules)
        )
        yield Check(f"extra {extra}", "missing" if absent else "ok", detail)
    for name, test in (
        ("bundled data", _bundled),
        ("encoder", _encoder),
        ("kernels", _kernels),
        ("training", _training),
        ("simulation", _simulation),
    ):
        yield _run(name, test)


def _run(name: str, test: Callable[[], str]) -> Check:
    """Run a self-test, which returns a detail or "" if an optional part is missing."""
    began = time.perf_counter()
    try:
        detail = test()
    except MolspectraError as error:
        return Check(name, "failed", str(error))
    except Exception as error:  # any error is a result of the check
        return Check(name, "failed", f"{type(error).__name__}: {error}")
    return Check(
        name,
        "ok" if detail else "missing",
        f"{detail or 'not installed'} ({time.perf_counter() - began:.1f} s)",
    )


def _devices() -> str:
    import torch

    devices = [f"cpu ({torch.get_num_threads()} threads)"]
    if torch.cuda.is_available():
        devices += [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return ", ".join(devices)


def _bundled() -> str:
    from molspectra.data.store.bundled import BUNDLED, bundled

    for name in BUNDLED:
        bundled(name).verify()
    store = bundled()
    others = ", ".join(name for name in BUNDLED if name != "bundled")
    modalities = ", ".join(store.metadata.modalities)
    return f"{len(store)} molecules with {modalities}, {others}; content hash agrees"


def _encoder() -> str:
    import torch

    from molspectra.data.batch import batch_of
    from molspectra.data.store.bundled import bundled
    from molspectra.models.config import EquivariantTransformerConfig, ModelConfig
    from molspectra.models.model import MolSpectra

    torch.manual_seed(0)
    config = EquivariantTransformerConfig(channels=32, layers=2, heads=4, radial=16)
    model = MolSpectra(ModelConfig(config)).double()
    batch = batch_of([bundled().molecule(0)], torch.float64)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    plain = model.encode(batch)
    rotated = model.encode(batch.with_positions(batch.positions @ rotation.T))
    scalars = float((plain.scalars - rotated.scalars).abs().max().detach())
    expected = torch.einsum("xy,nyc->nxc", rotation, plain.vectors)
    vectors = float((expected - rotated.vectors).abs().max().detach())
    if max(scalars, vectors) > 1e-8:
        raise MolspectraError(f"not equivariant: scalars differ by {scalars:.1e}, vectors by {vectors:.1e}")
    return f"rotation changes scalars by {scalars:.0e} and vectors by {vectors:.0e}"


def _kernels() -> str:
    """Compare losses of stage 2 with compiled kernels and with plain torch."""
    from molspectra.compiled import installed, kernels, use

    if not installed():
        return ""
    if kernels() == "plain":
        return "compiled ones are there, but MOLSPECTRA_KERNELS says plain"
    with use("plain"):
        plain = _two_steps()
    with use("compiled"):
        compiled = _two_steps()
    difference = abs(compiled / plain - 1)
    if not difference < 1e-3:
        raise MolspectraError(f"compiled kernels give a loss of {compiled:.6g}, plain torch {plain:.6g}")
    return f"compiled ones change a validation loss by {difference:.0e} of it"


def _training() -> str:
    return f"two steps of stage 2, validation loss {_two_steps():.3g}"


def _two_steps() -> float:
    """Return the validation loss after two steps of stage 2 with a tiny model."""
    import tempfile
    from pathlib import Path

    from molspectra.training.config import PretrainConfig
    from molspectra.training.run import pretrain
    from molspectra.training.settings import from_dict, read_recipe

    settings = read_recipe("small-stage2")
    settings["model"] |= {"encoder": {"channels": 16, "layers": 1, "heads": 2, "radial": 8}}
    settings["loop"] |= {"steps": 2, "batch_size": 4, "validate_every": 0, "save_every": 0}
    settings["data"] = {"fractions": [0.97, 0.01, 0.02]}
    config = from_dict(PretrainConfig, settings, "self-test")
    with tempfile.TemporaryDirectory() as scratch:
        result = pretrain(config, Path(scratch) / "run", show=False)
    return result.metrics["loss"]


def _simulation() -> str:
    if any(importlib.util.find_spec(name) is None for name in EXTRAS["simulate"]):
        return ""
    from molspectra.chem.readers import from_smiles
    from molspectra.simulation.api import simulate

    lines = simulate(from_smiles("O"), ("ir", "raman")).lines["ir"]
    bands = ", ".join(f"{value:.0f}" for value in lines.position)
    return f"water vibrates at {bands} cm⁻¹ (GFN2-xTB)"
