"""Read the pickle of a checkpoint without making what it describes: no call, no import, no allocation.

A pickle is a program for a small stack machine. Here it runs on a machine whose calls only note what they would build:
a `Claim` for a tensor, a plain dict for a dict, `Inert` for what is no weight. So its cost is bounded by its length,
whatever it asks for, and what is not on the list below is refused by name.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

STEPS_MAX = 500_000  # a ResNet-152 with its optimizer takes some 60,000
NUMBER_MAX = 2**62
DIMENSIONS_MAX = 16
STORAGES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
}
BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}
UNTYPED = "untyped"


class Unreadable(ValueError):
    """The pickle is damaged, or too long."""


class Forbidden(ValueError):
    """The pickle holds more than weights; the text names what."""


@dataclass(frozen=True)
class Global:
    """A class or function by its name; it is never looked up."""

    name: str


@dataclass(frozen=True)
class Storage:
    """A run of numbers in the file: which (key), of what type, how many, and where a view of it begins."""

    key: str
    dtype: str
    numel: int
    begin: int = 0


@dataclass(frozen=True)
class Claim:
    """A tensor as the file describes it; offset and stride count elements of dtype. Nothing is allocated."""

    storage: Storage
    dtype: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class Odd:
    """A tensor that is not dense: sparse, quantised, nested, or without content."""


@dataclass(frozen=True)
class Inert:
    """Something that is no weight and is left out: a device, a learning-rate schedule's counter, ..."""


INERT, ODD = Inert(), Odd()


@dataclass(frozen=True, eq=False)
class Described:
    """What one pickle describes: dicts (their text keys only), lists, tuples, numbers, texts, claims; its storages."""

    root: Any
    storages: dict[str, Storage]


def read(file: BinaryIO) -> Described:
    """Read one pickle; the file is left behind its end.

    Raises:
        Unreadable: it is no pickle, damaged, or longer than half a million steps.
        Forbidden: it names or calls what is no part of a state dict.
    """
    machine = _Machine()
    try:
        for count, (operation, argument, _) in enumerate(pickletools.genops(file)):
            if count >= STEPS_MAX:
                raise Unreadable(f"its pickle has more than {STEPS_MAX:,} steps")
            if operation.name == "STOP":
                return Described(machine.stack.pop(), machine.storages)
            machine.step(operation.name, argument)
    except (Unreadable, Forbidden):
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, EOFError, struct.error, MemoryError) as error:
        raise Unreadable(f"its pickle is damaged ({type(error).__name__})") from error
    raise Unreadable("its pickle has no end")


class _Machine:
    """The stack, the marks on it, and the memo."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def _above_mark(self) -> list[Any]:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def _pop(self, n: int) -> list[Any]:
        if len(self.stack) < n:
            raise Unreadable("its pickle is damaged (empty stack)")
        items = self.stack[len(self.stack) - n :]
        del self.stack[len(self.stack) - n :]
        return items

    def step(self, name: str, argument: Any) -> None:
        """Do one operation."""
        push = self.stack.append
        match name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self.marks.append(len(self.stack))
            case "NONE":
                push(None)
            case "NEWTRUE" | "NEWFALSE":
                push(name == "NEWTRUE")
            case "INT" | "BININT" | "BININT1" | "BININT2" | "LONG" | "LONG1" | "LONG4":
                push(argument if abs(argument) <= NUMBER_MAX else INERT)
            case "FLOAT" | "BINFLOAT":
                push(argument)
            case "STRING" | "BINSTRING" | "SHORT_BINSTRING" | "UNICODE" | "BINUNICODE" | "SHORT_BINUNICODE":
                push(argument)
            case "BINUNICODE8" | "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8":
                push(argument)
            case "EMPTY_LIST" | "EMPTY_DICT" | "EMPTY_TUPLE" | "EMPTY_SET":
                push({"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}.get(name, lambda: INERT)())
            case "LIST":
                push(self._above_mark())
            case "DICT":
                items = self._above_mark()
                push({})
                self._set(items)
            case "TUPLE":
                push(tuple(self._above_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                push(tuple(self._pop(int(name[-1]))))
            case "APPEND":
                self._extend(self._pop(1))
            case "APPENDS" | "ADDITEMS":
                self._extend(self._above_mark())
            case "SETITEM":
                self._set(self._pop(2))
            case "SETITEMS":
                self._set(self._above_mark())
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                push(self.memo[argument])
            case "GLOBAL":
                push(_known(argument.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                push(_known(".".join(self._pop(2))))
            case "BINPERSID":
                push(self._storage(self.stack.pop()))
            case "REDUCE" | "NEWOBJ":
                function, arguments = self._pop(2)
                push(_call(function, arguments))
            case "BUILD":
                target, _attributes = self._pop(2)
                push(_with_attributes(target))
            case _:
                raise Forbidden(f"the pickle operation {name}")

    def _storage(self, identity: Any) -> Storage | Odd:
        storage = _storage(identity)
        if isinstance(storage, Storage):
            known = self.storages.setdefault(storage.key, storage)
            if (known.dtype, known.numel) != (storage.dtype, storage.numel):
                raise Unreadable("its pickle is damaged (two storages of one name)")
        return storage

    def _extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)
        elif not isinstance(self.stack[-1], Inert):
            raise Unreadable("its pickle is damaged (items of what is no list)")

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict | Inert) or len(items) % 2:
            raise Unreadable("its pickle is damaged (items of what is no dict)")
        if isinstance(target, dict):  # other keys name no weight, and hashing them may be made costly
            target.update((key, value) for key, value in zip(items[::2], items[1::2]) if isinstance(key, str))


def _with_attributes(target: Any) -> Any:
    """Return an object that is given attributes as it was before (a state dict has its `_metadata` there)."""
    if not isinstance(target, dict | Claim | Odd | Inert):
        raise Forbidden(f"attributes of a {type(target).__name__}")
    return target


def _known(name: str) -> Global:
    name = name.replace("__builtin__.", "builtins.", 1)
    if name not in CALLS and name not in INERT_NAMES and _dtype(name) is None and not _is_odd(name):
        raise Forbidden(name)
    return Global(name)


def _dtype(name: str) -> str | None:
    """Return the type of numbers that a storage class or a torch.dtype stands for; "" for one that is no weight's."""
    if name in ("torch.storage.UntypedStorage", "torch.UntypedStorage"):
        return UNTYPED
    if name.startswith("torch.") and name.endswith("Storage"):
        return STORAGES.get(name.rsplit(".", 1)[-1].removesuffix("Storage"), "")
    kind = name.removeprefix("torch.")
    if kind in BYTES:
        return kind
    return "" if kind.startswith(("complex", "quint", "qint", "float8", "uint", "float4", "bits")) else None


