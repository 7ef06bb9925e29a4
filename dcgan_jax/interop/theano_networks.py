"""The networks that the paper's authors released, as arrays in Theano's layout.

The generator is g0 (z to units), its batch norm's gain and bias g1 and g2, then for each fractionally-strided
convolution a kernel, gain and bias, and last a kernel alone. The discriminator is d0, a kernel; kernel, gain and bias
for each other convolution; last d(n), from units to the logit. What differs from our layout:

* Kernels are (maps, image side, row, column) for both kinds of convolution, and *true* convolutions: turned by 180
  degrees beside ours.
* Units are in the order (channel, row, column), here (row, column, channel).
* The generator's first batch norm has a gain for each unit.
* Batch norm knows the statistics of the batch alone, so that no running ones come with the weights; epsilon is 1e-8.

Source: github.com/Newmu/dcgan_code, svhn/ and imagenet/.
"""

import itertools
import math

import numpy as np

from dcgan_jax.interop.networks import Arrays, Networks, Variables, check_numbers, unexpected

EXPECTED = (
    "g0 (z, units), g1, g2 (units), then kernel, gain, bias of each layer, last a kernel of 1 or 3 channels; d0, a "
    "kernel, then kernel, gain, bias of each layer, last (units, 1)"
)


def convert(arrays: Arrays, where: str, strides: tuple[int, ...] = (), prior: str = "normal") -> Networks:
    """The networks in arrays g0, g1, ... and d0, d1, ...

    where: what the user calls them, for errors. strides: of each convolution in the discriminator's order, which
    shapes do not tell; () is 2 for each. prior: that the generator was trained with.
    Raises UserError, with all names and shapes, where they are not those of such networks.
    """
    check_numbers(where, arrays)
    generator, discriminator = (_numbered(arrays, letter) for letter in "gd")
    layers = (len(generator) - 1) // 3
    strides = strides or (2,) * layers
    reason = _mistake(arrays, generator, discriminator, layers, strides)
    if reason:
        raise unexpected(where, arrays, f"{EXPECTED}; {reason}")

    project, first_maps = generator[0], generator[3].shape[0]
    side = math.isqrt(project.shape[1] // first_maps)
    units = _units(first_maps, side)
    params = {"project": {"kernel": project[:, units]}, "project_norm": _norm(generator[1][units], generator[2][units])}
    for i, kernel in enumerate(generator[3::3]):
        params[f"conv_{i}"] = {"kernel": _kernel(kernel)}
    for i in range(layers - 1):
        params[f"norm_{i}"] = _norm(*generator[3 * i + 4 : 3 * i + 6])

    judge = {"conv_0": {"kernel": _kernel(discriminator[0])}, "logit": {"kernel": discriminator[-1][units]}}
    for i in range(1, layers):
        kernel, gain, bias = discriminator[3 * i - 2 : 3 * i + 1]
        judge |= {f"conv_{i}": {"kernel": _kernel(kernel)}, f"norm_{i}": _norm(gain, bias)}

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
    return Networks(fields, Variables(params, None), Variables(judge, None))


def _numbered(arrays: Arrays, letter: str) -> list[np.ndarray]:
    names = [f"{letter}{i}" for i in range(len(arrays))]
    return [arrays[name].astype(np.float32) for name in names if name in arrays]


def _mistake(
    arrays: Arrays, generator: list[np.ndarray], discriminator: list[np.ndarray], layers: int, strides: tuple[int, ...]
) -> str:
    """What keeps arrays from being such networks; '' for nothing."""
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
    if kernels[-1].shape[1] not in (1, 3):
        return f"the generator ends in {kernels[-1].shape[1]} channels"
    # All other shapes follow: the discriminator is the mirror in depth and channels, if not in widths.
    k = kernels[0].shape[-1]
    widths = [kernel.shape[0] for kernel in kernels] + [kernels[-1].shape[1]]
    expected = [(project.shape[0], widths[0] * side**2), *[(widths[0] * side**2,)] * 2]
    for outer, inner in zip(widths[1:], widths[:-1], strict=True):
        expected += [(inner, outer, k, k), (outer,), (outer,)]
    mirror = widths[::-1]
    expected_d = []
    for outer, inner in itertools.pairwise(mirror):
        expected_d += [(inner, outer, k, k), (inner,), (inner,)]
    expected_d[1:3] = []
    expected_d.append((widths[0] * side**2, 1))
    named = [("g", generator, expected[:-2]), ("d", discriminator, expected_d)]
    for letter, found, shapes in named:
        for i, (array, shape) in enumerate(zip(found, shapes, strict=True)):
            if array.shape != shape:
                return f"{letter}{i} should be {'x'.join(map(str, shape))}"
    return ""


def _units(channels: int, side: int) -> np.ndarray:
    """For each unit in the order (row, column, channel), its place in the order (channel, row, column)."""
    return np.arange(channels * side**2).reshape(channels, side, side).transpose(1, 2, 0).reshape(-1)


def _kernel(kernel: np.ndarray) -> np.ndarray:
    """(maps, image side, row, column), a true convolution's -> [row, column, image side, maps], turned."""
    return kernel[:, :, ::-1, ::-1].transpose(2, 3, 1, 0)


def _norm(gain: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
    return {"scale": gain, "bias": bias}
