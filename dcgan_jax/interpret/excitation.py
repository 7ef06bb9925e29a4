"""The image patches that excite each feature of a discriminator's convolution most."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dcgan_jax import models
from dcgan_jax.data.images import visible
from dcgan_jax.inference import TrainedGAN, maps_of
from dcgan_jax.interpret import receptive
from dcgan_jax.interpret.pictures import Figure, Row
from dcgan_jax.ops.chunks import chunks
from dcgan_jax.ops.pixels import to_unit_range
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.progress import progress

Tree = Any

CHUNK = 256  # images at a time
PATCHES = 8  # per feature, in a figure


class Peaks(NamedTuple):
    """For each feature the images with its highest activations, highest first, and their positions: int [F, N]."""

    values: np.ndarray
    images: np.ndarray
    rows: np.ndarray
    columns: np.ndarray


@functools.partial(jax.jit, static_argnums=(0, 2))
def _highest(network: models.Discriminator, variables: Tree, layer: int, images: Array) -> tuple[Array, Array]:
    """The highest activation of each feature in each image, and its flat position: [F, B] both."""
    maps = maps_of(network, variables, jnp.asarray(to_unit_range(images)))[layer]
    flat = maps.reshape(len(maps), -1, maps.shape[-1])
    return flat.max(1).T, flat.argmax(1).T


def peaks(gan: TrainedGAN, images: np.ndarray, layer: int, count: int) -> Peaks:
    """The `count` images of uint8 [N, H, W, C] that excite each feature of map `layer` most, one position in each."""
    best: list[np.ndarray] = []  # values, indices of images, flat positions: [F, at most count] each
    total = -(-len(images) // CHUNK)
    parts, shapes = chunks(CHUNK, images), (layer, gan.discriminator_variables)
    for place, (chunk,) in progress(parts, "activations", "blocks of images", total, compiles=shapes):
        results = jax.device_get(_highest(gan.discriminator, gan.discriminator_variables, layer, jnp.asarray(chunk)))
        values, positions = (array[:, : place.stop - place.start] for array in results)
        candidates = [values, np.broadcast_to(np.arange(place.start, place.stop), values.shape), positions]
        if best:  # before the new ones: the sort is stable, so of equal values the first image stays
            candidates = [np.concatenate(pair, axis=1) for pair in zip(best, candidates, strict=True)]
        order = np.argsort(-candidates[0], axis=1, kind="stable")[:, :count]
        best = [np.take_along_axis(array, order, axis=1) for array in candidates]
    values, indices, positions = best
    width = gan.config.image_size[1] // math.prod(gan.discriminator.strides[: layer + 1])
    return Peaks(values, indices, positions // width, positions % width)


def layer_of(gan: TrainedGAN, layer: int | None) -> int:
    """The number of a convolution of the discriminator, the last by default. Raises UserError if there is none."""
    count = len(gan.discriminator.features)
    if gan.config.num_classes:
        raise UserError("--workdir: the discriminator of this network takes labels, expected one without classes")
    if not count:
        raise UserError("--workdir: this network has no convolutions, expected one with some")
    if layer is not None and not 0 <= layer < count:
        raise UserError(f"--layer: found {layer}, expected a convolution of the discriminator from 0 to {count - 1}")
    return count - 1 if layer is None else layer


def check_features(gan: TrainedGAN, layer: int, which: str) -> None:
    """Raises UserError unless `which` is a choice of features of this convolution that `select` understands."""
    size = gan.discriminator.features[layer]
    named = which in ("first", "active")
    if not named and not all(number.isdecimal() and int(number) < size for number in which.split(",")):
        raise UserError(f"--features: found {which!r}, expected 'first', 'active', or numbers below {size}")


def select(highest: Peaks, which: str, count: int) -> list[int]:
    """The 'first' or most 'active' `count` features, or those listed, such as '3,17'."""
    if which == "first":
        return list(range(min(count, len(highest.values))))
    if which == "active":
        return most_active(highest, count)
    return [int(number) for number in which.split(",")]


def most_active(highest: Peaks, count: int) -> list[int]:
    """The `count` features with the largest mean of their highest activations."""
    return [int(feature) for feature in np.argsort(-highest.values.mean(1), kind="stable")[:count]]


def figure(gan: TrainedGAN, images: np.ndarray, layer: int, which: str, count: int) -> Figure:
    """The patches of images uint8 [N, H, W, C] that excite features most; features are chosen as in `select`."""
    highest = peaks(gan, images, layer, PATCHES)
    field = receptive.field(gan.discriminator, layer)
    rows = []
    for feature in select(highest, which, count):
        positions = zip(highest.images[feature], highest.rows[feature], highest.columns[feature], strict=True)
        patches = [receptive.patch(visible(np.asarray(images[i])), row, column, field) for i, row, column in positions]
        rows.append(Row(f"feature {feature}", np.stack(patches), tuple(f"{v:.2f}" for v in highest.values[feature])))
    text = (
        f"The patches of {len(images)} training images that excite features of the discriminator's convolution {layer} "
        "most, with the activation; one of each image, grey beyond its border."
    )
    return Figure(rows, text)
