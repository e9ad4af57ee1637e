"""The compiled residual attention beside plain torch."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from molspectra.compiled import use
from molspectra.models.transformer_layer import residual_attention

pytest.importorskip("numba")

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}
SIZES = [  # molecules, tokens, heads, width of a head, layers
    (2, 347, 2, 8, 3),
    (3, 64, 2, 8, 1),
    (2, 13, 2, 4, 2),
    (2, 70, 3, 5, 3),
    (1, 1, 1, 1, 1),
    (2, 100, 2, 16, 2),
]


def inputs(molecules, tokens, heads, width, layers, dtype=torch.float64):
    generator = torch.Generator().manual_seed(tokens)
    return [
        torch.randn(molecules, tokens, heads * width, generator=generator, dtype=dtype, requires_grad=True)
        for _ in range(2 * layers + 1)
    ]


def some_visible(molecules, tokens):
    visible = torch.rand(molecules, tokens, generator=torch.Generator().manual_seed(1)) < 0.5
    visible[:, tokens // 2] = True
    return visible


def attend(parts, heads, visible=None, scale=0.4):
    layers = len(parts) // 2
    return residual_attention(parts[:layers], parts[layers:-1], parts[-1], heads, scale, visible)


def values_and_slopes(choice, parts, heads, visible=None):
    with use(choice):
        attended = attend(parts, heads, visible)
    weights = torch.linspace(-1, 2, attended.numel(), dtype=attended.dtype).view_as(attended)
    return attended, *torch.autograd.grad((attended * weights).sum(), parts)


def close(ours, expected):
    tolerance = TOLERANCE[expected[0].dtype]
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(
            one, other, rtol=tolerance, atol=tolerance * float(other.detach().abs().max())
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
def test_equals_plain(sizes, masked, dtype):
    molecules, tokens, heads = sizes[:3]
    parts = inputs(*sizes, dtype=dtype)
    visible = some_visible(molecules, tokens) if masked else None
    ours, expected = (values_and_slopes(choice, parts, heads, visible) for choice in ("compiled", "plain"))
    close(ours, expected)


def test_scores_far_apart():
    parts = inputs(1, 130, 1, 8, 2)
    parts = [part.detach().mul(30.0).requires_grad_() for part in parts]
    close(values_and_slopes("compiled", parts, 1), values_and_slopes("plain", parts, 1))


def test_slices_of_one_product_and_mixed_layouts():
    whole = torch.randn(2, 20, 3 * 16, dtype=torch.float64, requires_grad=True)
    other = torch.randn(2, 16, 20, dtype=torch.float64, requires_grad=True)
    for parts in (list(whole.chunk(3, -1)), [whole[..., :16], other.mT, whole[..., 16:32]]):
        close(values_and_slopes("compiled", parts, 2), values_and_slopes("plain", parts, 2))


def test_what_is_not_visible_does_not_matter():
    parts, visible = inputs(2, 40, 2, 8, 1), some_visible(2, 40)
    changed = [part.detach().clone() for part in parts]
    for part in changed[1:]:
        part[~visible] = torch.nan
    with use("compiled"):
        assert torch.equal(attend(changed, 2, visible), attend(parts, 2, visible))


@pytest.mark.parametrize("part", range(5))
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_stays(part, bad):
    parts = [tensor.detach() for tensor in inputs(2, 40, 2, 8, 2)]
    parts[part][1, 7, 3] = bad  # of the first head
    for tensor in parts:
        tensor.requires_grad_()
    ours, expected = (values_and_slopes(choice, parts, 2) for choice in ("compiled", "plain"))
    for one, other in zip(ours, expected, strict=True):
        assert not one[0].isnan().any()
        assert not one[1, :, 8:].isnan().any()
        assert (one.isnan() | one.isinf())[other.isnan()].all()
    assert ours[0][1].isnan().any() or ours[0][1].isinf().any()


def test_any_number_of_threads_gives_the_same_bits():
    parts, before, results = inputs(3, 50, 4, 8, 2, torch.float32), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(values_and_slopes("compiled", parts, 4))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(result, results[0], strict=True))


@pytest.mark.parametrize("masked", [False, True])
def test_second_derivatives(masked):
    parts = inputs(2, 4, 2, 3, 2)
    visible = some_visible(2, 4) if masked else None
    with use("compiled"), sdpa_kernel(SDPBackend.MATH):
        assert torch.autograd.gradgradcheck(
            lambda *arguments: attend(arguments, 2, visible), parts, fast_mode=True
        )
        assert torch.autograd.gradcheck(lambda *arguments: attend(arguments, 2, visible), parts)


def test_second_derivatives_of_mixed_layouts():
    whole = torch.randn(2, 4, 18, dtype=torch.float64, requires_grad=True)
    other = torch.randn(2, 4, 6, dtype=torch.float64, requires_grad=True)
    with use("compiled"):
        assert torch.autograd.gradgradcheck(
            lambda whole, other: attend([whole[..., :6], whole[..., 6:12], other], 2), (whole, other)
        )


@pytest.mark.parametrize(("heads", "tokens", "seen"), [(4, 5, 5), (2, 4, 5), (2, 5, 3)])
def test_shapes_that_do_not_fit_are_refused(heads, tokens, seen):
    value, key = torch.zeros(2, 5, 6), torch.zeros(2, tokens, 6)
    visible = torch.ones(2, seen, dtype=torch.bool)
    with use("compiled"), pytest.raises(ValueError, match="attention with"):
        residual_attention([value], [key], value, heads, 1.0, visible)


def test_parts_without_gradient():
    parts = inputs(1, 6, 2, 3, 2)
    frozen = [parts[0].detach(), *parts[1:]]
    for create in (False, True):
        with use("compiled"):
            slopes = torch.autograd.grad(attend(frozen, 2).sin().sum(), parts[1:], create_graph=create)
            expected = torch.autograd.grad(attend(parts, 2).sin().sum(), parts[1:])
        close([slope.detach() for slope in slopes], expected)


def test_bfloat16_is_computed_in_float32():
    parts = [part.detach().bfloat16() for part in inputs(2, 30, 2, 8, 2, torch.float32)]
    with use("compiled"):
        attended, wide = attend(parts, 2), attend([part.float() for part in parts], 2)
    assert attended.dtype == torch.bfloat16
    assert torch.equal(attended, wide.bfloat16())
