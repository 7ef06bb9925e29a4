"""Converts state dicts of PyTorch's DCGAN example and tutorial, and of networks like theirs.

The generator netG is a row of ConvTranspose2d, the discriminator netD one of Conv2d. All strides are 2, except in the
generator's first layer, which turns z into a map, and in the discriminator's last, which turns a map into the logit.
These two are dense layers here ('project' and 'logit'), and may be there (Linear). Each convolution is followed by
BatchNorm2d, but for the generator's last and the discriminator's first and last; or none is. Other differences:

* Kernels are (maps, image side, row, column) for both kinds of convolution; neither is rotated.
* Images are (channel, row, column), here (row, column, channel).
* A convolution before batch norm may have a bias, which here is part of the running mean: the outputs are the same.
* Spectral norm and weight norm are applied to the weights once: the networks here go on without them.

"Image side" is the side nearer to the image: the inputs of a Conv2d, the outputs of a ConvTranspose2d. Names do not
matter, order and shapes do. Strides, padding, activations and epsilon are not in a state dict; they are taken to be the
example's.

Sources: github.com/pytorch/examples, dcgan/main.py; PyTorch's DCGAN tutorial.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from dcgan_jax.interop.networks import Arrays, Networks, Tree, Variables, check_numbers
from dcgan_jax.interop.torch_layers import NORM, Layer, Misfit, split
from dcgan_jax.runtime.errors import UserError

# PyTorch's defaults, which are not in a state dict. PyTorch's momentum, 0.1, is the weight of the new value.
EPSILON, MOMENTUM = 1e-5, 0.9
CHANNELS = (1, 3, 4)  # of images
# The axis of a kernel's outputs: of Conv2d and Linear, and of ConvTranspose2d.
OUTPUTS_FIRST, OUTPUTS_SECOND = 0, 1


@dataclass(frozen=True)
class _Network:
    """One converted network. last: its last layer, which has a bias here, zeros if it had none. last_bias: it had."""

    fields: Tree
    variables: Variables
    last: str
    last_bias: bool


def convert(files: dict[str, dict[str, Any]]) -> Networks:
    """The networks in state dicts, one generator or one discriminator or both, in either order.

    files: state dicts by what the user calls them, for error messages. The variables of a missing network are None.
    Raises UserError that names the tensor for other weights, and if the two networks do not fit each other.
    """
    found: dict[str, dict[str, _Network]] = {"generator": {}, "discriminator": {}}
    for where, content in files.items():
        try:
            kind, network = _network(_arrays(content, where))
        except Misfit as misfit:
            alone = "; --key=NAME, or one --file, imports another alone" if len(files) > 1 else ""
            raise UserError(f"{where}: {misfit}{_advice(content) or alone}") from misfit
        found[kind][where] = network
    for kind, networks in found.items():
        if len(networks) > 1:
            raise UserError(
                f"--file: found {len(networks)} {kind}s ({'; '.join(networks)}), expected netG and netD, one file "
                "each; --key=NAME chooses from a file that holds several"
            )
    generator, discriminator = (next(iter(networks.values()), None) for networks in found.values())
    if generator and discriminator:
        ours, theirs = generator.fields, discriminator.fields
        differing = [name for name, value in ours.items() if theirs.get(name, value) != value]
        if differing:
            listed = "; ".join(f"{name} {ours[name]} in netG, {theirs[name]} in netD" for name in differing)
            raise UserError(f"--file: the two networks differ ({listed}), expected mirrors; import each by itself")
    both = [network for network in (generator, discriminator) if network]
    fields: Tree = {"norm_epsilon": EPSILON, "norm_momentum": MOMENTUM, "prior": "normal"}
    fields["last_bias"] = any(network.last_bias for network in both)
    for network in both:
        fields |= network.fields
        if network.variables.batch_stats and not fields["last_bias"]:
            del network.variables.params[network.last]["bias"]
    return Networks(
        fields, generator.variables if generator else None, discriminator.variables if discriminator else None
    )


def _advice(content: dict[str, Any]) -> str:
    """What to do about a state dict of several networks whose names are not known: '' if it seems to be one."""
    layers = dict.fromkeys(str(name).rpartition(".")[0] for name in content)
    counts = Counter(layer.partition(".")[0] for layer in layers if "." in layer)
    parts = [part for part, count in counts.items() if count > 1]
    if len(parts) != 2 or len({re.sub(r"\d+", "", part) for part in parts}) < 2:  # layer1, layer2 are no networks
        return ""
    return f"; --key={parts[0]} or --key={parts[1]} imports a part of it alone"


def _arrays(content: dict[str, Any], where: str) -> Arrays:
    """The state dict, checked to hold numbers alone, and variances that are not negative."""
    others = [str(name) for name, value in content.items() if not isinstance(value, np.ndarray)]
    if others:
        raise UserError(
            f"{where}: found {', '.join(others[:9])}, which are no tensors, expected a network's state dict"
        )
    check_numbers(where, content)
    negative = [name for name, array in content.items() if name.endswith("running_var") and (array < 0).any()]
    if negative:
        raise UserError(f"{where}: found negative values in {negative[0]!r}, expected variances")
    return content


def _network(arrays: Arrays) -> tuple[str, _Network]:
    """'generator' or 'discriminator', and the network."""
    layers, norms = split(arrays)
    if len(layers) < 2:
        raise Misfit(f"found {len(layers)} convolutions or dense layers, expected 2 or more")
    kinds = {"generator": _generator, "discriminator": _discriminator}
    mistakes = {}
    for kind, build in kinds.items():
        try:
            return kind, build(layers, norms)
        except Misfit as misfit:
            mistakes[kind] = misfit
    # A discriminator goes from images to one logit, a generator ends in images.
    images_first = layers[0].shape[1] in CHANNELS and layers[-1].shape[1] not in CHANNELS
    likely = "discriminator" if images_first or layers[-1].shape[0] == 1 else "generator"
    raise Misfit(f"{mistakes[likely]}, in a {likely}")


def _generator(layers: list[Layer], norms: list[Layer]) -> _Network:
    project, *others = layers
    fields = _fields(others[::-1], OUTPUTS_SECOND)
    widths = (*fields["features"][::-1], fields["channels"])
    kernel = _innermost(project, widths[0], OUTPUTS_SECOND)
    latent_dim, channels, side, _ = kernel.shape

    def per_unit(values: np.ndarray) -> np.ndarray:
        """Of channels, or units in order (channel, row, column), to units in order (row, column, channel)."""
        return np.broadcast_to(values.reshape(channels, -1), (channels, side**2)).T.reshape(-1)

    units = channels * side**2
    norm_units = units if project.dense and norms and norms[0].shape == (units,) else channels
    norm_values = _norm_values(norms, (norm_units, *widths[1:-1]))
    bias = _bias(project, units if project.dense else channels)
    by_unit = project.dense and bool(norms) and (norm_units > channels or bool(bias.any()))
    if by_unit:
        norm_values[0] = [per_unit(values) for values in norm_values[0]]
    bias = per_unit(bias) if by_unit or not norms else bias[:channels]

    names = ["project", *(f"conv_{i}" for i in range(len(others)))]
    kernels = [kernel.transpose(0, 2, 3, 1).reshape(latent_dim, -1)]
    kernels += [layer.weight(OUTPUTS_SECOND).transpose(2, 3, 1, 0) for layer in others]
    biases = [bias, *(_bias(layer, width) for layer, width in zip(others, widths[1:], strict=True))]
    norm_names = ["project_norm", *(f"norm_{i}" for i in range(len(others) - 1))]
    variables = _variables(names, kernels, biases, dict(zip(names, norm_names, strict=False)), norm_values)
    fields |= {"latent_dim": latent_dim, "generator_norm": "batch" if norms else "none", "norm_per_unit": by_unit}
    fields["image_size"] = _image_size(side, others)
    return _Network(fields, variables, names[-1], others[-1].bias is not None)


def _discriminator(layers: list[Layer], norms: list[Layer]) -> _Network:
    *others, logit = layers
    fields = _fields(others, OUTPUTS_FIRST)
    widths = (*fields["features"], 1)
    kernel = _innermost(logit, widths[-2], OUTPUTS_FIRST)
    if len(kernel) != 1:
        raise logit.misfit("weight", "one output")
    norm_values = _norm_values(norms, widths[1:-1])
    names = [*(f"conv_{i}" for i in range(len(others))), "logit"]
    kernels = [layer.weight(OUTPUTS_FIRST).transpose(2, 3, 1, 0) for layer in others]
    kernels.append(kernel.transpose(0, 2, 3, 1).reshape(-1, 1))
    biases = [_bias(layer, width) for layer, width in zip(layers, widths, strict=True)]
    norm_names = {name: name.replace("conv", "norm") for name in names[1:-1]}
    variables = _variables(names, kernels, biases, norm_names, norm_values)
    first_bias = bool(norms) and others[0].bias is not None
    if norms and not first_bias:
        del variables.params["conv_0"]["bias"]
    fields |= {"first_bias": first_bias, "discriminator_norm": "batch" if norms else "none"}
    fields["image_size"] = _image_size(kernel.shape[-1], others)
    return _Network(fields, variables, "logit", logit.bias is not None)


def _fields(layers: list[Layer], axis: int) -> Tree:
    """The fields that follow from the strided layers' shapes, from the image inwards. axis: of outputs."""
    channels, k = layers[0].shape[1], layers[0].shape[-1]
    if channels not in CHANNELS:
        raise layers[0].misfit("weight", "a convolution next to images of 1, 3 or 4 channels")
    outer, features = channels, []
    for layer in layers:
        inner = layer.shape[0]
        if layer.shape != (inner, outer, k, k) or not inner or not k or k % 2:
            side = "KxK with an even K" if layer is layers[0] else f"{k}x{k}"
            raise layer.misfit("weight", f"{'IN' if axis == OUTPUTS_SECOND else 'OUT'}x{outer}x{side}, of stride 2")
        outer = inner
        features.append(outer)
    return {"channels": channels, "features": tuple(features), "strides": (2,) * len(layers), "kernel_size": k}


