"""Converts state dicts of PyTorch's DCGAN example and tutorial, both ways.

Both networks are one `nn.Sequential` called main. The generator netG alternates ConvTranspose2d and BatchNorm2d and
ends in a ConvTranspose2d; the discriminator netD has two Conv2d, then alternates BatchNorm2d and Conv2d. All strides
are 2, except in the generator's first layer, which turns z into a map of the kernel's size, and in the discriminator's
last, which turns such a map into the logit. These two are dense layers here ('project' and 'logit'). Other differences:

* Kernels are (maps, image side, row, column) for both kinds of convolution; neither is rotated.
* Images are (channel, row, column), here (row, column, channel).

"Image side" is the side nearer to the image: the inputs of a Conv2d, the outputs of a ConvTranspose2d.

Sources: github.com/pytorch/examples, dcgan/main.py; PyTorch's DCGAN tutorial.
"""

import itertools
import re
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dcgan_jax.config import layers
from dcgan_jax.interop.networks import Arrays, Networks, Tree, Variables, check_numbers, unexpected
from dcgan_jax.runtime.errors import UserError

# PyTorch's defaults, which are not in a state dict. PyTorch's momentum, 0.1, is the weight of the new value.
EPSILON, MOMENTUM = 1e-5, 0.9
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


class _UnknownLayout(Exception):
    """The weights are not those of such a network."""


EXPECTED = (
    "main.N.weight of convolutions (in or out channels by k x k, k even), a main.N.bias at most in the discriminator's "
    "first, each followed by the weight, bias, running_mean and running_var of its BatchNorm2d, but for the "
    "generator's last and the discriminator's first and last"
)


def convert(files: dict[str, dict[str, Any]]) -> Networks:
    """The networks in one or two state dicts, in either order.

    files: state dicts by what the user calls them, for error messages. The variables of a missing network are None.
    Raises UserError, with all names and shapes, for other weights, and if the two networks do not fit each other.
    """
    networks: dict[str, tuple[str, Tree, Variables]] = {}
    for where, content in files.items():
        arrays = _arrays(content, where)
        try:
            kind, fields, variables = _network(arrays)
        except _UnknownLayout as error:
            raise unexpected(where, arrays, EXPECTED) from error
        if kind in networks:
            other = networks[kind][0]
            raise UserError(f"{where}: found a {kind}, as in {other}; expected netG and netD, one file each")
        networks[kind] = where, fields, variables
    if len(networks) == 2:
        generator, discriminator = (networks[kind][1] for kind in ("generator", "discriminator"))
        differing = [name for name, value in generator.items() if discriminator.get(name, value) != value]
        if differing:
            listed = "; ".join(f"{name} {generator[name]} in netG, {discriminator[name]} in netD" for name in differing)
            raise UserError(f"--file: the two networks differ ({listed}), expected mirrors; import each by itself")
    fields = {name: value for _, part, _ in networks.values() for name, value in part.items()}
    fields |= {"norm_epsilon": EPSILON, "norm_momentum": MOMENTUM, "prior": "normal"}
    variables_of = {kind: variables for kind, (_, _, variables) in networks.items()}
    return Networks(fields, variables_of.get("generator"), variables_of.get("discriminator"))


