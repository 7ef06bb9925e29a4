"""Reads and writes safetensors files: arrays by name, and nothing that could be run."""

from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors.numpy

from dcgan_jax.runtime.errors import UserError

Arrays = dict[str, np.ndarray]


def is_one(path: Path) -> bool:
    """Whether a file begins as a safetensors file does: the length of a JSON text, and that text."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError:  # of which reading it as another file will tell
        return False
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size - 8


def read(path: Path, name: str) -> Arrays:
    """The arrays by name, in no order that means anything; bfloat16 becomes float32.

    name: what the user gave, a flag say, for the UserError if the file is damaged or cannot be read.
    """
    try:
        arrays = safetensors.numpy.load_file(path)
    except Exception as error:  # the library raises its own type, and KeyError for kinds of numbers that numpy lacks
        reason = " ".join(str(error).split())
        raise UserError(
            f"{name}: {str(path)!r} cannot be read: damaged, or of numbers that numpy lacks ({reason}); "
            "expected a safetensors file of weights"
        ) from error
    return {
        name: array.astype(np.float32) if array.dtype == ml_dtypes.bfloat16 else array for name, array in arrays.items()
    }


def write(path: Path, arrays: Arrays) -> None:
    """Writes arrays by their names."""
    # The library's own `save_file` makes files that nobody but their owner can read.
    path.write_bytes(safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))
