"""Reads and writes safetensors files, by the library `safetensors`, which only they need."""

import re
from pathlib import Path
from types import ModuleType

import ml_dtypes
import numpy as np

from dcgan_jax.interop.networks import Arrays
from dcgan_jax.runtime.errors import UserError


def is_one(path: Path) -> bool:
    """Whether a file begins as a safetensors file does: the length of a JSON text, and that text."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size - 8


def read(path: Path) -> Arrays:
    """The arrays by name; bfloat16 becomes float32. Raises UserError if the file is damaged.

    Such files keep names in the order of the alphabet: here numbers in them count as numbers, '2' before '10'.
    """
    library = _library()
    try:
        arrays = library.load_file(path)
    except Exception as error:  # the library raises its own type, and KeyError for kinds of numbers that numpy lacks
        reason = " ".join(str(error).split())
        raise UserError(
            f"--file: {str(path)!r} cannot be read: damaged, or of numbers that numpy lacks ({reason}); "
            "expected the safetensors file of a state dict"
        ) from error
    names = sorted(
        arrays, key=lambda name: [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name)]
    )
    return {
        name: arrays[name].astype(np.float32) if arrays[name].dtype == ml_dtypes.bfloat16 else arrays[name]
        for name in names
    }


def write(path: Path, arrays: Arrays) -> None:
    """Writes a state dict. Raises UserError if the library is not installed."""
    _library().save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)


def _library() -> ModuleType:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise UserError("safetensors: not installed, but needed for such files; pip install safetensors") from error
    return safetensors.numpy
