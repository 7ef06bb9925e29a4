"""Parameters of layers, without tracing their initialisers at every use."""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from flax.errors import ScopeParamShapeError
from jax import Array
from jax.typing import DTypeLike


def parameter(
    layer: nn.Module, name: str, init: Callable[..., Array], shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
) -> Array:
    """`layer.param(name, init, shape, dtype)`; where the parameter is there, its shape is compared with this one.

    Flax traces `init` at every use to learn the shape, which takes about 2 ms. Raises Flax's error if the shape is
    another.
    """
    if not layer.has_variable("params", name):
        return layer.param(name, init, shape, dtype)
    value: Array = layer.get_variable("params", name)
    if value.shape != shape:
        raise ScopeParamShapeError(name, "/" + "/".join(layer.path), value.shape, shape)
    return value
