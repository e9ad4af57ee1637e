"""The node part of an attention layer: products of atom features in one pass instead of one per operation."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from molspectra.compiled.simd import array_of, fma, inline, jit, load, real_of, store
from molspectra.compiled.threads import run
from molspectra.models.kernels.arrays import lanes_of

ATOMS = 64
"""Atoms per task."""


@cache
def _kernels(dtype: torch.dtype, lanes: int) -> tuple[Any, Any, Any]:
    reals = array_of(real_of(dtype))

    @inline
    def at(array: Any, start: Any) -> Any:
        return load(array, start, lanes)

    @jit
    def forward(
        first_task: int, last_task: int, atoms: int, channels: int,
        scalars: Any, vectors: Any, mixed: Any, output: Any, summed: Any, out_scalars: Any, out_vectors: Any,
    ) -> None:  # fmt: skip
        scalars, vectors, mixed, output = reals(scalars), reals(vectors), reals(mixed), reals(output)
        summed, out_scalars, out_vectors = reals(summed), reals(out_scalars), reals(out_vectors)
        for atom in range(first_task * ATOMS, min(last_task * ATOMS, atoms)):
            for c in range(0, channels, lanes):
                i, o, v, m = atom * channels, 3 * atom * channels, 3 * atom * channels, 9 * atom * channels
                i, o, v, m = i + c, o + c, v + c, m + c
                o1, o2, o3 = at(output, o), at(output, o + channels), at(output, o + 2 * channels)
                product = at(mixed, m) * at(mixed, m + channels)
                for x in range(1, 3):
                    n = m + 3 * x * channels
                    product = fma(at(mixed, n), at(mixed, n + channels), product)
                store(out_scalars, i, fma(product, o2, at(scalars, i) + o3))
                for x in range(3):
                    n = v + x * channels
                    third = at(mixed, m + (3 * x + 2) * channels)
                    store(out_vectors, n, fma(third, o1, at(vectors, n) + at(summed, n)))

    @jit
    def backward(
        first_task: int, last_task: int, atoms: int, channels: int,
        mixed: Any, output: Any, grad_scalars: Any, grad_vectors: Any, d_mixed: Any, d_output: Any,
    ) -> None:  # fmt: skip
        mixed, output, d_mixed, d_output = reals(mixed), reals(output), reals(d_mixed), reals(d_output)
        grad_scalars, grad_vectors = reals(grad_scalars), reals(grad_vectors)
        for atom in range(first_task * ATOMS, min(last_task * ATOMS, atoms)):
            for c in range(0, channels, lanes):
                o, v, m = 3 * atom * channels + c, 3 * atom * channels + c, 9 * atom * channels + c
                o1, o2 = at(output, o), at(output, o + channels)
                grad = at(grad_scalars, atom * channels + c)
                through = grad * o2
                product = grad - grad
                d_first = product
                for x in range(3):
                    n = m + 3 * x * channels
                    first, second, third = at(mixed, n), at(mixed, n + channels), at(mixed, n + 2 * channels)
                    product = fma(first, second, product)
                    store(d_mixed, n, through * second)
                    store(d_mixed, n + channels, through * first)
                    pull = at(grad_vectors, v + x * channels)
                    store(d_mixed, n + 2 * channels, pull * o1)
                    d_first = fma(pull, third, d_first)
                store(d_output, o, d_first)
                store(d_output, o + channels, grad * product)
                store(d_output, o + 2 * channels, grad)

    @jit
    def second(
        first_task: int, last_task: int, atoms: int, channels: int,
        mixed: Any, output: Any, grad_scalars: Any, grad_vectors: Any, t_mixed: Any, t_output: Any,
        d_mixed: Any, d_output: Any, d_scalars: Any, d_vectors: Any,
    ) -> None:  # fmt: skip
        mixed, output, t_mixed, t_output = reals(mixed), reals(output), reals(t_mixed), reals(t_output)
        grad_scalars, grad_vectors = reals(grad_scalars), reals(grad_vectors)
        d_mixed, d_output = reals(d_mixed), reals(d_output)
        d_scalars, d_vectors = reals(d_scalars), reals(d_vectors)
        for atom in range(first_task * ATOMS, min(last_task * ATOMS, atoms)):
            for c in range(0, channels, lanes):
                o, m = 3 * atom * channels + c, 9 * atom * channels + c
                o1, o2 = at(output, o), at(output, o + channels)
                t1, t2 = at(t_output, o), at(t_output, o + channels)
                grad = at(grad_scalars, atom * channels + c)
                product = grad - grad
                crossed, d_o1 = product, product
                for x in range(3):
                    n, v = m + 3 * x * channels, o + x * channels
                    first, second_, third = at(mixed, n), at(mixed, n + channels), at(mixed, n + 2 * channels)
                    u1, u2 = at(t_mixed, n), at(t_mixed, n + channels)
                    u3, pull = at(t_mixed, n + 2 * channels), at(grad_vectors, v)
                    product = fma(first, second_, product)
                    crossed = fma(u1, second_, fma(u2, first, crossed))
                    d_o1 = fma(u3, pull, d_o1)
                    store(d_mixed, n, grad * fma(o2, u2, t2 * second_))
                    store(d_mixed, n + channels, grad * fma(o2, u1, t2 * first))
                    store(d_mixed, n + 2 * channels, t1 * pull)
                    store(d_vectors, v, fma(u3, o1, t1 * third))
                t3 = at(t_output, o + 2 * channels)
                store(d_scalars, atom * channels + c, fma(o2, crossed, fma(t2, product, t3)))
                store(d_output, o, d_o1)
                store(d_output, o + channels, grad * crossed)
                store(d_output, o + 2 * channels, grad - grad)

    return forward, backward, second


def update(
    scalars: Tensor, vectors: Tensor, mixed: Tensor, output: Tensor, summed: Tensor
) -> tuple[Tensor, Tensor]:
    """`plain_update` of float32 or float64 tensors on the CPU: [N, C] and [N, 3, C]."""
    result: tuple[Tensor, Tensor] = _Update.apply(scalars, vectors, mixed, output, summed)
    return result


def updated(
    scalars: Tensor, vectors: Tensor, mixed: Tensor, output: Tensor, summed: Tensor
) -> tuple[Tensor, Tensor]:
    """`update` without a graph."""
    atoms, channels = scalars.shape
    out = scalars.new_empty(scalars.shape), vectors.new_empty(vectors.shape)
    arrays = (scalars, vectors, mixed, output, summed, *out)
    run(_kernels(scalars.dtype, lanes_of(channels))[0], -(-atoms // ATOMS), atoms, channels, *arrays)
    return out


class _Update(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, scalars: Tensor, vectors: Tensor, mixed: Tensor, output: Tensor, summed: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(mixed, output)
        return updated(scalars, vectors, mixed, output, summed)

    @staticmethod
    def backward(ctx: Any, grad_scalars: Tensor, grad_vectors: Tensor) -> tuple[Tensor | None, ...]:
        arguments = (*ctx.saved_tensors, grad_scalars, grad_vectors)
        further = _Gradients.apply(*arguments) if torch.is_grad_enabled() else update_gradients(*arguments)
        return grad_scalars, grad_vectors, *further, grad_vectors


def no_product(vectors: Tensor, weight: Tensor) -> Tensor:
    """Product [N, 3, 3C] of vectors [N, 3, C] that are zero with a weight [3C, C], whose gradient is 0."""
    product: Tensor = _NoProduct.apply(vectors, weight)
    return product


class _NoProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return vectors.new_zeros(*vectors.shape[:2], len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        (weight,) = ctx.saved_tensors
        return None, torch.zeros_like(weight)


def update_gradients(
    mixed: Tensor, output: Tensor, grad_scalars: Tensor, grad_vectors: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of `mixed` [N, 3, 3C] and `output` [N, 3C]."""
    atoms, channels = grad_scalars.shape
    results = mixed.new_empty(mixed.shape), output.new_empty(output.shape)
    kernel = _kernels(mixed.dtype, lanes_of(channels))[1]
    arrays = (mixed, output, grad_scalars, grad_vectors, *results)
    run(kernel, -(-atoms // ATOMS), atoms, channels, *arrays)
    return results


class _Gradients(torch.autograd.Function):
    """`update_gradients`, differentiable once more."""

    @staticmethod
    def forward(ctx: Any, *arguments: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(*arguments)
        mixed, output, grad_scalars, grad_vectors = arguments
        return update_gradients(mixed, output, grad_scalars, grad_vectors)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, ...]:
        arguments = ctx.saved_tensors
        atoms, channels = arguments[2].shape
        results = tuple(tensor.new_empty(tensor.shape) for tensor in arguments)
        kernel = _kernels(results[0].dtype, lanes_of(channels))[2]
        run(kernel, -(-atoms // ATOMS), atoms, channels, *arguments, *cotangents, *results)
        return results
