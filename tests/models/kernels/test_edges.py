"""Compiled kernels of the equivariant transformer against plain torch, values and derivatives."""

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from molspectra.chem.molecule import Molecule
from molspectra.compiled import use
from molspectra.data.batch import batch_of
from molspectra.models.equivariant_transformer import EquivariantTransformer, EquivariantTransformerConfig
from molspectra.models.formulas import ExponentialNormal
from molspectra.models.kernels.edges import edge_attention, plain_edge_attention
from molspectra.models.kernels.pairs import KNOTS, pairs_of
from molspectra.models.model import ModelConfig, MolSpectra, energy_and_forces

CONFIG = EquivariantTransformerConfig(channels=32, layers=3, heads=4, radial=16, max_number=20)
VARIANTS = {
    "default": CONFIG,
    "published": replace(CONFIG, vector_cutoff=False, whitening="reference"),
    "md17": replace(CONFIG, layer_norms=False),
    "odd sizes": replace(CONFIG, channels=15, heads=3, radial=5),
}


def molecules(count, seed=0, atoms=12):
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3), -1).reshape(-1, 3) * 1.3
    chosen = [grid[random.permutation(64)[: random.integers(1, atoms)]] for _ in range(count)]
    return [
        Molecule(random.integers(1, 20, len(rows)), rows + random.uniform(-0.2, 0.2, rows.shape))
        for rows in chosen
    ]


def stirred(module, seed=1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator).to(weight)
    return module


def worst(ours, wanted):
    """The largest error of any tensor, relative to its largest value."""
    pairs = zip(ours, wanted, strict=True)
    return max(float((one - two).abs().max() / two.abs().max().clamp(min=1e-6)) for one, two in pairs)


def results(config, batch, forces):
    """Features and the gradients of all weights of a loss on them, or on energies and forces."""
    torch.manual_seed(0)
    model = stirred(MolSpectra(ModelConfig(encoder=config, property="scalar"))).to(batch.positions.dtype)
    if forces:
        energy, force, *_ = energy_and_forces(model, batch, create_graph=True)
        outputs = [energy, force]
    else:
        outputs = list(model.encode(batch))
    loss = sum(
        (torch.cos(torch.arange(output.numel())).to(output) * output.flatten()).sum() for output in outputs
    )
    weights = list(model.encoder.parameters())
    gradients = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
    return [output.detach() for output in outputs], gradients


@pytest.mark.parametrize("forces", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_equal_in_float64(variant, forces):
    batch = batch_of(molecules(6), dtype=torch.float64)
    with use("plain"):
        values, gradients = results(VARIANTS[variant], batch, forces)
    with use("compiled"):
        ours, own = results(VARIANTS[variant], batch, forces)
    assert worst(ours, values) < 1e-9
    assert worst(own, gradients) < 1e-7


@pytest.mark.parametrize(("count", "interpolated"), [(3, False), (80, True)])
def test_equal_in_float32_to_the_rounding_of_the_plain_path(count, interpolated):
    """With many pairs filters are interpolated: still as near to float64 as plain float32 is."""
    batch = batch_of(molecules(count))
    edges = batch.with_edges(5.0).edges
    assert (pairs_of(batch, edges, ExponentialNormal(16, 5.0)).points > 1) == interpolated
    with use("plain"):
        exact = results(CONFIG, batch.to(dtype=torch.float64), forces=False)
        single = results(CONFIG, batch, forces=False)
    with use("compiled"):
        ours = results(CONFIG, batch, forces=False)
    for mine, plains, wanted in zip(ours, single, exact, strict=True):
        assert worst(mine, wanted) < 3 * worst(plains, wanted) + 1e-6


def test_edges_of_another_batch_are_refused():
    small, large = (Molecule(np.full(n, 6), np.arange(3.0 * n).reshape(n, 3) / 3) for n in (2, 5))
    batch, other = batch_of([small, large]), batch_of([large, small]).with_edges(5.0)
    with pytest.raises(ValueError, match="edges do not fit"):
        pairs_of(batch, other.edges, ExponentialNormal(4, 5.0))


def test_interpolated_radial_functions():
    expansion = ExponentialNormal(16, 5.0)
    positions = torch.zeros(2000, 3)
    positions[1::2, 0] = torch.linspace(0.4, 4.999, 1000)
    pairs_wanted = [Molecule(np.array([1, 1]), positions[2 * i : 2 * i + 2].numpy()) for i in range(1000)]
    batch = batch_of(pairs_wanted).with_edges(5.0)
    pairs = pairs_of(batch, batch.edges, expansion)
    assert pairs.points == 4
    assert len(pairs.basis) < KNOTS * 16
    rows = pairs.basis[pairs.row.unsqueeze(1) + torch.arange(4)]
    interpolated = (rows * pairs.weight.unsqueeze(2)).sum(1) * pairs.scale.unsqueeze(1)
    distance = batch.positions[1::2, 0].double() - batch.positions[::2, 0].double()
    distance = torch.cat([distance.new_zeros(1), distance])
    single = expansion(distance.float())
    wanted = expansion.double()(distance)
    assert (interpolated - wanted).abs().max() < min(2e-7, float((single - wanted).abs().max()))


def operation(dtype=torch.float64):
    """Inputs of the edge operation for two molecules."""
    batch = batch_of(molecules(2, seed=3, atoms=6), dtype=dtype).with_edges(5.0)
    pairs = pairs_of(batch, batch.edges, ExponentialNormal(4, 5.0))
    atoms, heads = len(batch.numbers), 2
    generator = torch.Generator().manual_seed(0)
    shapes = [(atoms, 6), (atoms, 6), (atoms, 18), (atoms, 3, 6), (len(pairs.row), heads, 12), (heads, 12)]
    tensors = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    tensors += [pairs.envelope, pairs.direction]
    return [tensor.clone().requires_grad_(True) for tensor in tensors], pairs


@pytest.mark.parametrize("soft", [True, False])
def test_first_and_second_derivatives_of_the_operation(soft):
    inputs, pairs = operation()

    def function(*tensors):
        *rest, envelope, direction = tensors
        envelope = torch.cat([torch.ones_like(envelope[:1]), envelope[1:]])  # a constant for the self-pair
        return edge_attention(*rest, pairs._replace(envelope=envelope, direction=direction), soft)

    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)
    for one, two in zip(function(*inputs), plain_edge_attention(*inputs, pairs, soft), strict=True):
        torch.testing.assert_close(one, two)


