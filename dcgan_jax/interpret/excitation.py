"""The images, and the places in them, that excite the features of one of the discriminator's maps most."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dcgan_jax.errors import UserError
from dcgan_jax.inference import TrainedGAN
from dcgan_jax.interpret import receptive
from dcgan_jax.interpret.pictures import Figure, Row

BLOCK = 256  # images at a time
PATCHES = 8  # of one feature, in a figure


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


def layer_of(gan: TrainedGAN, layer: int | None) -> int:
    """A convolution of the discriminator by its number, by default the last. Raises UserError where there is none."""
    count = len(gan.discriminator.features)
    if gan.config.num_classes:
        raise UserError("--workdir: the discriminator of this network takes labels, expected one without classes")
    if not count:
        raise UserError("--workdir: this network has no convolutions, expected one with some")
    if layer is not None and not 0 <= layer < count:
        raise UserError(f"--layer: found {layer}, expected a convolution of the discriminator from 0 to {count - 1}")
    return count - 1 if layer is None else layer


def select(found: Peaks, which: str, count: int) -> list[int]:
    """The `count` features that are 'first' or most 'active', or those of numbers such as '3,17'.

    Raises UserError for numbers of no feature.
    """
    size = len(found.values)
    if which == "first":
        return list(range(min(count, size)))
    if which == "active":
        return most_active(found, count)
    numbers = which.split(",")
    if not all(number.isdecimal() and int(number) < size for number in numbers):
        raise UserError(f"--features: found {which!r}, expected 'first', 'active', or numbers below {size}")
    return [int(number) for number in numbers]


def most_active(found: Peaks, count: int) -> list[int]:
    """The features whose highest activations are highest on average."""
    return [int(feature) for feature in np.argsort(-found.values.mean(1), kind="stable")[:count]]


def figure(gan: TrainedGAN, images: np.ndarray, layer: int, which: str, count: int) -> Figure:
    """The patches of images uint8 [N, H, W, C] that excite features most, as `select` takes them."""
    found = peaks(gan, images, layer, PATCHES)
    field = receptive.field(gan.discriminator, layer)
    rows = []
    for feature in select(found, which, count):
        places = zip(found.images[feature], found.rows[feature], found.columns[feature], strict=True)
        patches = [receptive.patch(np.asarray(images[i]), row, column, field) for i, row, column in places]
        rows.append(Row(f"feature {feature}", np.stack(patches), tuple(f"{v:.2f}" for v in found.values[feature])))
    text = (
        f"The patches of {len(images)} training images that excite features of the discriminator's convolution {layer} "
        "most, with the activation; one of each image, grey beyond its border."
    )
    return Figure(f"maximal_{layer}", rows, text)
