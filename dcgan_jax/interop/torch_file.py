"""Reads what `torch.save` wrote, without PyTorch, and without running anything that is in the file.

Such a file holds a pickle, which is a program. `pickletools` takes it apart, and only the opcodes that build plain
containers are followed; the two calls that rebuild a tensor are recognised by name, and any other call is an error.
Both layouts are read: the zip archive (PyTorch 1.6 and later), and the stream of pickles before it.
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

from dcgan_jax.errors import UserError, local_path

# What the stream layout begins with, after its first pickle's opcodes (torch/serialization.py).
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
    """What is wrong with a file, in a few words."""


@dataclass(frozen=True)
class _Name:
    """A name that the pickle would have imported."""

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
    """The dictionary in a file of `torch.save`: tensors as numpy arrays, what is nested in it likewise.

    Raises UserError where the file is none, is damaged, or holds anything but tensors and plain values.
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
    except Exception as error:  # pickletools and zipfile raise all kinds on damaged files
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
        content = _follow(archive.open(pickles[0]))

        def load(storage: _Storage) -> np.ndarray:
            entry = archive.getinfo(f"{folder}data/{storage.key}")
            size = storage.count * np.dtype(storage.dtype).itemsize
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size < size:
                raise _Unreadable(f"its array {storage.key} is cut short")
            return np.frombuffer(archive.read(entry), storage.dtype, storage.count)

        return _filled(content, load, {})


def _read_stream(stream: BinaryIO, size: int) -> Any:
    if _follow(stream) != MAGIC:
        raise _Unreadable("its first bytes are not PyTorch's")
    _follow(stream)  # the version of the layout
    if not _follow(stream).get("little_endian", True):
        raise _Unreadable("it was written with the bytes in another order")
    storages: dict[str, _Storage] = {}
    content = _follow(stream, storages)
    arrays = {}
    for key in _follow(stream):
        count, dtype = int(np.frombuffer(stream.read(8), "<i8")[0]), np.dtype(storages[key].dtype)
        if count != storages[key].count or count * dtype.itemsize > size - stream.tell():
            raise _Unreadable(f"its array {key} is cut short, or not the one that was described")
        arrays[key] = np.frombuffer(stream.read(count * dtype.itemsize), dtype)
    return _filled(content, lambda storage: arrays[storage.key], {})


def _filled(content: Any, load: Callable[[_Storage], np.ndarray], done: dict[int, Any]) -> Any:
    """The content with an array for each tensor; what is in it twice is made once."""
    if id(content) in done:
        return done[id(content)]
    result = content
    if isinstance(content, dict):
        result = {key: _filled(value, load, done) for key, value in content.items()}
    elif isinstance(content, list | tuple):
        result = [_filled(value, load, done) for value in content]
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
    # not all of numpy's functions know bfloat16
    return view.astype(np.float32) if numbers.dtype == ml_dtypes.bfloat16 else view.copy()


def _follow(stream: Any, storages: dict[str, _Storage] | None = None) -> Any:
    """What the next pickle of a stream builds, of dictionaries, lists, tuples, texts, numbers, names and tensors."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    def set_items(pairs: list[Any]) -> None:
        stack[-1].update(zip(pairs[::2], pairs[1::2], strict=True))

    argument: Any
    for opcode, argument, _ in pickletools.genops(stream):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(opcode.name[-1])
                stack[-size:] = [tuple(stack[-size:])]
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "APPEND":
                stack[-2].append(stack.pop())
            case "APPENDS":
                items = since_mark()
                stack[-1].extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                set_items([key, value])
            case "SETITEMS":
                set_items(since_mark())
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_Name(argument))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_Name(f"{module} {name}"))
            case "BINPERSID":
                stack.append(_storage(stack.pop(), {} if storages is None else storages))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_rebuilt(function, arguments))
            case "BUILD":
                stack.pop()  # attributes of a dictionary, such as the version of each layer
                if not isinstance(stack[-1], dict):
                    raise _Unreadable("it holds objects")
            case name:
                raise _Unreadable(f"it holds what is neither a tensor nor a plain value ({name})")
    raise _Unreadable("it ends in the middle")


def _storage(identity: Any, storages: dict[str, _Storage]) -> _Storage:
    kind, dtype, key, _, count, *_ = identity
    if kind != "storage" or not isinstance(dtype, _Name) or dtype.name not in DTYPES or count < 0:
        raise _Unreadable(f"it holds an array of an unknown kind ({getattr(dtype, 'name', dtype)})")
    return storages.setdefault(key, _Storage(key, DTYPES[dtype.name], count))


def _rebuilt(function: Any, arguments: Any) -> Any:
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
