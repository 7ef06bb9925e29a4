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

Each of the three has more than one exact formulation (`dcgan_jax.ops.formulations`). A CPU runs Winograd's form if that
saves work, and the weight gradient of few channels as one matrix product, of the patches that the kernel sees. An
NVIDIA GPU runs XLA's convolution, except where `ON_CUDA` below says otherwise; other accelerators run XLA's. Under
`vmap` over networks, accelerators run all three as products of patches. With the environment variable DCGAN_CONV=plain
every device runs XLA's convolution, to compare. So does a CPU that is used beside an accelerator, JAX's default there;
JAX_PLATFORMS=cpu makes it the default.

Shapes: images [B, H, W, I], kernel [k, k, I, O], maps [B, H/stride, W/stride, O]; note that conv_transpose maps the
kernel's *last* axis to the one before it. Padding is symmetric, (k - stride) / 2 rounded up on each side, as in the
paper's code; XLA's 'SAME' is not that for odd kernels with stride 2.
"""

import functools
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from dcgan_jax.ops import winograd
from dcgan_jax.ops.dtypes import at_least_float32
from dcgan_jax.ops.formulations import ALIGNMENT, DIMENSIONS, FORMULATIONS, padding
from dcgan_jax.runtime.errors import UserError

__all__ = ["DIMENSIONS", "conv", "conv_of_constant_maps", "conv_transpose", "padding", "shapes_alone"]

# With fewer channels a CPU gains nothing from Winograd's transforms, measured by `benchmarks/layers.py`.
MIN_WINOGRAD_CHANNELS = 16

# What an NVIDIA GPU runs in place of XLA's convolution, by function and situation (`situation`). Beside it, what that
# gained: milliseconds of the plain form and of this one on an H200, for the LSUN network at batch 512 in bfloat16 by
# `benchmarks/formulations.py`. A line that is taken out gives the plain form back.
ON_CUDA = {
    # function, situation: formulation
    ("kernel_gradient", "small maps"): "space_to_depth",  # 1.60, 0.49
    ("conv_transpose", "small maps"): "space_to_depth",  # 3.61, 0.44
    ("conv", "small maps"): "patches",  # not measured: no layer of the paper's 64x64 network is such
    ("kernel_gradient", "few channels"): "space_to_depth",  # 0.182, 0.159
    ("conv_transpose", "few channels"): "space_to_depth",  # 0.577, 0.190
    ("conv", "few channels"): "space_to_depth",  # 0.338, 0.118
}

# Every function and layer runs XLA's convolution on every device if this variable is 'plain'.
SWITCH = "DCGAN_CONV"

_shapes_alone = ContextVar("shapes_alone", default=False)


class Layer(NamedTuple):
    """What the choice of a formulation depends on."""

    kernel_shape: tuple[int, ...]  # (k, k, I, O)
    stride: int
    sides: tuple[int, ...]  # height and width of the maps
    dtype: jnp.dtype


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(images: Array, kernel: Array, stride: int) -> Array:
    """Strided convolution: images [B, H, W, I], kernel [k, k, I, O] -> maps [B, H/stride, W/stride, O]."""
    sides = tuple(side // stride for side in images.shape[1:3])
    return _choose("conv", Layer(kernel.shape, stride, sides, images.dtype), images, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv_transpose(maps: Array, kernel: Array, stride: int) -> Array:
    """Fractionally-strided convolution, the adjoint of `conv`.

    maps [B, H, W, O], kernel [k, k, I, O] -> images [B, H * stride, W * stride, I].
    """
    return _choose("conv_transpose", Layer(kernel.shape, stride, maps.shape[1:3], maps.dtype), maps, kernel)


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
    shape = (kernel_size, kernel_size, images.shape[-1], maps.shape[-1])
    return _choose("kernel_gradient", Layer(shape, stride, maps.shape[1:3], maps.dtype), images, maps)


@contextmanager
def shapes_alone() -> Iterator[None]:
    """Traces no convolution inside: what comes out is zeros. For making parameters, which depend on shapes alone.

    Nothing that is traced inside may be used outside, by way of a jitted function (or `nn.jit`) that is called in both.
    """
    before = _shapes_alone.set(True)
    try:
        yield
    finally:
        _shapes_alone.reset(before)


def _choose(function: str, layer: Layer, *arrays: Array) -> Array:
    """Runs the formulation for the platform that the program is compiled for."""
    if _shapes_alone.get():
        return jnp.zeros(_shape(function, layer, len(arrays[0])), layer.dtype)
    here = jax.default_backend() == "cpu"
    return _chosen(function, layer, on_cpu(function, layer), on_cuda(function, layer), here)(*arrays)


def _shape(function: str, layer: Layer, batch: int) -> tuple[int, ...]:
    """The shape of a function's result."""
    *_, inputs, outputs = layer.kernel_shape
    height, width = layer.sides
    match function:
        case "conv":
            return (batch, height, width, outputs)
        case "conv_transpose":
            return (batch, height * layer.stride, width * layer.stride, inputs)
        case _:
            return layer.kernel_shape


