"""A generator as one StableHLO program that JAX runs without this package, on CPUs, GPUs and TPUs.

    from jax import export
    generator = export.deserialize(open("generator.stablehlo", "rb").read())
    images = generator.call(z)  # of a conditional generator: generator.call(z, labels)

z is float32 [n, Z] for any n of at least 1, labels int32 [n], images float32 [n, H, W, C] in [-1, 1]. The weights are
in the file. A bfloat16 run's computes in bfloat16. Writing and reading need flatbuffers, which JAX does not install.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, export, lax

from dcgan_jax import models
from dcgan_jax.inference import TrainedGAN
from dcgan_jax.ops.conv import DIMENSIONS, padding

NAME = "generator.stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")


def program(gan: TrainedGAN) -> bytes:
    """What `jax.export.deserialize` reads."""
    (count,) = export.symbolic_shape("n")
    z = jax.ShapeDtypeStruct((count, gan.latent_dim), jnp.float32)
    labels = jax.ShapeDtypeStruct((count,), jnp.int32)

    def generate(z: Array, labels: Array | None = None) -> Any:
        with nn.intercept_methods(_plainly):
            images: Any = gan.generator.apply(gan.generator_variables, z, labels)
        return images.astype(jnp.float32)

    arguments = (z, labels) if gan.config.num_classes else (z,)
    return bytes(export.export(jax.jit(generate), platforms=PLATFORMS)(*arguments).serialize())


def _plainly(next_layer: Any, args: tuple, kwargs: dict[str, Any], context: nn.module.InterceptorContext) -> Any:
    """Computes the generator's convolutions by the one operation that every platform has.

    `ops.conv` chooses forms by platform, and in a program for several of them there would be all.
    """
    layer = context.module
    if not isinstance(layer, models.Conv):
        return next_layer(*args, **kwargs)
    x, one_hot = args
    if one_hot is not None:
        constant = jnp.broadcast_to(one_hot[:, None, None], (*x.shape[:3], one_hot.shape[-1]))
        x = jnp.concatenate([x, constant], axis=-1)
    images = _conv_transpose(x, layer.get_variable("params", "kernel").astype(x.dtype), layer.stride)
    return images + layer.get_variable("params", "bias").astype(x.dtype) if layer.bias else images


def _conv_transpose(maps: Array, kernel: Array, stride: int) -> Array:
    """`ops.conv.conv_transpose` as a convolution of maps with zeros between their positions."""
    pad = padding(kernel.shape[0], stride)
    before, after = kernel.shape[0] - 1 - pad, stride - 1 + pad
    kernel = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    return lax.conv_general_dilated(
        maps, kernel, (1, 1), [(before, after)] * 2, lhs_dilation=(stride, stride), dimension_numbers=DIMENSIONS
    )
