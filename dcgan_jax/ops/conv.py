"""The strided convolution and its adjoint, the fractionally-strided one, with gradients that are fast everywhere.

A convolution is linear in the images and in the kernel, so with a cotangent on its output it is one number,
<conv(images, kernel), maps>, linear in each of the three. The derivative with respect to each one is one of the three
functions below:

    maps    <- conv(images, kernel)              the strided convolution
    images  <- conv_transpose(maps, kernel)      the fractionally-strided convolution (the generator's "deconvolution")
    kernel  <- _kernel_gradient(images, maps)    the weight gradient, of both

They form a closed set: the derivatives of each, of any order, are the other two. Stated to JAX in this way, every
gradient, also of a gradient penalty, runs as one of three fast kernels. What automatic differentiation makes of the
weights of a transposed convolution is an order of magnitude slower on CPU (`benchmarks/layers.py`).

Each of the three has more than one exact formulation. Accelerators run XLA's convolution; a CPU runs Winograd's form of
it (`dcgan_jax.ops.winograd`) if that saves work, and the weight gradient of few channels as one matrix product, of the
patches that the kernel sees. Under `vmap` over networks, accelerators run all three as such products.

Shapes: images [B, H, W, I], kernel [k, k, I, O], maps [B, H/stride, W/stride, O]; note that conv_transpose maps the
kernel's *last* axis to the one before it. Padding is symmetric, (k - stride) / 2 rounded up on each side, as in the
paper's code; XLA's 'SAME' is not that for odd kernels with stride 2.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

from dcgan_jax.ops import winograd
from dcgan_jax.ops.dtypes import at_least_float32

# With fewer channels a CPU gains nothing from Winograd's transforms, measured by `benchmarks/layers.py`.
MIN_WINOGRAD_CHANNELS = 16
DIMENSIONS = ("NHWC", "HWIO", "NHWC")

Formulation = Callable[[Array, Array], Array]


def padding(kernel_size: int, stride: int) -> int:
    """Pixels of padding on each side: (kernel_size - stride) / 2, rounded up."""
    return (kernel_size - stride + 1) // 2


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(images: Array, kernel: Array, stride: int) -> Array:
    """Strided convolution: images [B, H, W, I], kernel [k, k, I, O] -> maps [B, H/stride, W/stride, O]."""

    def by_winograd(images: Array, kernel: Array) -> Array:
        return winograd.conv(images, kernel, padding(kernel.shape[0], stride))

    plain = functools.partial(_plain_conv, stride=stride)
    by_patches = functools.partial(_patches_conv, stride=stride)
    on_cpu = by_winograd if _suits_winograd(kernel.shape, stride) else plain
    return _choose(plain, by_patches, on_cpu, images, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv_transpose(maps: Array, kernel: Array, stride: int) -> Array:
    """Fractionally-strided convolution, the adjoint of `conv`.

    maps [B, H, W, O], kernel [k, k, I, O] -> images [B, H * stride, W * stride, I].
    """

    def by_winograd(maps: Array, kernel: Array) -> Array:
        return winograd.conv_transpose(maps, kernel, padding(kernel.shape[0], stride))

    plain = functools.partial(_plain_conv_transpose, stride=stride)
    by_patches = functools.partial(_patches_conv_transpose, stride=stride)
    on_cpu = by_winograd if _suits_winograd(kernel.shape, stride) else plain
    return _choose(plain, by_patches, on_cpu, maps, kernel)


def conv_of_constant_maps(
    convolve: Callable[[Array, Array, int], Array], values: Array, kernel: Array, stride: int, size: tuple[int, ...]
) -> Array:
    """`conv` or `conv_transpose` of maps that are constant over all positions, given by their values [B, F].

    size: height and width of the maps. Each position of the result sums the kernel's taps that fall inside the map: one
    small product, however many channels there are. One-hot labels are such maps.
    """
    side, taps = kernel.shape[0], kernel.shape[0] ** 2
    one_tap_each = jnp.eye(taps, dtype=values.dtype).reshape(side, side, 1, taps)
    if convolve is conv_transpose:  # whose kernels go from their last axis to the one before
        kernel, one_tap_each = kernel.swapaxes(2, 3), one_tap_each.swapaxes(2, 3)
    inside = convolve(jnp.ones((1, *size, 1), values.dtype), one_tap_each, stride)[0]
    weights = jnp.einsum("bi,tio->bto", values, kernel.reshape(taps, *kernel.shape[2:]))
    return jnp.einsum("hwt,bto->bhwo", inside, weights)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _kernel_gradient(images: Array, maps: Array, stride: int, kernel_size: int) -> Array:
    """Gradient of <conv(images, kernel), maps> with respect to the kernel: [k, k, I, O]."""

    def by_winograd(images: Array, maps: Array) -> Array:
        return winograd.kernel_gradient(images, maps, kernel_size, padding(kernel_size, stride))

    plain = functools.partial(_plain_kernel_gradient, stride=stride, kernel_size=kernel_size)
    by_patches = functools.partial(_patches_kernel_gradient, stride=stride, kernel_size=kernel_size)
    shape = (kernel_size, kernel_size, images.shape[-1], maps.shape[-1])
    on_cpu = (
        by_winograd
        if _suits_winograd(shape, stride)
        else by_patches
        if images.shape[-1] < MIN_WINOGRAD_CHANNELS
        else plain
    )
    return _choose(plain, by_patches, on_cpu, images, maps)


def _choose(plain: Formulation, by_patches: Formulation, on_cpu: Formulation, *arrays: Array) -> Array:
    """Runs the formulation for the platform that the program is compiled for."""

    def in_float32(*arrays: Array) -> Array:
        # XLA's CPU code for half precision is slower than single, and sums worse.
        dtype = jnp.result_type(*arrays)
        wide = at_least_float32(dtype)
        return on_cpu(*(x.astype(wide) for x in arrays)).astype(dtype)

    default = _or_by_patches(plain, by_patches)
    if on_cpu is plain and jnp.result_type(*arrays) in (jnp.float32, jnp.float64):
        return default(*arrays)
    return lax.platform_dependent(*arrays, cpu=in_float32, default=default)


def _or_by_patches(plain: Formulation, by_patches: Formulation) -> Callable:
    """`plain`; but `by_patches` under `vmap` over both arrays, as when several networks train at once.

    XLA would make one convolution with a group for each network of it, which is slow on GPUs.
    """
    function = jax.custom_batching.custom_vmap(plain)

    @function.def_vmap
    def rule(axis_size: int, in_batched: list[bool], *arrays: Array) -> tuple[Array, bool]:
        each = by_patches if all(in_batched) else plain
        axes = tuple(0 if batched else None for batched in in_batched)
        return jax.vmap(each, axes, axis_size=axis_size)(*arrays), True

    return function


def _suits_winograd(kernel_shape: tuple[int, ...], stride: int) -> bool:
    """Whether products outweigh the transforms: with enough channels on both sides (`benchmarks/layers.py`)."""
    return stride == 2 and kernel_shape[0] in winograd.KERNEL_SIZES and min(kernel_shape[2:]) >= MIN_WINOGRAD_CHANNELS


def _plain_conv(images: Array, kernel: Array, stride: int) -> Array:
    """XLA's convolution, of which JAX knows the transposes."""
    pad = padding(kernel.shape[0], stride)
    return lax.conv_general_dilated(images, kernel, (stride, stride), [(pad, pad)] * 2, dimension_numbers=DIMENSIONS)


