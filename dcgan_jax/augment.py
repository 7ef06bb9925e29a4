"""Augmentation of images on the device: for each example a function of the key and its index in the global batch."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

# images [B, H, W, C] in [-1, 1], key, indices in the global batch int [B] -> images [B, H, W, C], differentiable.
Augment = Callable[[Array, Array, Array], Array]


def none(images: Array, key: Array, indices: Array) -> Array:
    """Leaves images as they are."""
    return images


def flip(images: Array, key: Array, indices: Array) -> Array:
    """Mirrors each image left and right with probability 1/2."""
    mirrored = jax.vmap(lambda index: jax.random.bernoulli(jax.random.fold_in(key, index)))(indices)
    return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
