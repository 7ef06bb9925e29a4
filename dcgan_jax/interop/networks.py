"""A pair of imported networks in this project's layout."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from dcgan_jax.runtime.errors import UserError

Tree = dict[str, Any]
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Variables:
    """A network's 'params' and 'batch_stats'; the latter is None if the weights come without running statistics."""

    params: Tree
    batch_stats: Tree | None


@dataclass(frozen=True)
class Networks:
    """Both networks' variables, and the configuration fields that describe them. One network may be missing (None)."""

    fields: dict[str, Any]
    generator: Variables | None
    discriminator: Variables | None


def unexpected(where: str, arrays: Arrays, expected: str) -> UserError:
    """The error for weights whose names or shapes are not the expected ones; it lists them."""
    listed = [f"{name[:80]} {shape(array)}" for name, array in arrays.items()]
    if len(listed) > 12:
        listed[8:-3] = [f"{len(listed) - 11} more"]
    return UserError(f"{where}: found {', '.join(listed) or 'nothing'}; expected {expected}")


def check_numbers(where: str, arrays: Arrays) -> None:
    """Raises UserError unless all values are real numbers, and finite as float32."""
    for name, array in arrays.items():
        dtype = array.dtype
        real = jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)  # numpy does not know bfloat16
        with np.errstate(over="ignore"):
            finite = real and bool(np.isfinite(array.astype(np.float32)).all())
        if not finite:
            problem = "values that are not finite" if real else f"values of {dtype}"
            raise UserError(f"{where}: found {problem} in {name!r}, expected numbers that float32 holds")


def shape(array: np.ndarray) -> str:
    """A shape as text, such as '3x5x5'."""
    return "x".join(map(str, array.shape)) or "scalar"