def _plain_conv_transpose(maps: Array, kernel: Array, stride: int) -> Array:
    batch, height, width, _ = maps.shape
    shape = (batch, height * stride, width * stride, kernel.shape[2])
    images = jax.ShapeDtypeStruct(shape, maps.dtype)
    return jax.linear_transpose(lambda x: _plain_conv(x, kernel, stride), images)(maps)[0]


def _plain_kernel_gradient(images: Array, maps: Array, stride: int, kernel_size: int) -> Array:
    shape = (kernel_size, kernel_size, images.shape[-1], maps.shape[-1])
    kernel = jax.ShapeDtypeStruct(shape, images.dtype)
    return jax.linear_transpose(lambda w: _plain_conv(images, w, stride), kernel)(maps)[0]


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
    batch, height, width, _ = maps.shape
    images = jax.ShapeDtypeStruct((batch, height * stride, width * stride, kernel.shape[2]), maps.dtype)
    spread = jax.linear_transpose(lambda x: _patches(x, stride, kernel.shape[0]), images)
    return spread(maps @ kernel.reshape(-1, kernel.shape[-1]).T)[0]


def _patches_kernel_gradient(images: Array, maps: Array, stride: int, kernel_size: int) -> Array:
    patches = _patches(images, stride, kernel_size)
    gradient = patches.reshape(-1, patches.shape[-1]).T @ maps.reshape(-1, maps.shape[-1])
    return gradient.reshape(kernel_size, kernel_size, images.shape[-1], maps.shape[-1])


def _conv_forward(images, kernel, stride):
    return conv(images, kernel, stride), (images, kernel)


def _conv_backward(stride, saved, maps):
    images, kernel = saved
    return conv_transpose(maps, kernel, stride), _kernel_gradient(images, maps, stride, kernel.shape[0])


def _conv_transpose_forward(maps, kernel, stride):
    return conv_transpose(maps, kernel, stride), (maps, kernel)


def _conv_transpose_backward(stride, saved, images):
    maps, kernel = saved
    return conv(images, kernel, stride), _kernel_gradient(images, maps, stride, kernel.shape[0])


def _kernel_gradient_forward(images, maps, stride, kernel_size):
    return _kernel_gradient(images, maps, stride, kernel_size), (images, maps)


def _kernel_gradient_backward(stride, kernel_size, saved, kernel):
    images, maps = saved
    return conv_transpose(maps, kernel, stride), conv(images, kernel, stride)


conv.defvjp(_conv_forward, _conv_backward)
conv_transpose.defvjp(_conv_transpose_forward, _conv_transpose_backward)
_kernel_gradient.defvjp(_kernel_gradient_forward, _kernel_gradient_backward)
