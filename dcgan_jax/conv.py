"""The strided convolution and its adjoint, the fractionally-strided one, with gradients that are fast everywhere.

A convolution is linear in the images and in the kernel, so with a cotangent on its output it is one number,
<conv(images, kernel), maps>, linear in each of the three. The derivative with respect to each one is one of the three
functions below:

    maps    <- conv(images, kernel)              the strided convolution
    images  <- conv_transpose(maps, kernel)      the fractionally-strided convolution (the generator's "deconvolution")
    kernel  <- _kernel_gradient(images, maps)    the weight gradient, of both

They form a closed set: the derivatives of each, of any order, are the other two. Stated to JAX in this way, every
gradient, also of a gradient penalty, runs as one of three fast kernels. What automatic differentiation makes of the
weights of a transposed convolution is an order of magnitude slower on CPU (`benchmarks/conv_transpose.py`).

Shapes: images [B, H, W, I], kernel [k, k, I, O], maps [B, H/stride, W/stride, O]; note that conv_transpose maps the
kernel's *last* axis to the one before it. Padding is symmetric, (k - stride) / 2 rounded up on each side, as in the
paper's code; XLA's 'SAME' is not that for odd kernels with stride 2.
"""

import functools

import jax
from jax import Array, lax

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def padding(kernel_size: int, stride: int) -> int:
    """Pixels of padding on each side: (kernel_size - stride) / 2, rounded up."""
    return (kernel_size - stride + 1) // 2


def _plain_conv(images: Array, kernel: Array, stride: int) -> Array:
    """XLA's convolution, of which JAX knows the transposes."""
    pad = padding(kernel.shape[0], stride)
    return lax.conv_general_dilated(images, kernel, (stride, stride), [(pad, pad)] * 2, dimension_numbers=DIMENSIONS)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(images: Array, kernel: Array, stride: int) -> Array:
    """Strided convolution: images [B, H, W, I], kernel [k, k, I, O] -> maps [B, H/stride, W/stride, O]."""
    return _plain_conv(images, kernel, stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv_transpose(maps: Array, kernel: Array, stride: int) -> Array:
    """Fractionally-strided convolution, the adjoint of `conv`.

    maps [B, H, W, O], kernel [k, k, I, O] -> images [B, H * stride, W * stride, I].
    """
    batch, height, width, _ = maps.shape
    shape = (batch, height * stride, width * stride, kernel.shape[2])
    images = jax.ShapeDtypeStruct(shape, maps.dtype)
    return jax.linear_transpose(lambda x: _plain_conv(x, kernel, stride), images)(maps)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _kernel_gradient(images: Array, maps: Array, stride: int, kernel_size: int) -> Array:
    """Gradient of <conv(images, kernel), maps> with respect to the kernel: [k, k, I, O]."""
    shape = (kernel_size, kernel_size, images.shape[-1], maps.shape[-1])
    kernel = jax.ShapeDtypeStruct(shape, images.dtype)
    return jax.linear_transpose(lambda w: _plain_conv(images, w, stride), kernel)(maps)[0]


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
