"""The images, and the places in them, that excite the features of one of the discriminator's maps most."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dcgan_jax.inference import TrainedGAN

BLOCK = 256  # images at a time


class Peaks(NamedTuple):
    """Of each feature, the images with its highest activations, highest first, and where: int [F, N]."""

    values: np.ndarray
    images: np.ndarray
    rows: np.ndarray
    columns: np.ndarray


def peaks(gan: TrainedGAN, images: np.ndarray, layer: int, count: int) -> Peaks:
    """The `count` images of uint8 [N, H, W, C] that excite each feature of map `layer` most, one place of each."""

    @jax.jit
    def highest(block: Array) -> tuple[Array, Array]:
        maps = gan.maps(block / 127.5 - 1)[layer]
        flat = maps.reshape(len(maps), -1, maps.shape[-1])
        return flat.max(1), flat.argmax(1)

    values, places = [], []
    for start in range(0, len(images), BLOCK):
        block = np.asarray(images[start : start + BLOCK])
        filled = np.concatenate([block, np.repeat(block[:1], BLOCK - len(block), axis=0)])
        found = jax.device_get(highest(jnp.asarray(filled)))
        values.append(found[0][: len(block)])
        places.append(found[1][: len(block)])
    all_values, all_places = np.concatenate(values).T, np.concatenate(places).T
    order = np.argsort(-all_values, axis=1, kind="stable")[:, :count]
    best = np.take_along_axis(all_places, order, axis=1)
    width = gan.config.image_size[1] // math.prod(gan.discriminator.strides[: layer + 1])
    return Peaks(np.take_along_axis(all_values, order, axis=1), order, best // width, best % width)


def most_active(found: Peaks, count: int) -> Sequence[int]:
    """The features whose highest activations are highest on average."""
    return [int(feature) for feature in np.argsort(-found.values.mean(1), kind="stable")[:count]]
