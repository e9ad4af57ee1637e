"""Every number of the reference implementation's golden files, computed by this package.

`MOLSPECTRA_GOLDEN` names another folder in the same layout. Sizes, weights and settings come from the files.
"""

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from molspectra.apps.reference import (
    MODALITIES,
    SLICES,
    ReferenceCheckpoint,
    config_from,
    convert_state,
    our_name,
    read_checkpoint,
)
from molspectra.compiled import Kernels, use
from molspectra.data.batch import Batch
from molspectra.data.neighbours import offsets_of
from molspectra.data.splits import reference_split
from molspectra.models.equivariant_transformer import VectorWhitening
from molspectra.models.model import MolSpectra, energy_and_forces
from molspectra.objectives.alignment import Alignment, AlignmentConfig
from molspectra.objectives.denoising import CoordDenoising, DenoisingConfig, Noised
from molspectra.objectives.reconstruction import MaskedReconstruction, ReconstructionConfig, random_masks
from molspectra.objectives.supervised import Smoothed, regression_loss
from molspectra.training.schedule import ScheduleConfig, learning_rate

GOLDEN = Path(os.environ.get("MOLSPECTRA_GOLDEN", Path(__file__).parent / "golden"))
CASES: list[dict[str, Any]] = json.loads((GOLDEN / "cases.json").read_text())["cases"]
SCALE = "representation_spec_model.backbone.encoder.layers.{}.self_attn.sdp_attn.scale"
SHORT = dict(zip(("uv", "ir", "raman"), MODALITIES, strict=True))


@cache
def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / name) as file:
        return dict(file)


@cache
def weights(name: str) -> ReferenceCheckpoint:
    return read_checkpoint(GOLDEN / name)


def runs() -> list[Any]:
    cases = []
    for case in CASES:
        names = sorted({key.split("/")[0] for key in arrays(case["vectors"]) if "/train/" in key})
        cases += [pytest.param(case, run, id=f"{case['name']}-{run}") for run in names]
    return cases


@dataclass
class Pass:
    """One pass in train or eval mode: every quantity by its golden name."""

    values: dict[str, Tensor]
    total: Tensor


