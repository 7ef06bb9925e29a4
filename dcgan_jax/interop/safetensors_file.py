"""Reads and writes safetensors files, by the library `safetensors`, which only they need."""

from pathlib import Path
from types import ModuleType

import ml_dtypes
import numpy as np

from dcgan_jax.interop.networks import Arrays
from dcgan_jax.runtime.errors import UserError


def is_one(path: Path) -> bool:
    """Whether a file begins as a safetensors file does: the length of a JSON text, and that text."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError:  # of which reading it as another file will tell
        return False
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size - 8


def read(path: Path) -> Arrays:
    """The arrays by name, in no order that means anything; bfloat16 becomes float32. Raises UserError if damaged."""
    library = _library()
    try:
        arrays = library.load_file(path)
    except Exception as error:  # the library raises its own type, and KeyError for kinds of numbers that numpy lacks
        reason = " ".join(str(error).split())
        raise UserError(
            f"--file: {str(path)!r} cannot be read: damaged, or of numbers that numpy lacks ({reason}); "
            "expected the safetensors file of a state dict"
        ) from error
    return {
        name: array.astype(np.float32) if array.dtype == ml_dtypes.bfloat16 else array for name, array in arrays.items()
    }


def write(path: Path, arrays: Arrays) -> None:
    """Writes a state dict. Raises UserError if the library is not installed."""
    _library().save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)


def _library() -> ModuleType:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise UserError("safetensors: not installed, but such files need it; pip install safetensors") from error
    return safetensors.numpy