def test_layout_of_the_inputs_does_not_matter():
    inputs, pairs = operation()
    turned = [tensor.detach().mT.contiguous().mT for tensor in inputs[:6]]
    assert not any(tensor.is_contiguous() for tensor in turned)
    ours, expected = edge_attention(*turned, pairs, True), edge_attention(*inputs[:6], pairs, True)
    assert all(torch.equal(one, other) for one, other in zip(ours, expected, strict=True))


def test_third_derivatives_are_refused():
    inputs, pairs = operation()
    pairs = pairs._replace(envelope=inputs[-2], direction=inputs[-1])
    scalars, _ = edge_attention(*inputs[:-2], pairs, True)
    (first,) = torch.autograd.grad(scalars.square().sum(), inputs[0], create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        second.square().sum().backward()


@pytest.mark.parametrize("forces", [False, True])
def test_the_same_bits_for_any_number_of_threads(forces):
    batch = batch_of(molecules(80))
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with use("compiled"):
                encoder = stirred(EquivariantTransformer(CONFIG))
                inner = batch.with_edges(5.0)
                inner = inner.with_positions(inner.positions.requires_grad_(forces)).with_edge_list(
                    inner.edges
                )
                pairs = pairs_of(inner, inner.edges, encoder.expansion)
                layer, atoms = encoder.layers[0], len(batch.numbers)
                generator = torch.Generator().manual_seed(2)
                vectors = torch.randn(atoms, 3, 32, generator=generator).requires_grad_(True)
                given = [torch.randn(atoms, n * 32, generator=generator) for n in (1, 1, 3)]
                shape = (len(pairs.basis), 4) if forces else (4, len(pairs.basis))
                rows = torch.randn(*shape, 32, generator=generator).requires_grad_(True)
                bias = layer.key_filter.bias.detach().repeat(4).view(4, 32).requires_grad_(True)
                out = edge_attention(*given, vectors, rows, bias, pairs, True)
                grads = torch.autograd.grad(
                    out[0].square().sum() + out[1].square().sum(), (vectors, rows, bias)
                )
                results.append([*out, *grads])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


def test_not_a_number_stays_with_its_molecule():
    batch = batch_of(molecules(4, seed=5))
    positions = batch.positions.clone()
    positions[int(batch.ptr[2])] = torch.nan
    with use("compiled"), torch.no_grad():
        encoded = EquivariantTransformer(CONFIG)(batch.with_positions(positions).with_edges(5.0))
    bad = batch.molecule == 2
    assert encoded.scalars[bad].isnan().any()
    assert encoded.scalars[~bad].isfinite().all()
    assert encoded.vectors[~bad].isfinite().all()


def test_bfloat16_is_as_near_as_the_plain_path():
    batch = batch_of(molecules(40)).with_edges(5.0)
    encoder = stirred(EquivariantTransformer(CONFIG))
    with torch.no_grad():
        with use("plain"):
            exact = encoder(batch)
            with torch.autocast("cpu", torch.bfloat16):
                half = encoder(batch)
        with use("compiled"), torch.autocast("cpu", torch.bfloat16):
            ours = encoder(batch)
    assert ours.scalars.dtype == torch.float32
    assert worst([ours.scalars.float()], [exact.scalars]) < 2 * worst([half.scalars.float()], [exact.scalars])
