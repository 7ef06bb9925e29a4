"""A pair of networks from elsewhere, in this project's terms."""

from dataclasses import dataclass
from typing import Any

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
    listed = [f"{name} {shape(array)}" for name, array in found.items()]
    if len(listed) > 12:
        listed[8:-3] = [f"{len(listed) - 11} more"]
    return UserError(f"{where}: found {', '.join(listed) or 'nothing'}; expected {expected}")


def shape(array: np.ndarray) -> str:
    """A shape as PyTorch's and numpy's users write it."""
    return "x".join(map(str, array.shape)) or "scalar"
