"""Reads files of `torch.save` without PyTorch, and without running any code that they contain.

Such a file holds a pickle, which is a program for a small stack machine. `pickletools` decodes it, and `_Machine` runs
only the opcodes that build plain values and containers. The two calls that rebuild a tensor are recognised by name; any
other call is an error. Both layouts are supported: the zip archive (PyTorch 1.6 and later) and the older stream of
pickles.
"""

import math
import pickletools
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from dcgan_jax.runtime.errors import UserError, local_path

# The content of the first pickle in the stream layout (torch/serialization.py).
MAGIC = 0x1950A86A20F9469CFC6C

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


class _Unreadable(Exception):
    """The reason, in a few words, why a file cannot be read."""


@dataclass(frozen=True)
class _Name:
    """A function or class that the pickle refers to, as 'MODULE NAME'."""

    name: str


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: Any
    count: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(path: str | Path) -> dict[str, Any]:
    """The dictionary in a file of `torch.save`, with numpy arrays for tensors, also in nested containers.

    bfloat16 tensors become float32. Raises UserError if the file is missing, is damaged, or holds anything but tensors
    and plain values.
    """
    file = local_path(path, "--file")
    try:
        if zipfile.is_zipfile(file):
            content = _read_archive(file)
        else:
            with file.open("rb") as stream:
                content = _read_stream(stream, file.stat().st_size)
        if not isinstance(content, dict):
            raise _Unreadable(f"it holds a {type(content).__name__}")
    except FileNotFoundError:
        raise UserError(f"--file: {str(file)!r} does not exist, expected weights of PyTorch") from None
    except Exception as error:  # pickletools and zipfile raise errors of many types for damaged files
        reason = error if isinstance(error, _Unreadable) else f"damaged or no such file ({type(error).__name__})"
        raise UserError(
            f"--file: {str(file)!r} cannot be read: {reason}; expected a dictionary of tensors that torch.save wrote"
        ) from error
    return content


def _read_archive(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise _Unreadable(f"the archive holds {len(pickles)} entries data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
            raise _Unreadable("it was written with the bytes in another order")
        content = _Machine().run(archive.open(pickles[0]))

        def load(storage: _Storage) -> np.ndarray:
            entry = archive.getinfo(f"{folder}data/{storage.key}")
            size = storage.count * np.dtype(storage.dtype).itemsize
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size < size:
                raise _Unreadable(f"its array {storage.key} is cut short")
            return np.frombuffer(archive.read(entry), storage.dtype, storage.count)

        return _with_arrays(content, load, {})


def _read_stream(stream: BinaryIO, size: int) -> Any:
    if _Machine().run(stream) != MAGIC:
        raise _Unreadable("its first bytes are not PyTorch's")
    _Machine().run(stream)  # the version of the layout
    if not _Machine().run(stream).get("little_endian", True):
        raise _Unreadable("it was written with the bytes in another order")
    machine = _Machine()
    content = machine.run(stream)
    arrays = {}
    for key in _Machine().run(stream):
        storage = machine.storages[key]
        count, dtype = int(np.frombuffer(stream.read(8), "<i8")[0]), np.dtype(storage.dtype)
        if count != storage.count or count * dtype.itemsize > size - stream.tell():
            raise _Unreadable(f"its array {key} is cut short, or not the one that was described")
        arrays[key] = np.frombuffer(stream.read(count * dtype.itemsize), dtype)
    return _with_arrays(content, lambda storage: arrays[storage.key], {})


def _with_arrays(content: Any, load: Callable[[_Storage], np.ndarray], done: dict[int, Any]) -> Any:
    """The content with each tensor replaced by an array. Objects that occur several times are converted once."""
    if id(content) in done:
        return done[id(content)]
    result = content
    if isinstance(content, dict):
        result = {key: _with_arrays(value, load, done) for key, value in content.items()}
    elif isinstance(content, list | tuple):
        result = [_with_arrays(value, load, done) for value in content]
    elif isinstance(content, _Tensor):
        result = _array(content, load(content.storage))
    done[id(content)] = result
    return result


def _array(tensor: _Tensor, numbers: np.ndarray) -> np.ndarray:
    shape, strides, size = tensor.shape, tensor.strides, math.prod(tensor.shape)
    last = tensor.offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    if min(*shape, *strides, tensor.offset, 0) < 0 or size > len(numbers) or (size and last >= len(numbers)):
        raise _Unreadable(f"a tensor of {shape} does not fit in its {len(numbers)} numbers")
    if not size:
        return np.zeros(shape, numbers.dtype)
    in_bytes = tuple(stride * numbers.itemsize for stride in strides)
    view = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], shape, in_bytes)
    # Some of numpy's functions fail on bfloat16.
    return view.astype(np.float32) if numbers.dtype == ml_dtypes.bfloat16 else view.copy()


class _Machine:
    """The pickle machine: a stack, marks in it, and a memo; and the storages that the pickle refers to, by key."""

    def __init__(self) -> None:
        self.storages: dict[str, _Storage] = {}
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, stream: Any) -> Any:
        """The object that the next pickle of a stream builds. Raises _Unreadable for an opcode that is not allowed."""
        argument: Any
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "STOP":
                return self._stack.pop()
            self._push(opcode.name, argument)
        raise _Unreadable("it ends in the middle")

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
            case "GLOBAL":
                self._stack.append(_Name(argument))
            case "STACK_GLOBAL":
                name, module = self._stack.pop(), self._stack.pop()
                self._stack.append(_Name(f"{module} {name}"))
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
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                stack.append({"EMPTY_DICT": {}, "EMPTY_LIST": [], "EMPTY_TUPLE": ()}[opcode])
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(opcode[-1])
                stack[-size:] = [tuple(stack[-size:])]
            case "TUPLE":
                stack.append(tuple(self._since_mark()))
            case "APPEND":
                stack[-2].append(stack.pop())
            case "APPENDS":
                items = self._since_mark()
                stack[-1].extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                stack[-1].update({key: value})
            case "SETITEMS":
                items = self._since_mark()
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            case "BINPERSID":
                stack.append(_storage(stack.pop(), self.storages))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_call(function, arguments))
            case "BUILD":
                stack.pop()  # attributes of a dictionary, such as the version of each layer
                if not isinstance(stack[-1], dict):
                    raise _Unreadable("it holds objects")
            case _:
                raise _Unreadable(f"it holds what is neither a tensor nor a plain value ({opcode})")

    def _since_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items


def _storage(identity: Any, storages: dict[str, _Storage]) -> _Storage:
    kind, dtype, key, _, count, *_ = identity
    if kind != "storage" or not isinstance(dtype, _Name) or dtype.name not in DTYPES or count < 0:
        raise _Unreadable(f"it holds an array of an unknown kind ({getattr(dtype, 'name', dtype)})")
    return storages.setdefault(key, _Storage(key, DTYPES[dtype.name], count))


def _call(function: Any, arguments: Any) -> Any:
    """The result of one of the three allowed calls: an empty dictionary, or a tensor."""
    name = function.name if isinstance(function, _Name) else None
    if name == "collections OrderedDict" and not arguments:
        return {}
    if name == "torch._utils _rebuild_tensor_v2":
        storage, offset, shape, strides = arguments[:4]
        if not isinstance(storage, _Storage):
            raise _Unreadable("it holds a tensor without numbers")
        return _Tensor(storage, offset, shape, strides)
    if name == "torch._utils _rebuild_parameter" and isinstance(arguments[0], _Tensor):
        return arguments[0]
    raise _Unreadable(f"it would call {name or function!r}")