class Reference:
    """A reference case: model, batch and objectives, in the run's precision."""

    def __init__(self, case: dict[str, Any], run: str) -> None:
        self.vectors = arrays(case["vectors"])
        self.run = run
        self.dtype = torch.float64 if run.startswith("f64") else torch.float32
        checkpoint = weights(case["checkpoint"])
        self.settings = json.loads((GOLDEN / case["hparams"]).read_text())
        config = config_from(replace(checkpoint, settings=self.settings))
        self.spectrum = config.spectrum_encoder or config_from(checkpoint).spectrum_encoder
        state = convert_state(checkpoint.state, self.spectrum)
        self.model = MolSpectra(config).to(self.dtype)
        own = self.model.state_dict()
        missing = {name for name in own if name not in state} - {"log_scale"}
        assert not missing
        if not case.get("subset", False):
            extra = {name for name in state if name not in own and not name.startswith("normaliser.")}
            assert not extra
        self.model.load_state_dict({name: state[name] for name in own if name in state}, strict=False)
        if self.model.spectrum_encoder is not None:  # theirs is stored as a float32 number
            self.model.log_scale.data.fill_(-math.log(0.07))
            for index, layer in enumerate(self.model.spectrum_encoder.layers):
                layer.attention.scale = float(checkpoint.state[SCALE.format(index)])
        if self.settings["standardize"]:
            assert self.model.property_head is not None
            self.model.property_head.standardise(case.get("mean", 0.25), case.get("std", 1.5))
        self.denoising = CoordDenoising(DenoisingConfig(normalise="running")).to(self.dtype)
        assert self.denoising.normaliser is not None
        noise = [name for name in state if name.startswith("normaliser.")]
        self.denoising.normaliser.load_state_dict(
            {name.removeprefix("normaliser."): state[name] for name in noise}
        )
        self.alignment = Alignment(AlignmentConfig(form="reference", temperature="fixed"))
        self.batch, self.inputs = self._batch(case)
        self.forces = f"{run}/train/forces" in self.vectors

    def _batch(self, case: dict[str, Any]) -> tuple[Batch, dict[str, Tensor]]:
        inputs = {
            name: torch.from_numpy(array)
            for name, array in arrays(case["inputs"]).items()
            if array.dtype.kind in "if"
        }
        molecules = len(inputs["n_atoms"])
        here = torch.ones(molecules, dtype=torch.bool)
        batch = Batch(
            numbers=inputs["z"],
            positions=inputs["pos"],
            ptr=offsets_of(inputs["n_atoms"]),
            molecule=inputs["batch"],
            row=torch.arange(molecules),
            geometry_id=torch.arange(molecules),
            spectra={name: inputs[short] for short, name in SHORT.items()},
            present=dict.fromkeys(MODALITIES, here),
        ).to(dtype=self.dtype)
        return batch.with_edges(self.model.encoder.cutoff), inputs

    def masks(self) -> dict[str, Tensor]:
        return {name: random_masks(self.inputs[f"mask_noise_{short}"], 0.1) for short, name in SHORT.items()}

    def forward(self, mode: str) -> Pass:
        """The published step: all outputs and losses."""
        model, batch, values = self.model, self.batch, {}
        model.train(mode == "train")
        layers = self._record_layers(values)
        if self.forces:
            energy, values["forces"], encoded, _ = energy_and_forces(model, batch, create_graph=True)
        else:
            encoded = model.encode(batch)
            energy = model.property_head(encoded, batch)
        for hook in layers:
            hook.remove()
        label = "train" if mode == "train" else "val"
        values |= {"x": encoded.scalars, "vec": encoded.vectors, "out": energy.unsqueeze(1)}
        values["mol_feature"] = model.molecule_features(encoded, batch)
        losses: dict[str, tuple[float, Tensor]] = {}
        weights = self.settings
        if weights["denoising_weight"] > 0:
            values["noise_pred"] = model.noise_head(encoded)
            noise = self.inputs["pos_noise"].to(self.dtype)
            if mode == "train":
                assert self.denoising.normaliser is not None
                self.denoising.normaliser.observe([noise])
            denoised = self.denoising({"denoising": values["noise_pred"]}, Noised(batch, noise))
            losses["pos"] = (weights["denoising_weight"], denoised["denoising"].mean)
        if not weights["denoising_only"]:
            target = self.inputs["y"].to(self.dtype)
            loss = regression_loss(values["out"], target).mean
            smooth = Smoothed(weights["ema_alpha_y"] if mode == "train" else 1.0)
            losses["y"] = (weights["energy_weight"], smooth(loss))
        if self.forces:
            target = self.inputs["dy"].to(self.dtype)
            loss = regression_loss(values["forces"], target).mean
            smooth = Smoothed(weights["ema_alpha_dy"] if mode == "train" else 1.0)
            losses["dy"] = (weights["force_weight"], smooth(loss))
        if model.spectrum_encoder is not None:
            losses |= self._spectrum_losses(values)
            values["loss_reconstruct"] = losses["reconstruct"][1]
        total = sum((weight * loss for weight, loss in losses.values()), torch.zeros((), dtype=self.dtype))
        values |= {f"loss_{label}_{name}": loss for name, (_, loss) in losses.items()}
        values[f"loss_{label}"] = total
        return Pass(values, total)

    def _spectrum_losses(self, values: dict[str, Tensor]) -> dict[str, tuple[float, Tensor]]:
        encoder, masks = self.model.spectrum_encoder, self.masks()
        assert encoder is not None
        output = encoder.reference_forward(self.batch.spectra, masks)
        objective = MaskedReconstruction(ReconstructionConfig(0.1), encoder.kinds)
        places = objective.masked_index(masks)
        parts = objective(encoder.reconstruct(output.tokens, index=places), self.batch, places)
        values["spec_feature"] = output.representation
        values["spec_backbone_out_first_and_last_molecule"] = output.tokens[[0, -1]]
        contrast = self.alignment(values["mol_feature"], output.representation, self.model.log_scale)
        return {
            "contrast": (self.settings["contrastive_weight"], contrast.mean),
            "reconstruct": (
                self.settings["reconstruct_weight"],
                sum((part.mean for part in parts.values()), torch.zeros((), dtype=self.dtype)),
            ),
        }

    def _record_layers(self, values: dict[str, Tensor]) -> list[Any]:
        encoder: Any = self.model.encoder

        def store(*names: str) -> Callable[..., None]:
            def hook(module: Any, inputs: Any, output: Any) -> None:
                outputs = output if isinstance(output, tuple) else (output,)
                if names[0].endswith("dx"):  # theirs are the updates alone
                    outputs = tuple(after - before for after, before in zip(outputs, inputs, strict=False))
                values.update(zip(names, outputs, strict=True))

            return hook

        hooks = [encoder.neighbours.register_forward_hook(store("x_after_neighbor_embedding"))]
        for index, layer in enumerate(encoder.layers):
            hooks.append(layer.register_forward_hook(store(f"layer{index}_dx", f"layer{index}_dvec")))
        for index, (one, two) in enumerate(zip(encoder.scalar_norms, encoder.vector_norms, strict=True)):
            hooks.append(one.register_forward_hook(store(f"layer{index}_x_normed")))
            hooks.append(two.register_forward_hook(store(f"layer{index}_vec_normed")))
        return hooks

    def gradient(self, theirs: str) -> Tensor:
        """Gradient by the reference's parameter name; zero where the loss does not reach."""
        named = dict(self.model.named_parameters())
        if theirs == SLICES:
            assert self.spectrum is not None
            grads = [named[f"spectrum_encoder.slices.{name}.weight"].grad for name in self.spectrum.kinds()]
            return torch.cat([grad for grad in grads if grad is not None], dim=1)
        ours = our_name(theirs)
        assert ours is not None
        parameter = named[ours]
        return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def statistics(gradient: Tensor) -> list[float]:
    flat = gradient.double().flatten()
    ramp = torch.linspace(-1, 1, flat.numel(), dtype=torch.float64)
    return [float(flat.norm()), float(flat.sum()), float(flat @ ramp)]


