"""Which dtypes are computed in."""

import jax.numpy as jnp
from jax.typing import DTypeLike


def at_least_float32(dtype: DTypeLike) -> jnp.dtype:
    """float32 for bfloat16 and other narrow dtypes; float64 stays."""
    return jnp.dtype(dtype) if jnp.finfo(dtype).bits > 32 else jnp.dtype("float32")
