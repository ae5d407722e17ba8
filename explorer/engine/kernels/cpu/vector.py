"""A few lanes at once in Numba: fixed-length vectors that stay in registers across a loop over time.

Numba leaves vectorising to LLVM, which will not keep an array element in a register while the trip count of the loop
around it is unknown. Here `<lanes x i32>`, `<lanes x float>` and `<lanes x i1>` (truth values) are types of their own,
so a membrane potential is loaded once, lives in registers for all T steps, and is stored once. LLVM splits wide vectors
for narrow machines. Vectors are added, compared and so on by Python's operators, with each other or with a scalar:
this is what lets a spiking law be compiled for them as it stands.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

_I32 = ir.IntType(32)
_LLVM = {"i32": _I32, "f32": ir.FloatType(), "i1": ir.IntType(1)}


class Vec(types.Type):
    """A vector of `lanes` elements of kind "i32", "f32" or "i1"."""

    def __init__(self, kind: str, lanes: int) -> None:
        self.kind, self.lanes = kind, lanes
        super().__init__(f"vec({kind},{lanes})")

    def llvm(self) -> ir.VectorType:
        """Return the LLVM type."""
        return ir.VectorType(_LLVM[self.kind], self.lanes)


@register_model(Vec)
class _VecModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Vec) -> None:
        super().__init__(dmm, fe_type, fe_type.llvm())


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any, target: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), target.as_pointer())


def _repeated(builder: Any, value: Any, vec: Vec) -> Any:
    """Return a scalar repeated in all lanes."""
    undefined = ir.Constant(vec.llvm(), ir.Undefined)
    first = builder.insert_element(undefined, value, _I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, vec.lanes), [0] * vec.lanes))


def _operands(context: Any, builder: Any, sig: Any, args: Any) -> tuple[Vec, list[Any]]:
    """Return the vector type of an operation and its operands, scalars repeated."""
    vec = next(t for t in sig.args if isinstance(t, Vec))
    element = types.int32 if vec.kind == "i32" else types.float32
    values = [
        value if isinstance(kind, Vec) else _repeated(builder, context.cast(builder, value, kind, element), vec)
        for value, kind in zip(args, sig.args, strict=True)
    ]
    return vec, values


def _binary(operation: Any, emit: Callable[[Any, Vec, list[Any]], Any], result: str = "") -> None:
    """Teach Numba an operator between two vectors, or a vector and a scalar; result: the kind of what comes out."""

    class Template(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            vecs = [a for a in args if isinstance(a, Vec)]
            others = [a for a in args if not isinstance(a, Vec)]
            if not vecs or any(v != vecs[0] for v in vecs) or not all(isinstance(o, types.Number) for o in others):
                return None
            return signature(Vec(result or vecs[0].kind, vecs[0].lanes), *(types.unliteral(a) for a in args))

    infer_global(operation)(Template)

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return emit(builder, *_operands(context, builder, sig, args))

    for pair in ((Vec, Vec), (Vec, types.Number), (types.Number, Vec)):
        lower_builtin(operation, *pair)(lower)


def _arithmetic(integer: str, real: str) -> Callable[[Any, Vec, list[Any]], Any]:
    return lambda builder, vec, pair: getattr(builder, integer if vec.kind == "i32" else real)(*pair)


def _comparison(sign: str) -> Callable[[Any, Vec, list[Any]], Any]:
    def emit(builder: Any, vec: Vec, pair: list[Any]) -> Any:
        return (builder.icmp_signed if vec.kind == "i32" else builder.fcmp_ordered)(sign, *pair)

    return emit


_binary(operator.add, _arithmetic("add", "fadd"))
_binary(operator.sub, _arithmetic("sub", "fsub"))
_binary(operator.mul, _arithmetic("mul", "fmul"))
_binary(operator.and_, lambda builder, vec, pair: builder.and_(*pair))
for _operation, _sign in ((operator.lt, "<"), (operator.le, "<="), (operator.gt, ">"), (operator.ge, ">=")):
    _binary(_operation, _comparison(_sign), "i1")


@infer_global(operator.neg)
class _Negated(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        return signature(args[0], args[0]) if isinstance(args[0], Vec) else None


@lower_builtin(operator.neg, Vec)
def _negate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.neg(args[0]) if sig.args[0].kind == "i32" else builder.fneg(args[0])


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
    return vec(types.int32, lanes), lambda context, builder, signature, args: _repeated(builder, args[0], vec)


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
def select(typing_context, condition, a, b):
    """Return a where the condition holds, else b, element by element: what `where` means for vectors."""
    return a(condition, a, b), lambda context, builder, signature, args: builder.select(*args)


@intrinsic(prefer_literal=True)
def pack(typing_context, planes, array, index, stride):
    """Write truth values, a tuple of one vector a plane, as lanes/8 bytes each to array[index + plane * stride :]."""

    def codegen(context, builder, signature, args):
        bits, out, at, step = args
        word = ir.IntType(signature.args[0].dtype.lanes)
        for plane in range(len(signature.args[0])):
            pointer = _address(context, builder, signature.args[1], out, at, word)
            builder.store(builder.bitcast(builder.extract_value(bits, plane), word), pointer, align=1)
            at = builder.add(at, step)
        return context.get_dummy_value()

    return types.void(planes, array, types.intp, types.intp), codegen