def _is_odd(name: str) -> bool:
    return name.removeprefix("torch._utils.") in ODD_BUILDERS or name in ODD_VALUES


def _storage(identity: Any) -> Storage | Odd:
    kind, kept, key, _, numel, *rest = identity
    if kind != "storage" or not isinstance(kept, Global) or not isinstance(key, str) or len(rest) > 1:
        raise Unreadable("its pickle is damaged (no storage)")
    dtype = _dtype(kept.name)
    if not dtype:
        return ODD
    begin = 0
    if rest and rest[0] is not None:  # a view into a larger storage, as files of old had it
        _, begin, length = rest[0]
        if _whole(begin) + _whole(length) > _whole(numel):
            raise Unreadable("its pickle is damaged (a view beyond its storage)")
    return Storage(key, dtype, _whole(numel), begin)


def _whole(number: Any) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= NUMBER_MAX:
        raise Unreadable("its pickle is damaged (no size)")
    return number


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any, dtype: Any = None) -> Claim | Odd:
    if isinstance(storage, Odd):
        return ODD
    if not isinstance(storage, Storage) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise Unreadable("its pickle is damaged (no tensor)")
    if len(size) != len(stride) or len(size) > DIMENSIONS_MAX:
        raise Unreadable("its pickle is damaged (a tensor's dimensions)")
    kind = storage.dtype if dtype is None else dtype
    if kind not in BYTES:
        return ODD
    return Claim(storage, kind, _whole(offset), tuple(map(_whole, size)), tuple(map(_whole, stride)))


def _tensor_v3(storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *rest: Any) -> Any:
    return _tensor(storage, offset, size, stride, dtype=_dtype(dtype.name))


def _ordered(pairs: Any = ()) -> dict[str, Any]:
    items = pairs.items() if isinstance(pairs, dict) else [(key, value) for key, value in pairs]
    return {key: value for key, value in items if isinstance(key, str)}


def _from_type(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    return _call(function, arguments)


def _counter(counts: Any = None) -> Inert:
    if counts is not None and not isinstance(counts, dict):
        raise Forbidden("a collections.Counter of what is no dict")
    return INERT


def _bytes(content: Any = b"", *_: Any) -> Inert:
    if not isinstance(content, bytes | str | Inert):
        raise Forbidden("a bytearray of a given length")
    return INERT


def _parameter(data: Any, *_: Any) -> Any:
    if not isinstance(data, Claim | Odd):
        raise Forbidden("a parameter of what is no tensor")
    return data


CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered,
    "collections.Counter": _counter,
    "builtins.bytearray": _bytes,
    "_codecs.encode": _bytes,
    "torch.Size": lambda size=(): tuple(size),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
    "torch._tensor._rebuild_from_type_v2": _from_type,
}
INERT_NAMES = {  # calls that are noted as no weight, whatever they are given
    "argparse.Namespace",
    "builtins.complex",
    "builtins.set",
    "collections.defaultdict",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray.scalar",
    "numpy.dtype",
    "torch.device",
    "torch.serialization._get_layout",
}
ODD_BUILDERS = {
    "_rebuild_device_tensor_from_cpu_tensor",
    "_rebuild_device_tensor_from_numpy",
    "_rebuild_meta_tensor_no_storage",
    "_rebuild_nested_tensor",
    "_rebuild_qtensor",
    "_rebuild_sparse_tensor",
    "_rebuild_wrapper_subclass",
}
ODD_VALUES = {
    "torch.per_tensor_affine",
    "torch.per_tensor_symmetric",
    "torch.per_channel_affine",
    "torch.per_channel_symmetric",
    "torch.per_channel_affine_float_qparams",
}


def _call(function: Any, arguments: Any) -> Any:
    """Return what a call would build; nothing is called but the functions of this file."""
    if not isinstance(function, Global) or not isinstance(arguments, Sequence) or isinstance(arguments, str | bytes):
        raise Unreadable("its pickle is damaged (a call of what is no function)")
    if function.name in CALLS:
        return CALLS[function.name](*arguments)
    if function.name in INERT_NAMES:
        return INERT
    if _is_odd(function.name):
        return ODD
    raise Forbidden(function.name)
