"""Reads files of `torch.save` without PyTorch, and without running any code that they contain.

Both layouts are supported: the zip archive (PyTorch 1.6 and later) and the older stream of pickles. What else is often
found under such a name is told as what it is.
"""

import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from dcgan_jax.interop.pickle_machine import Machine, Object, Storage, Tensor, Unreadable
from dcgan_jax.runtime.contents import HEAD, described
from dcgan_jax.runtime.errors import UserError, local_path

# The content of the first pickle in the stream layout (torch/serialization.py).
MAGIC = 0x1950A86A20F9469CFC6C


def read(path: str | Path) -> dict[str, Any]:
    """The dictionary in a file of `torch.save`, with numpy arrays for tensors, also in nested containers.

    A list or tuple that holds dictionaries becomes one by their numbers.

    bfloat16 tensors become float32. Objects of classes are `Object`s. Raises UserError if the file is missing, is
    damaged, is something else, or holds a module as a whole or what only running code would build.
    """
    file = local_path(path, "--file")
    try:
        if zipfile.is_zipfile(file):
            content = _read_archive(file)
        else:
            with file.open("rb") as stream:
                _check_start(stream.read(HEAD))
                stream.seek(0)
                content = _read_stream(stream, file.stat().st_size)
        if is_module(content):
            raise Unreadable(whole_module(content, str(file)))
        if isinstance(content, list) and any(isinstance(item, dict) for item in content):
            content = {str(number): item for number, item in enumerate(content)}
        if isinstance(content, Object):
            raise Unreadable(f"it holds an object of the kind {content.name}")
        if not isinstance(content, dict):
            raise Unreadable(f"it holds a {type(content).__name__}")
    except FileNotFoundError:
        raise UserError(f"--file: {str(file)!r} does not exist, expected weights of PyTorch") from None
    except Exception as error:  # for damaged files pickletools and zipfile raise errors of many types, MemoryError too
        raise UserError(
            f"--file: {str(file)!r} cannot be read: {_reason(error)}; expected a state dict, as torch.save writes it"
        ) from error
    return content


def is_module(content: Any) -> bool:
    """Whether an object of a file stands for a module of PyTorch, as a whole."""
    return isinstance(content, Object) and isinstance(content.state, dict) and "_modules" in content.state


def whole_module(module: Object, file: str, key: str = "") -> str:
    """Why such an object is not read, and how to make a state dict of it in PyTorch."""
    item = f"[{key!r}]" if key else ""
    return (
        f"it holds a whole module ({module.name.replace(' ', '.')}), which only running its code would rebuild. In "
        "PyTorch, with that code at hand, if you trust the file: "
        f"net = torch.load({file!r}, weights_only=False){item}; "
        "torch.save(net.state_dict(), 'state_dict.pth')"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, Unreadable):
        return str(error)
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return f"it is damaged or cut short ({type(error).__name__})"


def _check_start(start: bytes) -> None:
    """Raises Unreadable if a file begins as no stream of pickles does."""
    if not start:
        raise Unreadable("it is empty")
    if known := described(start):
        raise Unreadable(f"it is {known.what}; {known.advice}")
    if start.startswith(b"PK\x03\x04"):
        raise Unreadable("it is the beginning of an archive whose end is missing; download or copy it again")
    if start.isascii() and all(chr(byte).isprintable() or chr(byte).isspace() for byte in start):
        raise Unreadable(f"it is a text that begins {' '.join(start.decode().split())[:60]!r}")


def _read_archive(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
            raise Unreadable(
                "it is a TorchScript archive (torch.jit.save), a program with weights. In PyTorch: "
                f"net = torch.jit.load({str(path)!r}); torch.save(net.state_dict(), 'state_dict.pth')"
            )
        if len(pickles) != 1:
            listed = f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else ""
            raise Unreadable(f"the archive holds {len(pickles)} entries data.pkl among its {len(names)}{listed}")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
            raise Unreadable("it was written with the bytes in another order")
        content = Machine().run(archive.open(pickles[0]))

        def load(storage: Storage) -> np.ndarray:
            entry = archive.getinfo(f"{folder}data/{storage.key}")
            size = storage.count * np.dtype(storage.dtype).itemsize
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size < size:
                raise Unreadable(f"its array {storage.key} is cut short")
            return np.frombuffer(archive.read(entry), storage.dtype, storage.count)

        return _with_arrays(content, load, {})


def _read_stream(stream: BinaryIO, size: int) -> Any:
    if Machine().run(stream) != MAGIC:
        raise Unreadable("its first bytes are not PyTorch's")
    Machine().run(stream)  # the version of the layout
    if not Machine().run(stream).get("little_endian", True):
        raise Unreadable("it was written with the bytes in another order")
    machine = Machine()
    content = machine.run(stream)
    arrays = {}
    for key in Machine().run(stream):
        storage = machine.storages[key]
        count, dtype = int(np.frombuffer(stream.read(8), "<i8")[0]), np.dtype(storage.dtype)
        if count != storage.count or count * dtype.itemsize > size - stream.tell():
            raise Unreadable(f"its array {key} is cut short, or not the one that was described")
        arrays[key] = np.frombuffer(stream.read(count * dtype.itemsize), dtype)
    return _with_arrays(content, lambda storage: arrays[storage.key], {})


def _with_arrays(content: Any, load: Callable[[Storage], np.ndarray], done: dict[int, Any]) -> Any:
    """The content with each tensor replaced by an array. Objects that occur several times are converted once."""
    if id(content) in done:
        return done[id(content)]
    result = content
    if isinstance(content, dict):
        result = {key: _with_arrays(value, load, done) for key, value in content.items()}
    elif isinstance(content, list | tuple):
        result = [_with_arrays(value, load, done) for value in content]
    elif isinstance(content, Tensor):
        result = _array(content, load(content.storage))
    done[id(content)] = result
    return result


def _array(tensor: Tensor, numbers: np.ndarray) -> np.ndarray:
    shape, strides, size = tensor.shape, tensor.strides, math.prod(tensor.shape)
    last = tensor.offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    if min(*shape, *strides, tensor.offset, 0) < 0 or size > len(numbers) or (size and last >= len(numbers)):
        raise Unreadable(f"a tensor of {shape} does not fit in its {len(numbers)} numbers")
    if not size:
        return np.zeros(shape, numbers.dtype)
    in_bytes = tuple(stride * numbers.itemsize for stride in strides)
    view = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], shape, in_bytes)
    # Some of numpy's functions fail on bfloat16.
    return view.astype(np.float32) if numbers.dtype == ml_dtypes.bfloat16 else view.copy()
