"""Augmentation of images on the device, for each example by a key of its own."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

# images [B, H, W, C] in [-1, 1], keys [B] (`latent.example_keys`) -> images [B, H, W, C], differentiable.
Augment = Callable[[Array, Array], Array]


def none(images: Array, keys: Array) -> Array:
    """Leaves images as they are."""
    return images


def flip(images: Array, keys: Array) -> Array:
    """Mirrors each image left and right with probability 1/2."""
    mirrored = jax.vmap(jax.random.bernoulli)(keys)
    return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
