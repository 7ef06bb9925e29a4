"""Guided backpropagation (Springenberg et al. 2014): what in an image excites a feature (section 6.2, figure 5)."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dcgan_jax.inference import TrainedGAN
from dcgan_jax.models import leaky_relu


@jax.custom_vjp
def guided_leaky_relu(x: Array) -> Array:
    """Leaky ReLU whose gradient passes where both it and the input are positive, and nowhere else."""
    return leaky_relu(x)


def _forward(x: Array) -> tuple[Array, Array]:
    return leaky_relu(x), x > 0


def _backward(positive: Array, gradient: Array) -> tuple[Array]:
    return (jnp.where(positive, jnp.maximum(gradient, 0), 0),)


guided_leaky_relu.defvjp(_forward, _backward)


def backpropagate(
    gan: TrainedGAN, images: np.ndarray, layer: int, features: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """The guided gradients of one activation of map `layer` each: uint8 images [N, H, W, C] -> float32, the same shape.

    features, rows, columns: int [N], which activation of each image.
    """

    @jax.jit
    def gradients(images: Array) -> Array:
        def excitation(images: Array) -> Array:
            maps = gan.maps(images, activation=guided_leaky_relu)[layer]
            return jnp.sum(maps[jnp.arange(len(maps)), rows, columns, features])

        return jax.grad(excitation)(images)

    return np.asarray(gradients(jnp.asarray(images / 127.5 - 1, jnp.float32)))


def shown(gradient: np.ndarray) -> np.ndarray:
    """A gradient [H, W, C] as a picture, uint8: grey is zero, the largest value of either sign is 1 or 255."""
    largest = max(float(np.abs(gradient).max()), 1e-30)
    return np.rint(128 + 127 * gradient / largest).astype(np.uint8)
