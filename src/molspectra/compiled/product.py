"""Products of small matrices in registers, for kernels whose operands all lie in one scratch array.

As in `compiled.simd`, nothing is checked, and sizes marked as constants are compiled in.
"""

import math
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numpy.polynomial import Chebyshev, Polynomial

from molspectra.compiled.simd import Vector, _call, _constant, intrinsic

LANES = 16 if binding.get_host_cpu_features().get("avx512f", False) else 8
"""Numbers of a register of this processor in float32; kernels in float64 take two registers each."""


@intrinsic(prefer_literal=True)
def product(
    typing: Any,
    scratch: Any,
    out: Any,
    out_row: Any,
    begin: Any,
    begin_row: Any,
    a: Any,
    a_row: Any,
    a_step: Any,
    b: Any,
    b_step: Any,
    count: Any,
    rows: Any,
    vectors: Any,
    lanes: Any,
) -> Any:
    """C = C₀ + Σ_k A[:, k]·B[k, :] with the whole of C, `rows` times `vectors`·`lanes`, in registers.

    All operands are offsets into `scratch`: row m of C at out + m·out_row, of C₀ at begin + m·begin_row (C
    itself to add to it; begin_row 0 for the same start in all rows), A[m, k] at a + m·a_row + k·a_step, row k
    of B at b + k·b_step; k runs to `count`. Constants: rows, vectors, lanes.
    """
    kind = Vector(scratch.dtype, lanes.literal_value)
    shape = [(m, v) for m in range(rows.literal_value) for v in range(vectors.literal_value)]

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        _, out, out_row, begin, begin_row, a, a_row, a_step, b, b_step, count = values[:11]
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        integer = count.type
        align = kind.scalar.bitwidth // 8

        def offset(start: Any, times: int, step: Any, more: int = 0) -> Any:
            return builder.add(
                builder.add(start, builder.mul(step, integer(times))), integer(more * kind.lanes)
            )

        def vector(index: Any) -> Any:
            return builder.bitcast(builder.gep(data, [index]), kind.llvm.as_pointer())

        sums = {}
        for m, v in shape:
            sums[m, v] = cgutils.alloca_once(builder, kind.llvm)
            start = builder.load(vector(offset(begin, m, begin_row, v)), align=align)
            builder.store(start, sums[m, v])
        nothing = ir.Constant(kind.llvm, ir.Undefined)
        first = ir.Constant(ir.VectorType(ir.IntType(32), kind.lanes), [0] * kind.lanes)
        with cgutils.for_range(builder, count, intp=integer) as loop:
            column = builder.add(a, builder.mul(loop.index, a_step))
            row = builder.add(b, builder.mul(loop.index, b_step))
            right = [
                builder.load(vector(offset(row, 0, integer(0), v)), align=align)
                for v in range(vectors.literal_value)
            ]
            for m in range(rows.literal_value):
                number = builder.load(builder.gep(data, [offset(column, m, a_row)]))
                number = builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
                left = builder.shuffle_vector(number, nothing, first)
                for v, values_right in enumerate(right):
                    total = _call(builder, "fma", kind, [left, values_right, builder.load(sums[m, v])])
                    builder.store(total, sums[m, v])
        for m, v in shape:
            builder.store(builder.load(sums[m, v]), vector(offset(out, m, out_row, v)), align=align)
        return context.get_dummy_value()

    return types.void(scratch, *[types.intp] * 10, rows, vectors, lanes), generate


def _coefficients(double: bool) -> list[float]:
    """Coefficients for 2^r, |r| ≤ 1/2, constant first: a Taylor series in float64, fitted in float32."""
    if double:
        return [math.log(2.0) ** power / math.factorial(power) for power in range(14)]
    fitted = Chebyshev.interpolate(np.exp2, 5, domain=[-0.5, 0.5])
    return [float(value) for value in fitted.convert(kind=Polynomial).coef]


@intrinsic
def decay(typing: Any, vector: Any) -> Any:
    """2^x of every lane for x up to 0; NaN stays NaN.

    Relative error 2e-7 in float32, 4e-16 in float64. Below -125 (float64: -1021) that of -125.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        double = vector.scalar == types.float64
        bits, shift, bias = (64, 52, 1023) if double else (32, 23, 127)
        integer = ir.VectorType(ir.IntType(bits), vector.lanes)
        lowest, magic = _constant(vector, 2.0 - bias), _constant(vector, 1.5 * 2.0**shift + bias)
        x = values[0]
        x = builder.select(builder.fcmp_ordered("<", x, lowest), lowest, x)  # in this order NaN stays
        turned = builder.fadd(x, magic)  # its low bits are the nearest whole number, as an exponent
        r = builder.fsub(x, builder.fsub(turned, magic))
        *others, value = (_constant(vector, number) for number in _coefficients(double))
        for coefficient in reversed(others):
            value = _call(builder, "fma", vector, [value, r, coefficient])
        exponent = builder.shl(builder.bitcast(turned, integer), ir.Constant(integer, [shift] * vector.lanes))
        return builder.fmul(value, builder.bitcast(exponent, vector.llvm))

    return vector(vector), generate