def tolerance(vectors: dict[str, np.ndarray], key: str, through_scale: bool) -> float:
    """Absolute tolerance for a golden array (see golden/README.md and the module docstring)."""
    golden = vectors[key].astype(np.float64)
    size = max(float(np.abs(golden).max(initial=0.0)), 1e-12)
    if key.startswith("f32"):
        exact = vectors.get(key.replace("f32", "f64", 1))
        seen = 0.0 if exact is None else float(np.abs(golden - exact).max(initial=0.0))
        return 4 * seen + 3e-5 * size
    if golden.dtype != vectors[key].dtype:
        return 1e-6 * size
    return (3e-8 if through_scale else 1e-8) * size


def check(vectors: dict[str, np.ndarray], key: str, value: Any, through_scale: bool) -> None:
    ours = value.detach().double().numpy() if isinstance(value, Tensor) else np.asarray(value)
    golden = vectors[key].astype(np.float64)
    assert ours.shape == golden.shape, key
    worst = float(np.abs(ours - golden).max(initial=0.0))
    assert worst <= tolerance(vectors, key, through_scale), f"{key}: differs by {worst}"


@pytest.mark.parametrize("kernels", ["plain", "compiled"])
@pytest.mark.parametrize(("case", "run"), runs())
def test_case(case: dict[str, Any], run: str, kernels: Kernels) -> None:
    with use(kernels):
        compare_case(case, run)


def compare_case(case: dict[str, Any], run: str) -> None:
    torch.manual_seed(0)
    reference = Reference(case, run)
    vectors, seen = reference.vectors, set()
    with_spectra = reference.model.spectrum_encoder is not None

    def compare(key: str, value: Any) -> None:
        if key in vectors:
            seen.add(key)
            check(vectors, key, value, through_scale=with_spectra)

    result = reference.forward("train")
    result.total.backward()
    for name, value in result.values.items():
        compare(f"{run}/train/{name}", value)
    compare_edges(reference, compare)
    names = vectors[f"{run}/train/grad_names"]
    stats = np.array([statistics(reference.gradient(str(name))) for name in names])
    compare(f"{run}/train/grad_stats", stats)
    seen.add(f"{run}/train/grad_names")
    for short, name in SHORT.items():
        compare(f"{run}/mask_{short}", reference.masks()[name].to(torch.uint8))
    compare_buffers(reference, compare)
    with torch.set_grad_enabled(reference.forces):
        for name, value in reference.forward("eval").values.items():
            compare(f"{run}/eval/{name}", value)

    unchecked = {key for key in vectors if key.split("/")[0] == run} - seen
    assert not unchecked


