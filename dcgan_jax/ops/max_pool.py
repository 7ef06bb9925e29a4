"""The pooling of the paper's probe."""

import jax
import jax.numpy as jnp
from jax import Array

# Each map is pooled to at most this many positions a side (section 5.1 of the paper).
POOLED_SIDE = 4


def max_pool(maps: Array) -> Array:
    """[B, H, W, F] to at most 4x4 positions, each the maximum over its share of the rows and columns."""
    for axis in (1, 2):
        side = maps.shape[axis]
        cells = min(side, POOLED_SIDE)
        bounds = [(i * side // cells, -(-(i + 1) * side // cells)) for i in range(cells)]
        strips = [jax.lax.slice_in_dim(maps, start, stop, axis=axis).max(axis) for start, stop in bounds]
        maps = jnp.stack(strips, axis)
    return maps
