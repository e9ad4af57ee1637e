"""Vectors of a fixed number of lanes inside numba functions, each operation one LLVM vector instruction.

Loops over channels that touch many arrays are not vectorised reliably by a compiler that cannot know whether
the arrays overlap. Here a kernel is explicit: `load(array, start, lanes)` takes `lanes` neighbouring
numbers, `+ - * /`, `fma`, `exp` and `sigmoid` act on all of them, `total` adds them up, `store` writes them
back. LLVM splits vectors that are wider than the machine's registers, on any processor.

Arrays are one-dimensional and contiguous; `array_of` makes one of a tensor's address. `lanes` is a constant
of the kernel. Vectors have the arrays' type, float32 or float64. Nothing is checked: indices must lie inside.
"""

import math
import operator
from collections.abc import Callable
from typing import Any

import numba
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils, extending
from numba.core.extending import models, overload, register_model

from molspectra.compiled.cache import cached

_INT32 = ir.IntType(32)

intrinsic: Any = extending.intrinsic  # its declared type has the compiler's arguments, not the callers'

jit: Any = cached
"""Decorator of kernels: compiled on first use, cached on disk."""

inline: Any = numba.njit(nogil=True, forceinline=True, error_model="numpy")
"""Decorator of functions that kernels call."""


class Vector(types.Type):
    """`lanes` numbers of one floating type."""

    def __init__(self, scalar: Any, lanes: int) -> None:
        self.scalar, self.lanes = scalar, lanes
        super().__init__(name=f"Vector({scalar}, {lanes})")

    @property
    def llvm(self) -> ir.VectorType:
        """The LLVM type."""
        scalar = ir.FloatType() if self.scalar == types.float32 else ir.DoubleType()
        return ir.VectorType(scalar, self.lanes)

    @property
    def suffix(self) -> str:
        """How names of LLVM's intrinsics end for this type."""
        return f"v{self.lanes}f{self.scalar.bitwidth}"


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, kind.llvm)


def _call(builder: Any, name: str, kind: Vector, values: list[Any], result: Any = None) -> Any:
    """Call an LLVM intrinsic, whose name ends in the vector's suffix."""
    function_type = ir.FunctionType(result or kind.llvm, [value.type for value in values])
    function = cgutils.get_or_insert_function(builder.module, function_type, f"llvm.{name}.{kind.suffix}")
    return builder.call(function, values)


def _constant(kind: Vector, value: float) -> Any:
    return ir.Constant(kind.llvm, [value] * kind.lanes)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any, kind: Vector) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), kind.llvm.as_pointer())


