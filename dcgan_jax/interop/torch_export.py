"""Converts networks to state dicts of PyTorch's DCGAN example: `torch_networks` says how these differ from ours."""

import numpy as np
from ml_collections import ConfigDict

from dcgan_jax.config import layers
from dcgan_jax.interop.networks import Arrays, Tree
from dcgan_jax.interop.torch_layers import NORM
from dcgan_jax.interop.torch_networks import EPSILON
from dcgan_jax.runtime.errors import UserError


def to_state_dicts(config: ConfigDict, tree: Tree, step: int) -> dict[str, Arrays]:
    """netG and netD from a checkpoint's tree: the moving average of the generator, and the discriminator.

    Raises UserError if PyTorch's example has no such networks.
    """
    features, strides = layers(config)
    side = [length // 2 ** len(strides) for length in config.image_size]
    _check_exportable(config, strides, side)
    if "discriminator" not in tree:
        raise UserError("--workdir: found a generator alone, expected both networks; export the run that it is from")
    count = np.asarray(step, np.int64)

    def norm(network: str, name: str) -> Arrays:
        params, stats = tree[network]["params"][name], tree[network]["batch_stats"][name]
        return dict(zip(NORM, (params["scale"], params["bias"], stats["mean"], stats["var"], count), strict=True))

    def kernel(network: str, name: str) -> Arrays:
        return {"weight": tree[network]["params"][name]["kernel"].transpose(3, 2, 0, 1)}

    def bias(network: str, name: str, there: bool) -> Arrays:
        return {"bias": tree[network]["params"][name]["bias"]} if there else {}

    units = (*side, features[-1])
    project = tree["ema"]["params"]["project"]["kernel"].reshape(-1, *units).transpose(0, 3, 1, 2)
    logit = tree["discriminator"]["params"]["logit"]["kernel"].reshape(1, *units).transpose(0, 3, 1, 2)
    depth = len(strides)
    # Each network's layers in order; None is an activation, which has no weights.
    generator = [{"weight": project}, norm("ema", "project_norm"), None]
    first_bias = bias("discriminator", "conv_0", config.first_bias)
    discriminator = [kernel("discriminator", "conv_0") | first_bias, None]
    for i in range(depth - 1):
        generator += [kernel("ema", f"conv_{i}"), norm("ema", f"norm_{i}"), None]
        discriminator += [kernel("discriminator", f"conv_{i + 1}"), norm("discriminator", f"norm_{i + 1}"), None]
    last = f"conv_{depth - 1}"
    generator.append(kernel("ema", last) | bias("ema", last, config.last_bias))
    discriminator.append({"weight": logit} | bias("discriminator", "logit", config.last_bias))
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
