"""The networks of PyTorch's DCGAN example and tutorial, as their state dicts have them.

Both are one `nn.Sequential` called main. The generator netG is ConvTranspose2d, BatchNorm2d, ... and last a
ConvTranspose2d; the discriminator netD is two Conv2d, then BatchNorm2d and Conv2d in turn. Kernels have a stride of 2
but for one: the generator's first makes a map as large as itself of z, and the discriminator's last makes the logit of
such a map. These are the projection and the logit's dense layer here. What else differs from our layout:

* Kernels are (maps, image side, row, column) for both kinds of convolution; neither is turned.
* Images are (channel, row, column), here (row, column, channel).

Sources: github.com/pytorch/examples, dcgan/main.py; PyTorch's DCGAN tutorial.
"""

import itertools
import re
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dcgan_jax.config import layers
from dcgan_jax.errors import UserError
from dcgan_jax.interop.networks import Arrays, Networks, Tree, Variables, check_numbers, unexpected

# PyTorch's own, which a state dict does not tell. Its momentum is the share of the new value.
EPSILON, MOMENTUM = 1e-5, 0.9
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


class _OfAnotherForm(Exception):
    """Weights are not those of such a network."""


EXPECTED = (
    "main.N.weight of convolutions (in or out channels by k x k, k even) without bias, each followed by the weight, "
    "bias, running_mean and running_var of its BatchNorm2d, but for the generator's last and the discriminator's first "
    "and last"
)


def convert(files: dict[str, dict[str, Any]]) -> Networks:
    """The networks in one or two state dicts, by what the user calls them, in either order; one of two may be missing.

    Where it is the generator, its variables are None.
    Raises UserError, with all names and shapes, where they are not those of such networks, or do not fit one another.
    """
    found: dict[str, tuple[str, Tree, Variables]] = {}
    for where, content in files.items():
        arrays = _arrays(content, where)
        try:
            kind, fields, variables = _network(arrays)
        except _OfAnotherForm as error:
            raise unexpected(where, arrays, EXPECTED) from error
        if kind in found:
            raise UserError(f"{where}: found a {kind}, as in {found[kind][0]}; expected netG and netD, one file each")
        found[kind] = where, fields, variables
    described = [fields for _, fields, _ in found.values()]
    if len(found) == 2:
        generator, discriminator = (found[kind][1] for kind in ("generator", "discriminator"))
        differing = [name for name in discriminator if discriminator[name] != generator[name]]
        if differing:
            told = "; ".join(f"{name} {generator[name]} in netG, {discriminator[name]} in netD" for name in differing)
            raise UserError(f"--file: the two networks differ ({told}), expected mirrors; import each by itself")
    fields = {name: value for part in described for name, value in part.items()}
    fields |= {"norm_epsilon": EPSILON, "norm_momentum": MOMENTUM, "prior": "normal"}
    parts = {kind: variables for kind, (_, _, variables) in found.items()}
    return Networks(fields, parts.get("generator"), parts.get("discriminator"))