def to_state_dicts(config: ConfigDict, tree: Tree, step: int) -> dict[str, Arrays]:
    """netG and netD from a checkpoint's tree: the moving average of the generator, and the discriminator.

    Raises UserError if PyTorch's example has no such networks.
    """
    features, strides = layers(config)
    side = [length // 2 ** len(strides) for length in config.image_size]
    _check_exportable(config, strides, side)
    count = np.asarray(step, np.int64)

    def norm(network: str, name: str) -> Arrays:
        params, stats = tree[network]["params"][name], tree[network]["batch_stats"][name]
        return dict(zip(NORM, (params["scale"], params["bias"], stats["mean"], stats["var"], count), strict=True))

    def kernel(network: str, name: str) -> Arrays:
        return {"weight": tree[network]["params"][name]["kernel"].transpose(3, 2, 0, 1)}

    units = (*side, features[-1])
    project = tree["ema"]["params"]["project"]["kernel"].reshape(-1, *units).transpose(0, 3, 1, 2)
    logit = tree["discriminator"]["params"]["logit"]["kernel"].reshape(1, *units).transpose(0, 3, 1, 2)
    depth = len(strides)
    # Each network's layers in order; None is an activation, which has no weights.
    generator = [{"weight": project}, norm("ema", "project_norm"), None]
    first_bias = {"bias": tree["discriminator"]["params"]["conv_0"]["bias"]} if config.first_bias else {}
    discriminator = [kernel("discriminator", "conv_0") | first_bias, None]
    for i in range(depth - 1):
        generator += [kernel("ema", f"conv_{i}"), norm("ema", f"norm_{i}"), None]
        discriminator += [kernel("discriminator", f"conv_{i + 1}"), norm("discriminator", f"norm_{i + 1}"), None]
    generator.append(kernel("ema", f"conv_{depth - 1}"))
    discriminator.append({"weight": logit})
    return {
        name: {
            f"main.{i}.{key}": np.ascontiguousarray(array)
            for i, layer in enumerate(sequence)
            for key, array in (layer or {}).items()
        }
        for name, sequence in (("netG", generator), ("netD", discriminator))
    }


def _check_exportable(config: ConfigDict, strides: tuple[int, ...], side: list[int]) -> None:
    expected = {
        "num_classes": (config.num_classes, 0),
        "dense": (tuple(config.dense), ()),
        "output": (config.output, "tanh"),
        "generator_norm": (config.generator_norm, "batch"),
        "discriminator_norm": (config.discriminator_norm, "batch"),
        "generator_activation": (config.generator_activation, "relu"),
        "discriminator_activation": (config.discriminator_activation, "leaky_relu"),
        "norm_affine": (config.norm_affine, True),
        "norm_per_unit": (config.norm_per_unit, False),
        "norm_epsilon": (config.norm_epsilon, EPSILON),
        "strides": (strides, (2,) * len(strides)),
        "kernel_size": (config.kernel_size, config.kernel_size // 2 * 2),
        "image_size": (tuple(config.image_size), (side[0] * 2 ** len(strides),) * 2),
    }
    differing = [
        f"{name} is {value!r}, not {needed!r}" for name, (value, needed) in expected.items() if value != needed
    ]
    if differing:
        raise UserError(f"--workdir: networks of PyTorch's example have another form ({'; '.join(differing)})")


def _arrays(content: dict[str, Any], where: str) -> Arrays:
    """The arrays of a state dict, without the prefix 'module.' that DataParallel adds to names."""
    arrays = {str(name).removeprefix("module."): value for name, value in content.items()}
    others = [name for name, value in arrays.items() if not isinstance(value, np.ndarray)]
    if others:
        raise UserError(
            f"{where}: found {', '.join(others[:9])}, which are no tensors, expected a network's state dict"
        )
    check_numbers(where, arrays)
    negative = [name for name, array in arrays.items() if name.endswith("running_var") and (array < 0).any()]
    if negative:
        raise UserError(f"{where}: found negative values in {negative[0]!r}, expected variances")
    return arrays


def _network(arrays: Arrays) -> tuple[str, Tree, Variables]:
    """'generator' or 'discriminator', the configuration fields that describe it, and its variables."""
    layers = _layers(arrays)
    kinds = "".join("c" if "running_mean" not in layer else "n" for layer in layers)
    if re.fullmatch("(cn)+c", kinds):
        return "generator", *_generator(layers[::2], layers[1::2])
    if re.fullmatch("c(cn)*c", kinds):
        return "discriminator", *_discriminator([layers[0], *layers[1:-1:2], layers[-1]], layers[2:-1:2])
    raise _UnknownLayout


def _layers(arrays: Arrays) -> list[Arrays]:
    """The arrays of each layer, in the order of the numbers in their names."""
    layers: dict[int, Arrays] = {}
    for name, array in arrays.items():
        match = re.fullmatch(r"main\.(0|[1-9][0-9]{0,5})\.(\w+)", name)
        if not match:
            raise _UnknownLayout
        layers.setdefault(int(match[1]), {})[match[2]] = array
    return [layers[number] for number in sorted(layers)]


def _generator(convolutions: list[Arrays], norms: list[Arrays]) -> tuple[Tree, Variables]:
    first, *others = map(_weight, convolutions)
    fields = _fields(others[::-1], first)
    names = ["project_norm", *(f"norm_{i}" for i in range(len(norms) - 1))]
    params, stats = _norms(names, norms, fields["features"][::-1])
    params |= {f"conv_{i}": {"kernel": kernel.transpose(2, 3, 1, 0)} for i, kernel in enumerate(others)}
    params["project"] = {"kernel": first.transpose(0, 2, 3, 1).reshape(len(first), -1)}
    return fields | {"latent_dim": len(first)}, Variables(params, stats)


def _discriminator(convolutions: list[Arrays], norms: list[Arrays]) -> tuple[Tree, Variables]:
    first_bias = {name: array.astype(np.float32) for name, array in convolutions[0].items() if name == "bias"}
    convolutions[0] = {name: array for name, array in convolutions[0].items() if name != "bias"}
    *others, last = map(_weight, convolutions)
    fields = _fields(others, last) | {"first_bias": bool(first_bias)}
    if len(last) != 1 or any(array.shape != fields["features"][:1] for array in first_bias.values()):
        raise _UnknownLayout
    params, stats = _norms([f"norm_{i + 1}" for i in range(len(norms))], norms, fields["features"][1:])
    params |= {f"conv_{i}": {"kernel": kernel.transpose(2, 3, 1, 0)} for i, kernel in enumerate(others)}
    params["conv_0"] |= first_bias
    params["logit"] = {"kernel": last.transpose(0, 2, 3, 1).reshape(-1, 1)}
    return fields, Variables(params, stats)


def _weight(convolution: Arrays) -> np.ndarray:
    if set(convolution) != {"weight"} or convolution["weight"].ndim != 4:
        raise _UnknownLayout
    return convolution["weight"].astype(np.float32)


def _fields(kernels: list[np.ndarray], innermost: np.ndarray) -> Tree:
    """The configuration fields that follow from the kernels' shapes, once these agree with each other.

    kernels: of the strided layers, from the image inwards. innermost: between the last map and z or the logit.
    """
    maps = [kernel.shape[0] for kernel in kernels]
    k, channels, (_, units, *side) = kernels[0].shape[-1], kernels[0].shape[1], innermost.shape
    expected = [(inner, outer, k, k) for outer, inner in itertools.pairwise([channels, *maps])]
    fits = (
        [kernel.shape for kernel in kernels] == expected and units == maps[-1] and side[0] == side[1] and innermost.size
    )
    if not fits or k % 2 or channels not in (1, 3):
        raise _UnknownLayout
    size = side[0] * 2 ** len(kernels)
    return {
        "image_size": (size, size),
        "channels": channels,
        "features": tuple(maps),
        "strides": (2,) * len(maps),
        "kernel_size": k,
    }


def _norms(names: list[str], norms: list[Arrays], widths: tuple[int, ...]) -> tuple[Tree, Tree]:
    """Params and batch_stats of the batch norms; widths: of the layers before them."""
    params, stats = {}, {}
    for name, norm, width in zip(names, norms, widths, strict=True):
        if not set(NORM[:4]) <= set(norm) <= set(NORM) or any(norm[key].shape != (width,) for key in NORM[:4]):
            raise _UnknownLayout
        gain, bias, mean, var = (norm[key].astype(np.float32) for key in NORM[:4])
        params[name], stats[name] = {"scale": gain, "bias": bias}, {"mean": mean, "var": var}
    return params, stats
