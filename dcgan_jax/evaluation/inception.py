"""The InceptionV3 network behind all published FID numbers, and its way of resizing images.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (2015), as released by Google on 2015-12-05
with 1,008 outputs. It differs from later versions of InceptionV3: average pooling does not count the padding, the last
block uses max pooling, and images are resized as in TensorFlow 1. Modules have the names of the file of converted
weights (pytorch-fid, torch-fidelity).
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dcgan_jax.ops.parameter import parameter

SIDE = 299  # of its input images
FEATURES, CLASSES = 2048, 1008
# GPUs and TPUs multiply with reduced precision by default, which changes FID.
PRECISION = jax.lax.Precision.HIGHEST
EPSILON = 1e-3


def resize(images: Array) -> Array:
    """Bilinear resize of float images [B, H, W, C] to [B, 299, 299, C], as tf.image.resize_bilinear of TensorFlow 1.

    Pixel i of the result is read at i * H / 299, without the offset of half a pixel that other libraries use, and
    larger images are not smoothed first.
    """
    for axis in (2, 1):
        below, above, share = _source_pixels(images.shape[axis])
        low, high = jnp.take(images, below, axis), jnp.take(images, above, axis)
        images = low + (high - low) * jnp.expand_dims(share, range(1, images.ndim - axis))
    return images


def _source_pixels(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each pixel of the result: the source pixels before and after it, and its distance to the first."""
    positions = np.arange(SIDE, dtype=np.float32) * np.float32(side / SIDE)
    below = positions.astype(np.int32)
    return below, np.minimum(below + 1, side - 1), positions - below


class ConvBlock(nn.Module):
    """Convolution, batch norm with fixed statistics, ReLU."""

    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    same: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (*self.kernel, x.shape[-1], self.features)
        kernel = parameter(self, "kernel", nn.initializers.lecun_normal(), shape)
        padding = [(side // 2, side // 2) if self.same else (0, 0) for side in self.kernel]
        x = jax.lax.conv_general_dilated(
            x, kernel, (self.stride,) * 2, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), precision=PRECISION
        )
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        scale, bias = parameter(self, "scale", ones, shape[-1:]), parameter(self, "bias", zeros, shape[-1:])
        mean, var = parameter(self, "mean", zeros, shape[-1:]), parameter(self, "var", ones, shape[-1:])
        return nn.relu((x - mean) * (scale * jax.lax.rsqrt(var + EPSILON)) + bias)


def _max_pool_shrink(x: Array) -> Array:
    return nn.max_pool(x, (3, 3), (2, 2))


def _average_pool(x: Array) -> Array:
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)


def _max_pool(x: Array) -> Array:
    return nn.max_pool(x, (3, 3), padding="SAME")


class MixedBlock(nn.Module):
    """Parallel branches, concatenated by channels.

    A branch is a sequence of parts. A part is a convolution: (name, features) with a 1x1 kernel, or (name, features,
    kernel); or a tuple of convolutions of the same input, concatenated; or a function.
    `shrink`: names of the convolutions with stride 2 and no padding.
    """

    branches: tuple
    shrink: frozenset[str] = frozenset()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return jnp.concatenate([self._branch(branch, x) for branch in self.branches], -1)

    def _branch(self, branch: tuple, x: Array) -> Array:
        for part in branch:
            if callable(part):
                x = part(x)
            elif isinstance(part[0], str):
                x = self._conv(x, *part)
            else:
                x = jnp.concatenate([self._conv(x, *conv) for conv in part], -1)
        return x

    def _conv(self, x: Array, name: str, features: int, kernel: tuple[int, int] = (1, 1)) -> Array:
        shrinks = name in self.shrink
        return ConvBlock(features, kernel, 2 if shrinks else 1, same=not shrinks, name=name)(x)


def _block_a(pooled: int, name: str) -> MixedBlock:
    """Figure 5 of Szegedy et al."""
    return MixedBlock(
        (
            (("branch1x1", 64),),
            (("branch5x5_1", 48), ("branch5x5_2", 64, (5, 5))),
            (("branch3x3dbl_1", 64), ("branch3x3dbl_2", 96, (3, 3)), ("branch3x3dbl_3", 96, (3, 3))),
            (_average_pool, ("branch_pool", pooled)),
        ),
        name=name,
    )


def _block_b(name: str) -> MixedBlock:
    """From 35x35 to 17x17."""
    return MixedBlock(
        (
            (("branch3x3", 384, (3, 3)),),
            (("branch3x3dbl_1", 64), ("branch3x3dbl_2", 96, (3, 3)), ("branch3x3dbl_3", 96, (3, 3))),
            (_max_pool_shrink,),
        ),
        frozenset({"branch3x3", "branch3x3dbl_3"}),
        name=name,
    )