def to_state_dicts(config: ConfigDict, tree: Tree, step: int) -> dict[str, Arrays]:
    """netG and netD of a checkpoint's tree: the moving average of the generator, and the discriminator.

    Raises UserError where the networks are not of the form of PyTorch's example.
    """
    features, strides = layers(config)
    side = [length // 2 ** len(strides) for length in config.image_size]
    expected = {
        "num_classes": (config.num_classes, 0),
        "dense": (tuple(config.dense), ()),
        "output": (config.output, "tanh"),
        "norm_affine": (config.norm_affine, True),
        "norm_per_unit": (config.norm_per_unit, False),
        "norm_epsilon": (config.norm_epsilon, EPSILON),
        "strides": (strides, (2,) * len(strides)),
        "kernel_size": (config.kernel_size, config.kernel_size // 2 * 2),
        "image_size": (tuple(config.image_size), (side[0] * 2 ** len(strides),) * 2),
    }
    differing = [
        f"{name} is {found!r}, not {needed!r}" for name, (found, needed) in expected.items() if found != needed
    ]
    if differing:
        raise UserError(f"--workdir: networks of PyTorch's example have another form ({'; '.join(differing)})")
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
    # Each network's layers in turn; None is an activation, which holds nothing.
    generator = [{"weight": project}, norm("ema", "project_norm"), None]
    discriminator = [kernel("discriminator", "conv_0"), None]
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


def _arrays(content: dict[str, Any], where: str) -> Arrays:
    """The arrays of a state dict, without what DataParallel puts before their names."""
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
    """'generator' or 'discriminator', the fields of the configuration that describe it, and its variables."""
    layers = _layers(arrays)
    kinds = "".join("c" if "running_mean" not in layer else "n" for layer in layers)
    if re.fullmatch("(cn)+c", kinds):
        return "generator", *_generator(layers[::2], layers[1::2])
    if re.fullmatch("c(cn)*c", kinds):
        return "discriminator", *_discriminator([layers[0], *layers[1:-1:2], layers[-1]], layers[2:-1:2])
    raise _OfAnotherForm


def _layers(arrays: Arrays) -> list[Arrays]:
    """What each layer holds, by the number in its name."""
    layers: dict[int, Arrays] = {}
    for name, array in arrays.items():
        match = re.fullmatch(r"main\.(0|[1-9][0-9]{0,5})\.(\w+)", name)
        if not match:
            raise _OfAnotherForm
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
    *others, last = map(_weight, convolutions)
    fields = _fields(others, last)
    if len(last) != 1:
        raise _OfAnotherForm
    params, stats = _norms([f"norm_{i + 1}" for i in range(len(norms))], norms, fields["features"][1:])
    params |= {f"conv_{i}": {"kernel": kernel.transpose(2, 3, 1, 0)} for i, kernel in enumerate(others)}
    params["logit"] = {"kernel": last.transpose(0, 2, 3, 1).reshape(-1, 1)}
    return fields, Variables(params, stats)


def _weight(convolution: Arrays) -> np.ndarray:
    if set(convolution) != {"weight"} or convolution["weight"].ndim != 4:
        raise _OfAnotherForm
    return convolution["weight"].astype(np.float32)


def _fields(kernels: list[np.ndarray], innermost: np.ndarray) -> Tree:
    """The fields that describe strided layers, after their shapes have been compared with one another.

    kernels: from the image inwards. innermost: the one between the last map and z or the logit, as large as that map.
    """
    maps = [kernel.shape[0] for kernel in kernels]
    k, channels, (_, units, *side) = kernels[0].shape[-1], kernels[0].shape[1], innermost.shape
    expected = [(inner, outer, k, k) for outer, inner in itertools.pairwise([channels, *maps])]
    fits = (
        [kernel.shape for kernel in kernels] == expected and units == maps[-1] and side[0] == side[1] and innermost.size
    )
    if not fits or k % 2 or channels not in (1, 3):
        raise _OfAnotherForm
    size = side[0] * 2 ** len(kernels)
    return {
        "image_size": (size, size),
        "channels": channels,
        "features": tuple(maps),
        "strides": (2,) * len(maps),
        "kernel_size": k,
    }


def _norms(names: list[str], norms: list[Arrays], widths: tuple[int, ...]) -> tuple[Tree, Tree]:
    """Params and batch_stats of batch norms, which follow layers of these widths."""
    params, stats = {}, {}
    for name, norm, width in zip(names, norms, widths, strict=True):
        if not set(NORM[:4]) <= set(norm) <= set(NORM) or any(norm[key].shape != (width,) for key in NORM[:4]):
            raise _OfAnotherForm
        gain, bias, mean, var = (norm[key].astype(np.float32) for key in NORM[:4])
        params[name], stats[name] = {"scale": gain, "bias": bias}, {"mean": mean, "var": var}
    return params, stats
