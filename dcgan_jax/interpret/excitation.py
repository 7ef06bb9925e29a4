"""The images, and the places in them, that excite the features of one of the discriminator's maps most."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dcgan_jax import models
from dcgan_jax.errors import UserError
from dcgan_jax.inference import TrainedGAN, maps_of
from dcgan_jax.interpret import receptive
from dcgan_jax.interpret.pictures import Figure, Row

Tree = Any

BLOCK = 256  # images at a time
PATCHES = 8  # of one feature, in a figure


class Peaks(NamedTuple):
    """Of each feature, the images with its highest activations, highest first, and where: int [F, N]."""

    values: np.ndarray
    images: np.ndarray
    rows: np.ndarray
    columns: np.ndarray


@functools.partial(jax.jit, static_argnums=(0, 2))
def _highest(network: models.Discriminator, variables: Tree, layer: int, block: Array) -> tuple[Array, Array]:
    """The highest activation of each feature in each image, and its place: [F, B] both."""
    maps = maps_of(network, variables, block / 127.5 - 1)[layer]
    flat = maps.reshape(len(maps), -1, maps.shape[-1])
    return flat.max(1).T, flat.argmax(1).T


def peaks(gan: TrainedGAN, images: np.ndarray, layer: int, count: int) -> Peaks:
    """The `count` images of uint8 [N, H, W, C] that excite each feature of map `layer` most, one place of each."""
    best: list[np.ndarray] = []  # values, numbers of images, places: [F, at most count] each
    for start in range(0, len(images), BLOCK):
        block = np.asarray(images[start : start + BLOCK])
        filled = np.concatenate([block, np.repeat(block[:1], BLOCK - len(block), axis=0)])
        found = jax.device_get(_highest(gan.discriminator, gan.discriminator_variables, layer, jnp.asarray(filled)))
        values, places = (array[:, : len(block)] for array in found)
        numbers = np.broadcast_to(np.arange(start, start + len(block)), values.shape)
        joined = [values, numbers, places]
        if best:  # before the block: of equal ones the first stays
            joined = [np.concatenate(pair, axis=1) for pair in zip(best, joined, strict=True)]
        order = np.argsort(-joined[0], axis=1, kind="stable")[:, :count]
        best = [np.take_along_axis(array, order, axis=1) for array in joined]
    values, numbers, places = best
    width = gan.config.image_size[1] // math.prod(gan.discriminator.strides[: layer + 1])
    return Peaks(values, numbers, places // width, places % width)


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


def check_features(gan: TrainedGAN, layer: int, which: str) -> None:
    """Raises UserError unless these are features of a convolution of the discriminator, as `select` takes them."""
    size = gan.discriminator.features[layer]
    named = which in ("first", "active")
    if not named and not all(number.isdecimal() and int(number) < size for number in which.split(",")):
        raise UserError(f"--features: found {which!r}, expected 'first', 'active', or numbers below {size}")


def select(found: Peaks, which: str, count: int) -> list[int]:
    """The `count` features that are 'first' or most 'active', or those of numbers such as '3,17'."""
    if which == "first":
        return list(range(min(count, len(found.values))))
    if which == "active":
        return most_active(found, count)
    return [int(number) for number in which.split(",")]


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
    return Figure(rows, text)
