"""Normalisation of each example by itself: group and layer norm, and none at all."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from dcgan_jax.ops.dtypes import at_least_float32
from dcgan_jax.ops.parameter import parameter

GROUP = 16  # features in a group: the best number of table 3 of Wu and He


class GroupNorm(nn.Module):
    """Normalises an example [..., F] over all its positions and 16 features at a time (Wu and He 2018).

    whole: over all features at once, which is layer norm (Ba et al. 2016). Gains and biases are per feature. If 16 does
    not divide F, the groups have the greatest common divisor of both. `train` and `groups` (parts of the batch, see
    `BatchNorm`) make no difference.
    """

    epsilon: float = 1e-5
    whole: bool = False

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False, groups: int = 1) -> Array:
        features, dtype = x.shape[-1], at_least_float32(x.dtype)
        size = features if self.whole else math.gcd(features, GROUP)
        y = x.astype(dtype).reshape(x.shape[0], -1, features // size, size)
        mean = jnp.mean(y, (1, 3), keepdims=True)
        var = jnp.mean(jnp.square(y - mean), (1, 3), keepdims=True)
        y = ((y - mean) * jax.lax.rsqrt(var + self.epsilon)).reshape(x.shape[0], -1, features)
        gain = parameter(self, "scale", nn.initializers.ones, (features,), dtype)
        bias = parameter(self, "bias", nn.initializers.zeros, (features,), dtype)
        return (y * gain[None, None] + bias[None, None]).astype(x.dtype).reshape(x.shape)


class NoNorm:
    """In place of a normalisation layer: nothing."""

    def __init__(self, name: str):
        pass

    def __call__(self, x: Array, *, train: bool = False, groups: int = 1) -> Array:
        return x