def _innermost(layer: Layer, channels: int, axis: int) -> np.ndarray:
    """The weight between the innermost map and z or the logit, as (z or 1, channels, side, side)."""
    weight = layer.weight(OUTPUTS_FIRST if layer.dense else axis)
    if layer.dense:
        weight = weight.T if axis == OUTPUTS_SECOND else weight
        side = math.isqrt(weight.shape[1] // channels)
        if not side or weight.shape[1] != channels * side**2:
            raise layer.misfit("weight", f"{channels} times a square number of units")
        return weight.reshape(-1, channels, side, side)
    if weight.shape[1] != channels or weight.shape[2] != weight.shape[3] or not weight.size:
        raise layer.misfit("weight", f"{'Z' if axis == OUTPUTS_SECOND else '1'}x{channels}xKxK")
    return weight


def _image_size(side: int, strided: list[Layer]) -> tuple[int, int]:
    return (side * 2 ** len(strided),) * 2


def _bias(layer: Layer, width: int) -> np.ndarray:
    """[width], of zeros if the layer has none."""
    if layer.bias is None:
        return np.zeros(width, np.float32)
    if layer.bias.shape != (width,):
        raise layer.misfit("bias", f"{width}")
    return layer.bias


def _norm_values(norms: list[Layer], widths: tuple[int, ...]) -> list[list[np.ndarray]]:
    """Gain, bias, mean and variance of each batch norm. widths: of the layers before them."""
    if norms and len(norms) != len(widths):
        listed = ", ".join(repr(norm.name) for norm in norms[:9])
        raise Misfit(f"found {len(norms)} batch norms ({listed}), expected {len(widths)} or none")
    for norm, width in zip(norms, widths, strict=False):
        for key in NORM[:4]:
            if norm.arrays[key].shape != (width,):
                raise norm.misfit(key, f"{width}")
    return [[norm.arrays[key] for key in NORM[:4]] for norm in norms]


def _variables(
    names: list[str],
    kernels: list[np.ndarray],
    biases: list[np.ndarray],
    norm_names: dict[str, str],
    norm_values: list[list[np.ndarray]],
) -> Variables:
    """Params and batch_stats. norm_names: of the batch norms after layers. Layers without one keep their bias."""
    params: Tree = {
        name: {"kernel": kernel, "bias": bias} for name, kernel, bias in zip(names, kernels, biases, strict=True)
    }
    stats: Tree = {}
    for (name, norm), (gain, shift, mean, var) in zip(norm_names.items(), norm_values, strict=False):
        params[norm] = {"scale": gain, "bias": shift}
        # A bias before batch norm is subtracted again with the mean: in training always, otherwise by this one.
        stats[norm] = {"mean": mean - params[name].pop("bias"), "var": var}
    return Variables(params, stats)