def compare_edges(reference: Reference, compare: Callable[[str, Any], None]) -> None:
    """Their edges come in another order: sort both by (target, source)."""
    key = f"{reference.run}/train/edge_index"
    if key not in reference.vectors:
        return
    edges = reference.batch.edges
    assert edges is not None
    theirs = reference.vectors[key].astype(np.int64)
    order = np.lexsort((theirs[0], theirs[1]))
    np.testing.assert_array_equal(theirs[:, order], torch.stack([edges.source, edges.target]).numpy())
    positions = reference.batch.positions
    distance = (positions[edges.source] - positions[edges.target]).norm(dim=1)
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    compare(key, theirs)
    compare(f"{reference.run}/train/edge_weight", distance[torch.from_numpy(back)])


def compare_buffers(reference: Reference, compare: Callable[[str, Any], None]) -> None:
    """Noise statistics and batch-norm buffers as left by the train pass."""
    run, normaliser = reference.run, reference.denoising.normaliser
    assert normaliser is not None
    for name in ("acc_sum", "acc_squared_sum", "acc_count", "num_accumulations", "mean", "std"):
        compare(f"{run}/after_train/pos_normalizer_{name}", getattr(normaliser, name))
    buffers = dict(reference.model.named_buffers())
    prefix = f"{run}/after_train/bn/"
    for key in [key for key in reference.vectors if key.startswith(prefix)]:
        ours = our_name("representation_spec_model." + key.removeprefix(prefix))
        assert ours is not None
        compare(key, buffers[ours])


def loose(name: str) -> dict[str, np.ndarray]:
    if not (GOLDEN / name).is_file():
        pytest.skip(f"{GOLDEN / name} is not there")
    return arrays(name)


@pytest.mark.parametrize("run", ["f32", "f64"])
def test_whitening(run: str) -> None:
    golden = loose("equivariant_layernorm.npz")
    dtype = torch.float64 if run == "f64" else torch.float32
    vectors = torch.from_numpy(golden["vec_in"]).to(dtype).requires_grad_(True)
    layer = VectorWhitening(vectors.shape[-1], regulariser="reference").to(dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(golden["weight"]))
    out = layer(vectors)
    (out * torch.from_numpy(golden["grad_cotangent"]).to(dtype)).sum().backward()
    for name, value in (("out", out), ("grad_in", vectors.grad)):
        key = next(key for key in golden if key.startswith(run) and key.endswith(name))
        check(golden, key, value, through_scale=False)


@pytest.mark.parametrize("run", ["f32", "f64"])
def test_contrastive(run: str) -> None:
    golden = loose("contrastive.npz")
    dtype = torch.float64 if run == "f64" else torch.float32
    molecules = torch.from_numpy(golden["mol_feature"]).to(dtype)
    spectra = torch.from_numpy(golden["spec_feature"]).to(dtype)
    scale = -torch.log(torch.tensor(float(golden["temperature"]), dtype=dtype))
    objective = Alignment(AlignmentConfig(form="reference", temperature="fixed"))
    value = float(objective(molecules, spectra, scale).mean)
    assert value == pytest.approx(float(golden[f"loss_{run}"]), rel=1e-8 if run == "f64" else 1e-6)


def test_splits() -> None:
    golden = loose("splits.npz")
    train, val = int(golden["train_size"]), int(golden["val_size"])
    split = reference_split(int(golden["dataset_len"]), train, val, seed=int(golden["seed"]))
    for name in ("train", "val", "test"):
        np.testing.assert_array_equal(split[name], golden[f"idx_{name}"])


def test_learning_rates() -> None:
    golden = loose("lr_curves.npz")
    first, factor = (int(value) for value in golden["restarts_T0_Tmult"])
    common: dict[str, Any] = {"warmup": int(golden["warmup"]), "floor": float(golden["eta_min"])}
    peak = float(golden["lr"])
    cosine = ScheduleConfig(kind="cosine", length=int(golden["cosine_T_max"]), **common)
    restarts = ScheduleConfig(kind="restarts", length=first, factor=factor, **common)
    for name, schedule in (("cosine", cosine), ("cosine_warmup", restarts)):
        ours = [learning_rate(schedule, peak, step) for step in range(len(golden[name]))]
        np.testing.assert_allclose(ours, golden[name], rtol=1e-8, atol=1e-15)