def _block_c(width: int, name: str) -> MixedBlock:
    """Figure 6 of Szegedy et al., with n = 7."""
    row, column = (1, 7), (7, 1)
    return MixedBlock(
        (
            (("branch1x1", 192),),
            (("branch7x7_1", width), ("branch7x7_2", width, row), ("branch7x7_3", 192, column)),
            (
                ("branch7x7dbl_1", width),
                ("branch7x7dbl_2", width, column),
                ("branch7x7dbl_3", width, row),
                ("branch7x7dbl_4", width, column),
                ("branch7x7dbl_5", 192, row),
            ),
            (_average_pool, ("branch_pool", 192)),
        ),
        name=name,
    )


def _block_d(name: str) -> MixedBlock:
    """From 17x17 to 8x8."""
    return MixedBlock(
        (
            (("branch3x3_1", 192), ("branch3x3_2", 320, (3, 3))),
            (
                ("branch7x7x3_1", 192),
                ("branch7x7x3_2", 192, (1, 7)),
                ("branch7x7x3_3", 192, (7, 1)),
                ("branch7x7x3_4", 192, (3, 3)),
            ),
            (_max_pool_shrink,),
        ),
        frozenset({"branch3x3_2", "branch7x7x3_4"}),
        name=name,
    )


def _block_e(pool: object, name: str) -> MixedBlock:
    """Figure 7 of Szegedy et al."""
    row, column = (1, 3), (3, 1)
    return MixedBlock(
        (
            (("branch1x1", 320),),
            (("branch3x3_1", 384), (("branch3x3_2a", 384, row), ("branch3x3_2b", 384, column))),
            (
                ("branch3x3dbl_1", 448),
                ("branch3x3dbl_2", 384, (3, 3)),
                (("branch3x3dbl_3a", 384, row), ("branch3x3dbl_3b", 384, column)),
            ),
            (pool, ("branch_pool", 192)),
        ),
        name=name,
    )


class Inception(nn.Module):
    """Images [B, H, W, C], values in [0, 255], 1 or 3 channels, to a dictionary of float32 arrays.

    '64', '192', '768' and '2048' [B, channels]: maps averaged over their positions; FID and KID compare '2048'.
    'logits' [B, 1008], and 'logits_unbiased' without the last layer's bias, which the Inception score uses.
    """

    @nn.compact
    def __call__(self, images: Array) -> dict[str, Array]:
        if images.shape[-1] == 1:
            images = jnp.repeat(images, 3, axis=-1)
        x = (resize(images.astype(jnp.float32)) - 128) / 128
        taps = {}

        def tap(x: Array) -> Array:
            taps[str(x.shape[-1])] = x.mean((1, 2))
            return x

        x = ConvBlock(32, (3, 3), 2, same=False, name="Conv2d_1a_3x3")(x)
        x = ConvBlock(32, (3, 3), same=False, name="Conv2d_2a_3x3")(x)
        x = ConvBlock(64, (3, 3), name="Conv2d_2b_3x3")(x)
        x = tap(_max_pool_shrink(x))
        x = ConvBlock(80, name="Conv2d_3b_1x1")(x)
        x = ConvBlock(192, (3, 3), same=False, name="Conv2d_4a_3x3")(x)
        x = tap(_max_pool_shrink(x))
        for pooled, name in ((32, "Mixed_5b"), (64, "Mixed_5c"), (64, "Mixed_5d")):
            x = _block_a(pooled, name)(x)
        x = _block_b("Mixed_6a")(x)
        for width, name in ((128, "Mixed_6b"), (160, "Mixed_6c"), (160, "Mixed_6d"), (192, "Mixed_6e")):
            x = _block_c(width, name)(x)
        x = tap(x)
        x = _block_d("Mixed_7a")(x)
        x = _block_e(_average_pool, "Mixed_7b")(x)
        x = tap(_block_e(_max_pool, "Mixed_7c")(x))
        kernel = parameter(self, "kernel", nn.initializers.lecun_normal(), (FEATURES, CLASSES))
        unbiased = jnp.dot(taps["2048"], kernel, precision=PRECISION)
        bias = parameter(self, "bias", nn.initializers.zeros, (CLASSES,))
        return taps | {"logits_unbiased": unbiased, "logits": unbiased + bias}


@functools.cache
def shapes() -> dict[str, Any]:
    """Shapes and dtypes of the parameters, as nested dictionaries."""
    images = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    return jax.eval_shape(Inception().init, jax.random.key(0), images)["params"]
