"""Batch norm, and its running statistics recomputed for averaged and imported parameters.

The rules of this codebase, which users of other DCGANs miss most:

1. Real and generated images have batch statistics of their own in the discriminator, as in separate batches (section 3
   of the paper). Both kinds pass through it in one batch of two `groups`, for the sake of larger matrix products.
2. The discriminator's update leaves the generator's statistics alone, and the other way round.
3. Sampling uses statistics that are fixed, not the batch's, so that an image depends on its z alone.
4. The moving average averages parameters; its statistics are recomputed for them (`inference.recalibrate`).
5. Statistics are taken over the global batch (`axis_name`), so that one device and eight train the same network, unless
   the configuration says otherwise (`sync_batch_norm`).

Statistics and parameters are float32 even if the activations are bfloat16.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from dcgan_jax.ops.dtypes import at_least_float32
from dcgan_jax.ops.parameter import parameter
from dcgan_jax.ops.pixels import to_unit_range

Tree = Any
Norm = Callable[..., nn.Module]  # makes a normalisation layer of this name

RECOMPUTE_BATCH = 128  # images or z in each batch that statistics are recomputed from
MAX_BATCHES = 100


def gain_init(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
    """Gains of batch norm: N(1, 0.02), as in the released code."""
    return 1 + 0.02 * jax.random.normal(key, shape, dtype)


class BatchNorm(nn.Module):
    """Normalises each feature (last axis) by its mean and variance over all other axes (Ioffe and Szegedy 2015).

    In training these are the batch's own, over all devices if `axis_name` names their axis, and the running
    statistics (collection 'batch_stats') move towards them. Otherwise the running statistics are used, so that an
    output depends on its input alone. Statistics are computed and kept in float32 for any dtype of the input.

    A batch of `groups` equal parts, one after the other, is normalised as that many separate batches; the running
    statistics move towards the mean of theirs.
    """

    epsilon: float = 1e-5
    momentum: float = 0.9
    affine: bool = True
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool, groups: int = 1) -> Array:
        features, dtype = x.shape[-1:], at_least_float32(x.dtype)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, features, dtype)
        running_var = self.variable("batch_stats", "var", jnp.ones, features, dtype)
        y = x.astype(dtype).reshape(groups, -1, *x.shape[1:])
        if train:
            mean, var = self._statistics(y)
            if not self.is_initializing():
                running_mean.value = self.momentum * running_mean.value + (1 - self.momentum) * jnp.mean(mean, 0)
                running_var.value = self.momentum * running_var.value + (1 - self.momentum) * jnp.mean(var, 0)
            mean, var = (values.reshape(groups, *(1,) * (y.ndim - 2), *features) for values in (mean, var))
        else:
            mean, var = (values.value.reshape((1,) * (y.ndim - 1) + features) for values in (running_mean, running_var))
        y = (y - mean) * jax.lax.rsqrt(var + self.epsilon)
        if self.affine:
            gain = parameter(self, "scale", gain_init, features, dtype)
            bias = parameter(self, "bias", nn.initializers.zeros, features, dtype)
            y = y * jnp.expand_dims(gain, range(y.ndim - 1)) + jnp.expand_dims(bias, range(y.ndim - 1))
        return y.astype(x.dtype).reshape(x.shape)

    def _statistics(self, x: Array) -> tuple[Array, Array]:
        """Mean and variance [groups, F] of x [groups, B, ..., F]."""
        axes = tuple(range(1, x.ndim - 1))
        mean = jnp.mean(x, axes, keepdims=True)
        # In two passes: the mean of squares less the square of the mean loses all digits of a small variance, which
        # an epsilon of 1e-8 does not hide.
        var = jnp.mean(jnp.square(x - mean), axes)
        mean = jnp.mean(mean, axes)
        if self.axis_name is not None and not self.is_initializing():
            # One all-gather for both: the variance over all devices is the mean of their variances and of the squared
            # distances of their means from the common mean.
            means, variances = jnp.moveaxis(jax.lax.all_gather(jnp.stack([mean, var]), self.axis_name), 1, 0)
            mean = jnp.mean(means, 0)
            var = jnp.mean(variances + jnp.square(means - mean[None]), 0)
        return mean, var


@functools.cache
def batch_norm(epsilon: float = 1e-5, momentum: float = 0.9, affine: bool = True, axis_name: str | None = None) -> Norm:
    """A maker of `BatchNorm` layers. Equal arguments give the same object, so that equal networks are compiled once."""
    return functools.partial(BatchNorm, epsilon=epsilon, momentum=momentum, affine=affine, axis_name=axis_name)


@functools.cache
def _of_one_batch(norm: Norm) -> Norm:
    # With a momentum of 0 the new running statistics are the batch's own.
    return functools.partial(norm, momentum=0.0, axis_name=None)


@functools.partial(jax.jit, static_argnums=0)
def _batch_statistics(network: Any, variables: Tree, x: Array, labels: Array | None) -> Tree:
    network = network.clone(norm=_of_one_batch(network.norm))
    collections = [name for name in variables if name != "params"]
    return network.apply(variables, x, labels, train=True, mutable=collections)[1]["batch_stats"]


# As one program each, not as one for each shape and operation.
@jax.jit
def _sum(a: Tree, b: Tree) -> Tree:
    return jax.tree.map(jnp.add, a, b)


@jax.jit
def _mean(total: Tree, count: int) -> Tree:
    return jax.tree.map(lambda summed: summed / count, total)


def recompute_statistics(
    network: Any, variables: Tree, batches: Iterable[tuple[Array, Array | np.ndarray | None]]
) -> Tree:
    """The running statistics that a network should have: the mean of its batch statistics over some batches.

    network: one of `models`. variables: its collections; the values of 'batch_stats' do not matter. batches: (z or
    images in [-1, 1], labels or None), all of one size. A network without batch norm has no statistics: {}.
    """
    if not variables.get("batch_stats"):
        return {}
    total: Tree = None
    count = 0
    for x, labels in batches:
        statistics = _batch_statistics(network, variables, x, labels)
        total = statistics if total is None else _sum(total, statistics)
        count += 1
    return _mean(total, count)


def statistics_of_images(discriminator: Any, variables: Tree, images: np.ndarray) -> Tree:
    """`recompute_statistics` for a discriminator without labels, over images uint8 [N, H, W, C], N at least 2.

    At most 12,800 images are used, a random choice, in batches of 128.
    """
    order = np.random.default_rng(0).permutation(len(images))[: MAX_BATCHES * RECOMPUTE_BATCH]
    size = min(RECOMPUTE_BATCH, len(order))
    chosen = (np.sort(order[start : start + size]) for start in range(0, len(order) - size + 1, size))
    batches = ((jnp.asarray(to_unit_range(images[places])), None) for places in chosen)
    return recompute_statistics(discriminator, variables, batches)
