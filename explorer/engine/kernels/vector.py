"""A few lanes at once in Numba: fixed-length vectors that stay in registers across a loop over time.

Numba leaves vectorising to LLVM, which will not keep an array element in a register while the trip count of the loop
around it is unknown. Here `<lanes x i32>` and `<lanes x float>` are types of their own, so a membrane potential is
loaded once, lives in registers for all T steps, and is stored once. LLVM splits wide vectors for narrow machines.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

_I32 = ir.IntType(32)


class Vec(types.Type):
    """A vector of `lanes` elements of kind "i32" or "f32"."""

    def __init__(self, kind: str, lanes: int) -> None:
        self.kind, self.lanes = kind, lanes
        super().__init__(f"vec({kind},{lanes})")

    def llvm(self) -> ir.VectorType:
        """Return the LLVM type."""
        return ir.VectorType({"i32": _I32, "f32": ir.FloatType()}[self.kind], self.lanes)


@register_model(Vec)
class _VecModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Vec) -> None:
        super().__init__(dmm, fe_type, fe_type.llvm())


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any, target: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), target.as_pointer())


@intrinsic(prefer_literal=True)
def zeros(typing_context, lanes):
    """Return `lanes` integer zeros."""
    vec = Vec("i32", lanes.literal_value)
    return vec(lanes), lambda context, builder, signature, args: ir.Constant(vec.llvm(), None)


@intrinsic(prefer_literal=True)
def load(typing_context, array, index, lanes):
    """Return array[index : index + lanes] of an int32 or float32 array."""
    vec = Vec("i32" if array.dtype == types.int32 else "f32", lanes.literal_value)

    def codegen(context, builder, signature, args):
        pointer = _address(context, builder, signature.args[0], args[0], args[1], vec.llvm())
        return builder.load(pointer, align=4)

    return vec(array, types.intp, lanes), codegen


@intrinsic(prefer_literal=True)
def store(typing_context, array, index, vec):
    """Write a vector to array[index : index + lanes]."""

    def codegen(context, builder, signature, args):
        pointer = _address(context, builder, signature.args[0], args[0], args[1], signature.args[2].llvm())
        builder.store(args[2], pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vec), codegen


@intrinsic(prefer_literal=True)
def splat(typing_context, value, lanes):
    """Return an int32 repeated `lanes` times."""
    vec = Vec("i32", lanes.literal_value)

    def codegen(context, builder, signature, args):
        undefined = ir.Constant(vec.llvm(), ir.Undefined)
        first = builder.insert_element(undefined, args[0], _I32(0))
        return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, vec.lanes), [0] * vec.lanes))

    return vec(types.int32, lanes), codegen


def _elementwise(integer: str, real: str) -> Any:
    @intrinsic(prefer_literal=True)
    def operation(typing_context, a, b):
        def codegen(context, builder, signature, args):
            return getattr(builder, integer if a.kind == "i32" else real)(*args)

        return a(a, b), codegen

    return operation


add = _elementwise("add", "fadd")
sub = _elementwise("sub", "fsub")
mul = _elementwise("mul", "fmul")


@intrinsic(prefer_literal=True)
def maximum(typing_context, a, b):
    """Return the larger of two integer vectors, element by element."""

    def codegen(context, builder, signature, args):
        return builder.select(builder.icmp_signed(">", *args), *args)

    return a(a, b), codegen


@intrinsic(prefer_literal=True)
def to_float(typing_context, a):
    """Convert integers to float32, rounded to nearest."""
    vec = Vec("f32", a.lanes)
    return vec(a), lambda context, builder, signature, args: builder.sitofp(args[0], vec.llvm())


@intrinsic(prefer_literal=True)
def fire(typing_context, v, theta, bits, index):
    """Write z = [v >= theta] as lanes/8 bytes to bits[index:], and return v - theta * z."""

    def codegen(context, builder, signature, args):
        potential, threshold, array, at = args
        word = ir.IntType(signature.args[0].lanes)
        spikes = builder.fcmp_ordered(">=", potential, threshold)
        pointer = _address(context, builder, signature.args[2], array, at, word)
        builder.store(builder.bitcast(spikes, word), pointer, align=1)
        return builder.select(spikes, builder.fsub(potential, threshold), potential)

    return v(v, theta, bits, types.intp), codegen


@intrinsic(prefer_literal=True)
def pack_positive(typing_context, a, bits, index):
    """Write [a > 0] of an integer vector as lanes/8 bytes to bits[index:]."""

    def codegen(context, builder, signature, args):
        vec, word = signature.args[0], ir.IntType(signature.args[0].lanes)
        positive = builder.icmp_signed(">", args[0], ir.Constant(vec.llvm(), None))
        pointer = _address(context, builder, signature.args[1], args[1], args[2], word)
        builder.store(builder.bitcast(positive, word), pointer, align=1)
        return context.get_dummy_value()

    return types.void(a, bits, types.intp), codegen
