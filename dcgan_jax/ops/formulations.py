"""Exact formulations of the three functions of `dcgan_jax.ops.conv`, by name: the same sums as different operations.

    plain           XLA's convolution, of which JAX knows the transposes
    patches         one matrix product, of the patches that the kernel sees
    padded_channels XLA's convolution with zeros for channels that lack to 8
    padded_maps     XLA's convolution with zeros beside the maps, until they are larger than the kernel
    space_to_depth  cells of stride x stride pixels become channels, with zeros for those that lack to a multiple of 8;
                    then a convolution of stride 1. Transposed it is the sub-pixel form (Shi et al. 2016)
    winograd        half the multiplications for stride 2 (`dcgan_jax.ops.winograd`)

Shapes as there: images [B, H, W, I], kernel [k, k, I, O], maps [B, H/stride, W/stride, O].
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from dcgan_jax.ops import winograd
from dcgan_jax.ops.dtypes import at_least_float32

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
# Tensor cores read channels of half precision eight at a time.
ALIGNMENT = 8


class Formulation(NamedTuple):
    """One way to compute each of the three functions."""

    conv: Callable[[Array, Array, int], Array]  # images, kernel, stride -> maps
    conv_transpose: Callable[[Array, Array, int], Array]  # maps, kernel, stride -> images
    kernel_gradient: Callable[[Array, Array, int, int], Array]  # images, maps, stride, kernel_size -> kernel


def padding(kernel_size: int, stride: int) -> int:
    """Pixels of padding on each side: (kernel_size - stride) / 2, rounded up."""
    return (kernel_size - stride + 1) // 2


def _transposed(function: Callable[[Array], Array], shape: tuple[int, ...], cotangent: Array) -> Array:
    """What the transpose of a linear function of an array of this shape makes of the cotangent."""
    return jax.linear_transpose(function, jax.ShapeDtypeStruct(shape, cotangent.dtype))(cotangent)[0]


def _images_shape(maps: Array, kernel: Array, stride: int) -> tuple[int, ...]:
    batch, height, width, _ = maps.shape
    return (batch, height * stride, width * stride, kernel.shape[2])


def _kernel_shape(images: Array, maps: Array, kernel_size: int) -> tuple[int, ...]:
    return (kernel_size, kernel_size, images.shape[-1], maps.shape[-1])


# plain


def _plain_conv(images: Array, kernel: Array, stride: int) -> Array:
    pad = padding(kernel.shape[0], stride)
    return lax.conv_general_dilated(images, kernel, (stride, stride), [(pad, pad)] * 2, dimension_numbers=DIMENSIONS)


def _plain_conv_transpose(maps: Array, kernel: Array, stride: int) -> Array:
    return _transposed(lambda images: _plain_conv(images, kernel, stride), _images_shape(maps, kernel, stride), maps)


def _plain_kernel_gradient(images: Array, maps: Array, stride: int, kernel_size: int) -> Array:
    shape = _kernel_shape(images, maps, kernel_size)
    return _transposed(lambda kernel: _plain_conv(images, kernel, stride), shape, maps)


# patches


def _patches(images: Array, stride: int, kernel_size: int) -> Array:
    """What the kernel sees at each position: [B, H/stride, W/stride, k * k * I]."""
    height, width = (side // stride for side in images.shape[1:3])
    pad = padding(kernel_size, stride)
    images = jnp.pad(images, ((0, 0), (pad, pad + stride), (pad, pad + stride), (0, 0)))

    def seen_by(y: int, x: int) -> Array:
        return images[:, y : y + height * stride : stride, x : x + width * stride : stride]

    return jnp.concatenate([seen_by(y, x) for y in range(kernel_size) for x in range(kernel_size)], axis=-1)


def _patches_conv(images: Array, kernel: Array, stride: int) -> Array:
    return _patches(images, stride, kernel.shape[0]) @ kernel.reshape(-1, kernel.shape[-1])


def _patches_conv_transpose(maps: Array, kernel: Array, stride: int) -> Array:
    wide = at_least_float32(maps.dtype)  # each pixel is a sum of several of the product's numbers
    patches = jnp.matmul(maps, kernel.reshape(-1, kernel.shape[-1]).T, preferred_element_type=wide)
    shape = _images_shape(maps, kernel, stride)
    return _transposed(lambda images: _patches(images, stride, kernel.shape[0]), shape, patches).astype(maps.dtype)


def _patches_kernel_gradient(images: Array, maps: Array, stride: int, kernel_size: int) -> Array:
    patches = _patches(images, stride, kernel_size)
    gradient = patches.reshape(-1, patches.shape[-1]).T @ maps.reshape(-1, maps.shape[-1])
    return gradient.reshape(_kernel_shape(images, maps, kernel_size))


# padded_channels


def _aligned(x: Array, *axes: int) -> Array:
    """Zeros behind, to the next multiple of 8 along each axis."""
    widths = [(0, 0)] * x.ndim
    for axis in axes:
        widths[axis] = (0, -x.shape[axis] % ALIGNMENT)
    return jnp.pad(x, widths)


def _padded_channels_conv(images: Array, kernel: Array, stride: int) -> Array:
    return _plain_conv(_aligned(images, 3), _aligned(kernel, 2, 3), stride)[..., : kernel.shape[3]]


def _padded_channels_conv_transpose(maps: Array, kernel: Array, stride: int) -> Array:
    return _plain_conv_transpose(_aligned(maps, 3), _aligned(kernel, 2, 3), stride)[..., : kernel.shape[2]]


def _padded_channels_kernel_gradient(images: Array, maps: Array, stride: int, kernel_size: int) -> Array:
    gradient = _plain_kernel_gradient(_aligned(images, 3), _aligned(maps, 3), stride, kernel_size)
    return gradient[:, :, : images.shape[3], : maps.shape[3]]


# padded_maps


def _enlarged(x: Array, height: int, width: int) -> Array:
    """Zeros below and on the right."""
    return jnp.pad(x, ((0, 0), (0, height - x.shape[1]), (0, width - x.shape[2]), (0, 0)))


def _larger_than(kernel_size: int, stride: int, height: int, width: int) -> tuple[int, int]:
    """A size that XLA does not take for a kernel: see `dcgan_jax.ops.conv`. With stride 1 both sides must be larger."""
    width = max(width, kernel_size + 1)
    return (max(height, kernel_size + 1) if stride == 1 else max(height, -(-(kernel_size**2) // width))), width


def _padded_maps_conv(images: Array, kernel: Array, stride: int) -> Array:
    height, width = (side // stride for side in images.shape[1:3])
    rows, columns = _larger_than(kernel.shape[0], stride, height, width)
    return _plain_conv(_enlarged(images, rows * stride, columns * stride), kernel, stride)[:, :height, :width]


def _padded_maps_conv_transpose(maps: Array, kernel: Array, stride: int) -> Array:
    _, height, width, _ = _images_shape(maps, kernel, stride)
    rows, columns = _larger_than(kernel.shape[0], stride, *maps.shape[1:3])
    return _plain_conv_transpose(_enlarged(maps, rows, columns), kernel, stride)[:, :height, :width]


def _padded_maps_kernel_gradient(images: Array, maps: Array, stride: int, kernel_size: int) -> Array:
    rows, columns = _larger_than(kernel_size, stride, *maps.shape[1:3])
    images, maps = _enlarged(images, rows * stride, columns * stride), _enlarged(maps, rows, columns)
    return _plain_kernel_gradient(images, maps, stride, kernel_size)


# space_to_depth


def _cells(images: Array, stride: int, kernel_size: int) -> Array:
    """Cells of stride x stride pixels as channels: [B, cells, cells, channels]; what lacks to a cell is zeros."""
    before = padding(kernel_size, stride) % stride
    after = -before % stride
    images = jnp.pad(images, ((0, 0), (before, after), (before, after), (0, 0)))
    batch, height, width, channels = images.shape
    cells = images.reshape(batch, height // stride, stride, width // stride, stride, channels)
    cells = cells.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // stride, width // stride, stride**2 * channels)
    return _aligned(cells, 3)


def _taps(kernel: Array, stride: int) -> Array:
    """The kernel on cells: [taps, taps, channels, O]."""
    size, _, channels, features = kernel.shape
    taps = -(-size // stride)
    missing = taps * stride - size
    kernel = jnp.pad(kernel, ((0, missing), (0, missing), (0, 0), (0, 0)))
    kernel = kernel.reshape(taps, stride, taps, stride, channels, features).transpose(0, 2, 1, 3, 4, 5)
    return _aligned(kernel.reshape(taps, taps, stride**2 * channels, features), 2)


def _cell_conv(cells: Array, taps: Array, stride: int, kernel_size: int) -> Array:
    """The convolution of cells, of stride 1."""
    pad = padding(kernel_size, stride)
    # Maps are as many as cells, unless a part of a cell of padding makes one cell more.
    before, more = pad // stride, int(pad % stride > 0)
    pads = [(before, taps.shape[0] - 1 - before - more)] * 2
    return lax.conv_general_dilated(cells, taps, (1, 1), pads, dimension_numbers=DIMENSIONS)


def _cells_shape(maps: Array, taps: Array, stride: int, kernel_size: int) -> tuple[int, ...]:
    batch, height, width, _ = maps.shape
    more = int(padding(kernel_size, stride) % stride > 0)
    return (batch, height + more, width + more, taps.shape[2])


def _space_to_depth_conv(images: Array, kernel: Array, stride: int) -> Array:
    size = kernel.shape[0]
    return _cell_conv(_cells(images, stride, size), _taps(kernel, stride), stride, size)


def _space_to_depth_conv_transpose(maps: Array, kernel: Array, stride: int) -> Array:
    size, taps = kernel.shape[0], _taps(kernel, stride)
    shape = _cells_shape(maps, taps, stride, size)
    cells = _transposed(lambda cells: _cell_conv(cells, taps, stride, size), shape, maps)
    return _transposed(lambda images: _cells(images, stride, size), _images_shape(maps, kernel, stride), cells)


def _space_to_depth_kernel_gradient(images: Array, maps: Array, stride: int, kernel_size: int) -> Array:
    cells, taps = _cells(images, stride, kernel_size), -(-kernel_size // stride)
    shape = (taps, taps, cells.shape[-1], maps.shape[-1])
    gradient = _transposed(lambda taps: _cell_conv(cells, taps, stride, kernel_size), shape, maps)
    return _transposed(lambda kernel: _taps(kernel, stride), _kernel_shape(images, maps, kernel_size), gradient)


# winograd


def _winograd_conv(images: Array, kernel: Array, stride: int) -> Array:
    return winograd.conv(images, kernel, padding(kernel.shape[0], stride))


def _winograd_conv_transpose(maps: Array, kernel: Array, stride: int) -> Array:
    return winograd.conv_transpose(maps, kernel, padding(kernel.shape[0], stride))


def _winograd_kernel_gradient(images: Array, maps: Array, stride: int, kernel_size: int) -> Array:
    return winograd.kernel_gradient(images, maps, kernel_size, padding(kernel_size, stride))


FORMULATIONS = {
    "plain": Formulation(_plain_conv, _plain_conv_transpose, _plain_kernel_gradient),
    "patches": Formulation(_patches_conv, _patches_conv_transpose, _patches_kernel_gradient),
    "padded_channels": Formulation(
        _padded_channels_conv, _padded_channels_conv_transpose, _padded_channels_kernel_gradient
    ),
    "padded_maps": Formulation(_padded_maps_conv, _padded_maps_conv_transpose, _padded_maps_kernel_gradient),
    "space_to_depth": Formulation(
        _space_to_depth_conv, _space_to_depth_conv_transpose, _space_to_depth_kernel_gradient
    ),
    "winograd": Formulation(_winograd_conv, _winograd_conv_transpose, _winograd_kernel_gradient),
}