@functools.cache
def _chosen(function: str, layer: Layer, cpu: str, cuda: str, here: bool) -> Callable[..., Array]:
    """One function of a layer, traced once for each shape: the networks mirror each other, and share half of them.

    here: whether this is a CPU's program at all.
    """
    plain, by_patches = _form("plain", function, layer), _form("patches", function, layer)

    def in_float32(*arrays: Array) -> Array:
        # XLA's CPU code for half precision is slower than single, and sums worse.
        dtype = jnp.result_type(*arrays)
        wide = at_least_float32(dtype)
        return _form(cpu, function, layer)(*(x.astype(wide) for x in arrays)).astype(dtype)

    default = _or_by_patches(plain, by_patches)
    on_a_gpu = _or_by_patches(_form(cuda, function, layer), by_patches)

    def for_platform(*arrays: Array) -> Array:
        others = {}
        # JAX traces every branch, and Winograd's takes most of the time: not where programs are for an accelerator.
        if here and (cpu != "plain" or jnp.result_type(*arrays) not in (jnp.float32, jnp.float64)):
            others["cpu"] = in_float32
        if cuda != "plain":
            others["cuda"] = on_a_gpu
        return lax.platform_dependent(*arrays, **others, default=default) if others else default(*arrays)

    return jax.jit(for_platform, inline=True)


def _form(name: str, function: str, layer: Layer) -> Callable[..., Array]:
    """A formulation of one of the three functions, of its two arrays."""
    static = (layer.stride, layer.kernel_shape[0]) if function == "kernel_gradient" else (layer.stride,)

    def form(*arrays: Array) -> Array:
        return getattr(FORMULATIONS[name], function)(*arrays, *static)

    return form


def on_cpu(function: str, layer: Layer) -> str:
    """The name of the formulation that a CPU runs."""
    if _switched_off():
        return "plain"
    if _suits_winograd(layer.kernel_shape, layer.stride):
        return "winograd"
    few = layer.kernel_shape[2] < MIN_WINOGRAD_CHANNELS
    return "patches" if function == "kernel_gradient" and few else "plain"


def on_cuda(function: str, layer: Layer) -> str:
    """The name of the formulation that an NVIDIA GPU runs."""
    return "plain" if _switched_off() else ON_CUDA.get((function, situation(function, layer)), "plain")


def situation(function: str, layer: Layer) -> str:
    """In which of the situations of `ON_CUDA` a function of a layer is; '' is none of them.

    small maps: XLA takes what is not a forward convolution for one. It tells a weight gradient by a window, the maps,
        that is larger than the result, the kernel, along one side (conv_kind_assignment.cc); and of a convolution whose
        arrays have fewer positions than its kernel it swaps the two first (algebraic_simplifier.cc). Both then run as
        forward convolutions of 7x7 windows, in which strides have become zeros.
    few channels: cuDNN's kernels for tensor cores read channels of half precision eight at a time. XLA adds zeros for
        the missing ones in float16, not in bfloat16.
    """
    size, _, channels, _ = layer.kernel_shape
    positions = math.prod(layer.sides) * (layer.stride**2 if function == "conv" else 1)
    small = max(layer.sides) <= size if function == "kernel_gradient" else positions < size**2
    if small:
        return "small maps"
    return "few channels" if layer.dtype.itemsize < 4 and channels < ALIGNMENT else ""


def _switched_off() -> bool:
    value = os.environ.get(SWITCH, "")
    if value not in ("", "plain"):
        raise UserError(f"{SWITCH}: found {value!r} in the environment, expected 'plain' or nothing")
    return value == "plain"


def _or_by_patches(alone: Callable[..., Array], by_patches: Callable[..., Array]) -> Callable[..., Array]:
    """`alone`; but `by_patches` under `vmap` over both arrays, as when several networks train at once.

    XLA would make one convolution with a group for each network of it, which is slow on GPUs.
    """
    function = jax.custom_batching.custom_vmap(alone)

    @function.def_vmap
    def rule(axis_size: int, in_batched: list[bool], *arrays: Array) -> tuple[Array, bool]:
        each = by_patches if all(in_batched) else alone
        axes = tuple(0 if batched else None for batched in in_batched)
        return jax.vmap(each, axes, axis_size=axis_size)(*arrays), True

    return function


def _suits_winograd(kernel_shape: tuple[int, ...], stride: int) -> bool:
    """Whether products outweigh the transforms: with enough channels on both sides (`benchmarks/layers.py`)."""
    return stride == 2 and kernel_shape[0] in winograd.KERNEL_SIZES and min(kernel_shape[2:]) >= MIN_WINOGRAD_CHANNELS


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
