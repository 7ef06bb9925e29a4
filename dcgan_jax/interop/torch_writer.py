"""Writes state dicts that `torch.load(..., weights_only=True)` reads, without PyTorch.

The file is an uncompressed zip archive of `data.pkl`, a pickle with the tensors' names and shapes, and one entry with
the numbers of each tensor. The few opcodes that such a pickle needs (protocol 2) are written here by hand.
"""

import zipfile
from pathlib import Path

import numpy as np

STORAGES = {"float32": "FloatStorage", "int64": "LongStorage"}
ROOT = "archive"


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes a state dict of float32 and int64 arrays. Raises FileExistsError if the file exists."""
    content = bytearray(b"\x80\x02" + _call("collections", "OrderedDict", b")") + b"(")
    with zipfile.ZipFile(path, "x") as archive:
        for key, (name, array) in enumerate(arrays.items()):
            content += _text(name) + _tensor(array, str(key))
        _add(archive, "data.pkl", bytes(content) + b"u.")
        _add(archive, "byteorder", b"little")
        for key, array in enumerate(arrays.values()):
            _add(archive, f"data/{key}", np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
        _add(archive, "version", b"3\n")


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    # ZipInfo's default date is fixed, so equal weights give equal files.
    archive.writestr(zipfile.ZipInfo(f"{ROOT}/{name}"), content)


def _tensor(array: np.ndarray, key: str) -> bytes:
    """_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks)."""
    identity = (
        _text("storage") + _name("torch", STORAGES[array.dtype.name]) + _text(key) + _text("cpu") + _number(array.size)
    )
    storage = b"(" + identity + b"tQ"
    strides = [int(np.prod(array.shape[i + 1 :])) for i in range(array.ndim)]
    hooks = _call("collections", "OrderedDict", b")")
    arguments = storage + _number(0) + _numbers(array.shape) + _numbers(strides) + b"\x89" + hooks
    return _call("torch._utils", "_rebuild_tensor_v2", b"(" + arguments + b"t")


def _call(module: str, function: str, arguments: bytes) -> bytes:
    return _name(module, function) + arguments + b"R"


def _name(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    encoded = text.encode()
    return b"X" + len(encoded).to_bytes(4, "little") + encoded


def _number(number: int) -> bytes:
    return b"J" + number.to_bytes(4, "little", signed=True)


def _numbers(numbers: tuple[int, ...] | list[int]) -> bytes:
    return b"(" + b"".join(map(_number, numbers)) + b"t"
