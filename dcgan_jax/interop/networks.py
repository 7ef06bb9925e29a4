"""A pair of networks from elsewhere, in this project's terms."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from dcgan_jax.errors import UserError

Tree = dict[str, Any]
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Variables:
    """A network's 'params' and 'batch_stats'; the latter is None where the weights come without."""

    params: Tree
    batch_stats: Tree | None


@dataclass(frozen=True)
class Networks:
    """Fields of the configuration that describe both networks, and their variables; one network may be missing."""

    fields: dict[str, Any]
    generator: Variables | None
    discriminator: Variables | None


def unexpected(where: str, found: Arrays, expected: str) -> UserError:
    """The error for weights of other names or shapes than those that are known, with what was found."""
    listed = [f"{name[:80]} {shape(array)}" for name, array in found.items()]
    if len(listed) > 12:
        listed[8:-3] = [f"{len(listed) - 11} more"]
    return UserError(f"{where}: found {', '.join(listed) or 'nothing'}; expected {expected}")


def check_numbers(where: str, arrays: Arrays) -> None:
    """Raises UserError unless all are real numbers, and finite as float32."""
    for name, array in arrays.items():
        kind = array.dtype
        real = jnp.issubdtype(kind, jnp.floating) or jnp.issubdtype(kind, jnp.integer)  # bfloat16 is not numpy's
        with np.errstate(over="ignore"):
            finite = real and bool(np.isfinite(array.astype(np.float32)).all())
        if not finite:
            found = "values that are not finite" if real else f"values of {kind}"
            raise UserError(f"{where}: found {found} in {name!r}, expected numbers that float32 holds")


def shape(array: np.ndarray) -> str:
    """A shape as PyTorch's and numpy's users write it."""
    return "x".join(map(str, array.shape)) or "scalar"
