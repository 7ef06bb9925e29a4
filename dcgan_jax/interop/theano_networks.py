"""Converts the networks that the paper's authors released, arrays in Theano's layout.

The generator is g0, a matrix from z to units, with the gain g1 and bias g2 of its batch norm; then kernel, gain and
bias of each fractionally-strided convolution; and last a kernel alone. The discriminator is d0, a kernel; then kernel,
gain and bias of each further convolution; and last a matrix from units to the logit. Differences from our layout:

* Kernels are (maps, image side, row, column) for both kinds of convolution, and belong to *true* convolutions: they are
  rotated by 180 degrees compared with ours. "Image side" is the side nearer to the image.
* Units are in the order (channel, row, column), here (row, column, channel).
* The generator's first batch norm has a gain for each unit.
* Their batch norm uses batch statistics only, so there are no running statistics; epsilon is 1e-8.

Source: github.com/Newmu/dcgan_code, svhn/ and imagenet/.
"""

import itertools
import math

import numpy as np

from dcgan_jax.interop.networks import Arrays, Networks, Variables, check_numbers, unexpected

EXPECTED = (
    "g0 (z, units), g1, g2 (units), then kernel, gain, bias of each layer, last a kernel of 1, 3 or 4 channels; d0, a "
    "kernel, then kernel, gain, bias of each layer, last (units, 1)"
)


def convert(arrays: Arrays, where: str, strides: tuple[int, ...] = (), prior: str = "normal") -> Networks:
    """The networks in arrays g0, g1, ... and d0, d1, ...

    where: what the user calls them, for error messages. strides: of the discriminator's convolutions in order, which do
    not follow from the shapes; () means 2 for each. prior: the one that the generator was trained with.
    Raises UserError, with all names and shapes, for other weights.
    """
    check_numbers(where, arrays)
    generator, discriminator = (_numbered(arrays, letter) for letter in "gd")
    layers = (len(generator) - 1) // 3
    strides = strides or (2,) * layers
    mistake = _mistake(arrays, generator, discriminator, layers, strides)
    if mistake:
        raise unexpected(where, arrays, f"{EXPECTED}; {mistake}")

    project, first_maps = generator[0], generator[3].shape[0]
    side = math.isqrt(project.shape[1] // first_maps)
    units = _units(first_maps, side)
    params = {"project": {"kernel": project[:, units]}, "project_norm": _norm(generator[1][units], generator[2][units])}
    for i, kernel in enumerate(generator[3::3]):
        params[f"conv_{i}"] = {"kernel": _kernel(kernel)}
    for i in range(layers - 1):
        params[f"norm_{i}"] = _norm(*generator[3 * i + 4 : 3 * i + 6])

    discriminator_params = {
        "conv_0": {"kernel": _kernel(discriminator[0])},
        "logit": {"kernel": discriminator[-1][units]},
    }
    for i in range(1, layers):
        kernel, gain, bias = discriminator[3 * i - 2 : 3 * i + 1]
        discriminator_params |= {f"conv_{i}": {"kernel": _kernel(kernel)}, f"norm_{i}": _norm(gain, bias)}

    size = side * math.prod(strides)
    fields = {
        "image_size": (size, size),
        "channels": generator[-1].shape[1],
        "features": tuple(kernel.shape[0] for kernel in (discriminator[0], *discriminator[1:-1:3])),
        "strides": strides,
        "kernel_size": discriminator[0].shape[-1],
        "latent_dim": project.shape[0],
        "prior": prior,
        "norm_epsilon": 1e-8,
        "norm_per_unit": True,
    }
    return Networks(fields, Variables(params, None), Variables(discriminator_params, None))


def _numbered(arrays: Arrays, letter: str) -> list[np.ndarray]:
    names = [f"{letter}{i}" for i in range(len(arrays))]
    return [arrays[name].astype(np.float32) for name in names if name in arrays]


def _mistake(
    arrays: Arrays, generator: list[np.ndarray], discriminator: list[np.ndarray], layers: int, strides: tuple[int, ...]
) -> str:
    """Why the arrays are not such networks; '' if they are."""
    if len(generator) + len(discriminator) != len(arrays) or layers < 1:
        return "the names do not fit"
    if len(generator) != 3 * layers + 1 or len(discriminator) != 3 * layers - 1:
        return f"{len(generator)} and {len(discriminator)} arrays do not fit"
    if len(strides) != layers:
        return f"there are {layers} convolutions and {len(strides)} strides"
    project, kernels = generator[0], generator[3::3]
    if project.ndim != 2 or any(kernel.ndim != 4 for kernel in kernels) or not kernels[0].shape[0]:
        return "g0, or a kernel of the generator, has another number of axes"
    side = math.isqrt(project.shape[1] // kernels[0].shape[0])
    if project.shape[1] != kernels[0].shape[0] * side**2:
        return f"the {project.shape[1]} units of g0 are no square map of {kernels[0].shape[0]} channels"
    if kernels[-1].shape[1] not in (1, 3, 4):
        return f"the generator ends in {kernels[-1].shape[1]} channels"
    # All other shapes follow from these.
    widths = [kernel.shape[0] for kernel in kernels] + [kernels[-1].shape[1]]
    expected = _shapes(project.shape[0], widths, side, kernels[0].shape[-1])
    for letter, network, shapes in zip("gd", (generator, discriminator), expected, strict=True):
        for i, (array, shape) in enumerate(zip(network, shapes, strict=True)):
            if array.shape != shape:
                return f"{letter}{i} should be {'x'.join(map(str, shape))}"
    return ""


def _shapes(
    latent_dim: int, widths: list[int], side: int, kernel_size: int
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """The shapes of g0, g1, ... and of d0, d1, ...; widths: from the first map outwards, the image's channels last."""
    units, square = widths[0] * side**2, (kernel_size, kernel_size)
    generator = [(latent_dim, units), (units,), (units,)]
    discriminator: list[tuple[int, ...]] = []
    for inner, outer in itertools.pairwise(widths):
        generator += [(inner, outer, *square), (outer,), (outer,)]
        discriminator = [(inner, outer, *square), (inner,), (inner,), *discriminator]
    # No batch norm at the image.
    return generator[:-2], [discriminator[0], *discriminator[3:], (units, 1)]


def _units(channels: int, side: int) -> np.ndarray:
    """For each unit in the order (row, column, channel), its index in the order (channel, row, column)."""
    return np.arange(channels * side**2).reshape(channels, side, side).transpose(1, 2, 0).reshape(-1)


def _kernel(kernel: np.ndarray) -> np.ndarray:
    """(maps, image side, row, column) -> [row, column, image side, maps], rotated by 180 degrees."""
    return kernel[:, :, ::-1, ::-1].transpose(2, 3, 1, 0)


def _norm(gain: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
    return {"scale": gain, "bias": bias}
