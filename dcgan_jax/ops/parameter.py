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
    """`layer.param(name, init, shape, dtype)`; outside of `init`, the shape of what is there is compared with `shape`.

    Flax traces the initialiser to learn the shape, which takes 2 to 3 ms the first time for each shape. Raises Flax's
    errors if the parameter is missing or has another shape.
    """
    if layer.is_initializing() or not layer.has_variable("params", name):
        return layer.param(name, init, shape, dtype)
    value: Array = nn.meta.unbox(layer.get_variable("params", name))
    if jnp.shape(value) != shape:
        raise ScopeParamShapeError(name, "/" + "/".join(layer.path), jnp.shape(value), shape)
    return value
