"""Guided backpropagation (Springenberg et al. 2014): what in an image excites a feature (section 6.2, figure 5)."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dcgan_jax import models
from dcgan_jax.data.images import visible
from dcgan_jax.inference import TrainedGAN, maps_of, untrained
from dcgan_jax.interpret import receptive
from dcgan_jax.interpret.excitation import PATCHES, Peaks, peaks, select
from dcgan_jax.interpret.pictures import Figure, Row
from dcgan_jax.models import leaky_relu
from dcgan_jax.ops.pixels import to_unit_range
from dcgan_jax.runtime.errors import UserError

Tree = Any


@jax.custom_vjp
def guided_leaky_relu(x: Array) -> Array:
    """Leaky ReLU; its gradient passes only where both the gradient and the input are positive."""
    return leaky_relu(x)


def _forward(x: Array) -> tuple[Array, Array]:
    return leaky_relu(x), x > 0


def _backward(positive: Array, gradient: Array) -> tuple[Array]:
    return (jnp.where(positive, jnp.maximum(gradient, 0), 0),)


guided_leaky_relu.defvjp(_forward, _backward)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _gradients(
    network: models.Discriminator, variables: Tree, layer: int, images: Array, positions: tuple[Array, ...]
) -> Array:
    def excitation(images: Array) -> Array:
        maps = maps_of(network, variables, images)[layer]
        rows, columns, features = positions
        return jnp.sum(maps[jnp.arange(len(maps)), rows, columns, features])

    return jax.grad(excitation)(images)


def backpropagate(
    gan: TrainedGAN, images: np.ndarray, layer: int, features: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """The guided gradient of one activation of map `layer` for each image: uint8 [N, H, W, C] -> float32, same shape.

    features, rows, columns: int [N], the position of that activation.
    """
    network = gan.discriminator.clone(activation=guided_leaky_relu)
    scaled = jnp.asarray(to_unit_range(images))
    return np.asarray(_gradients(network, gan.discriminator_variables, layer, scaled, (rows, columns, features)))


def to_picture(gradient: np.ndarray) -> np.ndarray:
    """A gradient [H, W, C] as a uint8 picture: zero is grey (128), the largest absolute value is 1 or 255.

    Of 2 channels the first is shown, of more than 3 the first three.
    """
    gradient = gradient[..., : 1 if gradient.shape[-1] == 2 else 3]
    largest = max(float(np.abs(gradient).max()), 1e-30)
    return np.rint(128 + 127 * gradient / largest).astype(np.uint8)


def figure(gan: TrainedGAN, images: np.ndarray, layer: int, which: str, count: int, seed: int) -> Figure:
    """What excites features (chosen as in `select`), and below the same for an untrained network.

    images: uint8 [N, H, W, C], searched for the positions that excite each feature most. seed: the untrained network's.
    Raises UserError unless the discriminator has the leaky ReLU that the method is defined for.
    """
    if gan.config.discriminator_activation != "leaky_relu":
        raise UserError(
            f"config.discriminator_activation: found {gan.config.discriminator_activation!r}, expected 'leaky_relu' "
            "for guided backpropagation; take another figure"
        )
    rows = []
    before = untrained(gan.config, seed).with_statistics_of(images)
    for name, network in (("trained", gan), ("random", before)):
        highest = peaks(network, images, layer, PATCHES)
        for feature in select(highest, which, count):
            pictures = _gradients_beside_patches(network, images, layer, highest, feature)
            rows.append(Row(f"{name}\nfeature {feature}", pictures))
    text = (
        f"Guided backpropagation of features of convolution {layer} of the discriminator, each at the {PATCHES} places "
        f"of {len(images)} training images that excite it most: the gradient, and what the place sees. Below, the same "
        "of a network before training."
    )
    return Figure(rows, text, gaps=tuple(range(2, 2 * PATCHES, 2)))


def _gradients_beside_patches(
    gan: TrainedGAN, images: np.ndarray, layer: int, highest: Peaks, feature: int
) -> np.ndarray:
    field = receptive.field(gan.discriminator, layer)
    chosen = np.asarray(images[highest.images[feature]])
    rows, columns = highest.rows[feature], highest.columns[feature]
    gradients = backpropagate(gan, chosen, layer, np.full(len(chosen), feature), rows, columns)
    return np.stack(
        [
            receptive.patch(picture, row, column, field)
            for image, gradient, row, column in zip(chosen, gradients, rows, columns, strict=True)
            for picture in (to_picture(gradient), visible(image))
        ]
    )