@intrinsic(prefer_literal=True)
def load(typing: Any, array: Any, start: Any, lanes: Any) -> Any:
    """`array[start : start + lanes]` as a vector."""
    kind = Vector(array.dtype, lanes.literal_value)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], values[0], values[1], kind)
        return builder.load(pointer, align=kind.scalar.bitwidth // 8)

    return kind(array, types.intp, lanes), generate


def array_of(kind: Any) -> Any:
    """A function that makes a flat array of an address, as `threads.run` hands tensors over.

    Args:
        kind: numba's type of the numbers. The array's length is unknown to it.
    """
    pointer_kind = types.CPointer(kind)

    def typed(typing: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return builder.inttoptr(values[0], context.get_value_type(pointer_kind))

        return pointer_kind(types.int64), generate

    pointer = intrinsic(typed)
    return inline(lambda address: numba.carray(pointer(address), (1 << 48,)))


def real_of(dtype: torch.dtype) -> Any:
    """Numba's type of the numbers of a tensor.

    Raises:
        ValueError: neither float32 nor float64.
    """
    kinds = {torch.float32: types.float32, torch.float64: types.float64}
    if dtype not in kinds:
        raise ValueError(f"kernels take float32 or float64, not {dtype}")
    return kinds[dtype]


@intrinsic
def store(typing: Any, array: Any, start: Any, vector: Any) -> Any:
    """`array[start : start + lanes] = vector`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], values[0], values[1], vector)
        builder.store(values[2], pointer, align=vector.scalar.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic(prefer_literal=True)
def splat(typing: Any, number: Any, lanes: Any) -> Any:
    """A vector with `number`, a float32 or float64, in every lane."""
    kind = Vector(types.unliteral(number), lanes.literal_value)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        nothing = ir.Constant(kind.llvm, ir.Undefined)
        first = builder.insert_element(nothing, values[0], ir.Constant(_INT32, 0))
        zeros = ir.Constant(ir.VectorType(_INT32, kind.lanes), [0] * kind.lanes)
        return builder.shuffle_vector(first, nothing, zeros)

    return kind(kind.scalar, lanes), generate


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a·b + c of three vectors, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _call(builder, "fma", a, list(values))

    return a(a, a, a), generate


@intrinsic
def total(typing: Any, vector: Any) -> Any:
    """The sum of all lanes, in a fixed order."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        scalar = vector.llvm.element
        function_type = ir.FunctionType(scalar, [scalar, vector.llvm])
        name = f"llvm.vector.reduce.fadd.{vector.suffix}"
        function = cgutils.get_or_insert_function(builder.module, function_type, name)
        return builder.call(function, [scalar(0.0), values[0]], fastmath=("reassoc",))

    return vector.scalar(vector), generate


@intrinsic
def larger(typing: Any, a: Any, b: Any) -> Any:
    """The larger of two vectors, lane by lane; where one is NaN, the other."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _call(builder, "maxnum", a, list(values))

    return a(a, a), generate


def _converted(instruction: str, scalar: Any) -> Any:
    def typed(typing: Any, vector: Any) -> Any:
        kind = Vector(scalar, vector.lanes)

        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            same = vector.scalar == scalar
            return values[0] if same else getattr(builder, instruction)(values[0], kind.llvm)

        return kind(vector), generate

    return intrinsic(typed)


widen = _converted("fpext", types.float64)
"""A vector as float64."""

narrow = _converted("fptrunc", types.float32)
"""A vector as float32."""


def _exp(builder: Any, kind: Vector, x: Any) -> Any:
    """exp(x) = 2ⁿ·exp(r), r = x - n·ln 2 within ±0.35; a polynomial for exp(r), n into the exponent's bits.

    Relative error about 1e-7 in float32, 4e-16 in float64. Results below the smallest normal number are
    that number; above the largest, nearly it. NaN gives a number: callers multiply by x, which keeps NaN.
    """
    double = kind.scalar == types.float64
    bits, shift, bias = (64, 52, 1023) if double else (32, 23, 127)
    high, low = (0.6931471803691238, 1.9082149292705877e-10) if double else (0.693359375, -2.12194440e-4)
    degree = 13 if double else 7
    top = (bias - 0.5) * math.log(2.0)
    x = _call(builder, "minnum", kind, [x, _constant(kind, top)])
    x = _call(builder, "maxnum", kind, [x, _constant(kind, -(bias - 1.5) * math.log(2.0))])
    n = _call(builder, "rint", kind, [builder.fmul(x, _constant(kind, 1 / math.log(2.0)))])
    r = _call(builder, "fma", kind, [n, _constant(kind, -high), x])
    r = _call(builder, "fma", kind, [n, _constant(kind, -low), r])
    value = _constant(kind, 1 / math.factorial(degree))
    for power in range(degree - 1, -1, -1):
        value = _call(builder, "fma", kind, [value, r, _constant(kind, 1 / math.factorial(power))])
    integer = ir.VectorType(ir.IntType(bits), kind.lanes)
    exponent = builder.fptosi(n, integer)
    exponent = builder.shl(
        builder.add(exponent, ir.Constant(integer, [bias] * kind.lanes)),
        ir.Constant(integer, [shift] * kind.lanes),
    )
    return builder.fmul(value, builder.bitcast(exponent, kind.llvm))


@intrinsic
def exp(typing: Any, vector: Any) -> Any:
    """The exponential of every lane to rounding; clamped to the range of normal numbers, also for NaN."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _exp(builder, vector, values[0])

    return vector(vector), generate


@intrinsic
def sigmoid(typing: Any, vector: Any) -> Any:
    """1/(1 + exp(-x)) of every lane; NaN gives a number, x·sigmoid(x) gives NaN."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        one = _constant(vector, 1.0)
        falling = _exp(builder, vector, builder.fsub(_constant(vector, -0.0), values[0]))
        return builder.fdiv(one, builder.fadd(one, falling))

    return vector(vector), generate


def _operation(instruction: str) -> Callable[..., Any]:
    def typed(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return getattr(builder, instruction)(*values)

        return a(a, a), generate

    operation = intrinsic(typed)

    # numba wants the signatures of both to be equal, annotations included
    return lambda a, b: (lambda a, b: operation(a, b)) if isinstance(a, Vector) and a == b else None


for _operator, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    overload(_operator)(_operation(_instruction))

integers = array_of(types.int64)
"""`array_of` for int64."""

doubles = array_of(types.float64)
"""`array_of` for float64."""
