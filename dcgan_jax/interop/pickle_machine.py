"""A pickle machine that builds plain values and tensors' descriptions, and runs no code.

A pickle is a program for a small stack machine. `pickletools` decodes it, and `Machine` runs only the opcodes that
build plain values and containers. The few calls that rebuild tensors are recognised by name; any other is an error.
Objects of classes are not built: a note of the class's name takes their place, and that of what `BESIDE` would make.
"""

import pickletools
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

DTYPES: dict[str, Any] = {
    "torch FloatStorage": np.float32,
    "torch DoubleStorage": np.float64,
    "torch HalfStorage": np.float16,
    "torch BFloat16Storage": ml_dtypes.bfloat16,
    "torch LongStorage": np.int64,
    "torch IntStorage": np.int32,
    "torch ShortStorage": np.int16,
    "torch CharStorage": np.int8,
    "torch ByteStorage": np.uint8,
    "torch BoolStorage": np.bool_,
}

# Packages whose calls make what checkpoints hold beside weights: paths, dates, numpy's random states, counters. Of
# `torch` only its own names, such as torch.device: those of its modules rebuild tensors.
BESIDE = ("_codecs", "argparse", "collections", "datetime", "numpy", "pathlib")


class Unreadable(Exception):
    """The reason, in a few words, why a file cannot be read."""


@dataclass(frozen=True)
class Name:
    """A function or class that the pickle refers to, as 'MODULE NAME'."""

    name: str


class Object:
    """In place of an object of a class, which is not built. state: its attributes, if the pickle gives them."""

    def __init__(self, name: str):
        self.name = name
        self.state: Any = None

    def put(self, *_: Any) -> None:
        """What a class puts into itself is dropped."""

    append = extend = update = put


@dataclass(frozen=True)
class Storage:
    """An array of numbers that lies beside the pickle, by its key there."""

    key: str
    dtype: Any
    count: int


@dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides count numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Machine:
    """The pickle machine: a stack, marks in it, and a memo; and the storages that the pickle refers to, by key."""

    def __init__(self) -> None:
        self.storages: dict[str, Storage] = {}
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, stream: Any) -> Any:
        """The object that the next pickle of a stream builds. Raises Unreadable for an opcode that is not allowed."""
        argument: Any
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "STOP":
                return self._stack.pop()
            self._push(opcode.name, argument)
        raise Unreadable("it ends in the middle")

    def _push(self, opcode: str, argument: Any) -> None:
        """Plain values, names, marks and the memo."""
        match opcode:
            case "PROTO" | "FRAME":
                pass
            case "NONE":
                self._stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                self._stack.append(opcode == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                self._stack.append(argument)
            case "BINBYTES" | "SHORT_BINBYTES" | "BYTEARRAY8":
                self._stack.append(argument)
            case "GLOBAL":
                self._stack.append(Name(argument))
            case "STACK_GLOBAL":
                name, module = self._stack.pop(), self._stack.pop()
                self._stack.append(Name(f"{module} {name}"))
            case "MARK":
                self._marks.append(len(self._stack))
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = self._stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = self._stack[-1]
            case "BINGET" | "LONG_BINGET":
                self._stack.append(self._memo[argument])
            case _:
                self._build(opcode)

    def _build(self, opcode: str) -> None:
        """Containers and tensors, made of what is on the stack."""
        stack = self._stack
        match opcode:
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_SET" | "EMPTY_TUPLE":  # sets are lists here
                stack.append({"EMPTY_DICT": {}, "EMPTY_LIST": [], "EMPTY_SET": [], "EMPTY_TUPLE": ()}[opcode])
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(opcode[-1])
                stack[-size:] = [tuple(stack[-size:])]
            case "TUPLE" | "FROZENSET":
                stack.append(tuple(self._since_mark()))
            case "APPEND":
                stack[-2].append(stack.pop())
            case "APPENDS" | "ADDITEMS":
                items = self._since_mark()
                stack[-1].extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                stack[-1].update({key: value})
            case "SETITEMS":
                items = self._since_mark()
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            case "BINPERSID":
                stack.append(_persistent(stack.pop(), self.storages))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                within_object = bool(stack) and isinstance(stack[0], Object)
                stack.append(Object(str(function)) if within_object else _call(function, arguments))
            case "NEWOBJ":
                _, kind = stack.pop(), stack.pop()
                stack.append(Object(getattr(kind, "name", "unknown")))
            case "BUILD":
                state = stack.pop()
                if isinstance(stack[-1], Object):
                    stack[-1].state = state
                elif not isinstance(
                    stack[-1], dict
                ):  # whose attributes, such as the version of each layer, are left out
                    raise Unreadable("it holds attributes of what has none")
            case _:
                raise Unreadable(f"it holds what is neither a tensor nor a plain value ({opcode})")

    def _since_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items


def _persistent(identity: Any, storages: dict[str, Storage]) -> Storage | Name:
    """What PyTorch keeps outside of the pickle: an array, or in older files the class of a module with its source."""
    if identity[0] == "module" and isinstance(identity[1], Name):
        return identity[1]
    kind, dtype, key, _, count, *_ = identity
    if kind != "storage" or not isinstance(dtype, Name) or dtype.name not in DTYPES or count < 0:
        raise Unreadable(f"it holds an array of an unknown kind ({getattr(dtype, 'name', dtype)})")
    return storages.setdefault(key, Storage(key, DTYPES[dtype.name], count))


def _call(function: Any, arguments: Any) -> Any:
    """The result of one of the allowed calls: an empty dictionary, a set of plain values, as a list, or a tensor.

    Nothing is called. In place of what one of the modules `BESIDE` would make there is an `Object`.
    """
    name = function.name if isinstance(function, Name) else None
    if (name == "collections OrderedDict" and not arguments) or name == "collections defaultdict":
        return {}
    kind = name.removeprefix("__builtin__ ").removeprefix("builtins ") if name else ""
    if kind in ("set", "frozenset"):  # a module has one among its attributes
        return list(*arguments)
    if name == "torch._utils _rebuild_tensor_v2":
        storage, offset, shape, strides = arguments[:4]
        if not isinstance(storage, Storage):
            raise Unreadable("it holds a tensor without numbers")
        return Tensor(storage, offset, shape, strides)
    of_parameter = ("torch._utils _rebuild_parameter", "torch._utils _rebuild_parameter_with_state")
    if name in of_parameter and isinstance(arguments[0], Tensor):
        return arguments[0]
    module = name.partition(" ")[0] if name else ""
    if module == "torch" or module.partition(".")[0] in BESIDE or kind in ("bytearray", "complex", "slice"):
        return Object(str(name))
    raise Unreadable(f"it would call {name or function!r}")
