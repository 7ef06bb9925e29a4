"""Forgetting an object: dropping the generator's feature maps that draw it (section 6.3.1, figure 6).

The user marks the object in samples with boxes. A logistic regression predicts from the activations at a position
whether that position is inside a box; feature maps with a positive weight are set to zero everywhere.
"""

import json
from typing import NamedTuple

import numpy as np
from flax import traverse_util
from sklearn.linear_model import LogisticRegression

from dcgan_jax.inference import TrainedGAN
from dcgan_jax.interpret.pictures import Figure, Row
from dcgan_jax.interpret.samples import Samples
from dcgan_jax.runtime.errors import UserError, local_path

SHOWN_SAMPLES = 10
EXPECTED = '{"boxes": [{"sample": 3, "box": [top, left, bottom, right]}, ...]} in pixels'


class Box(NamedTuple):
    """The pixels of a sample from (top, left) up to, not including, (bottom, right)."""

    sample: int
    top: int
    left: int
    bottom: int
    right: int


class Forgotten(NamedTuple):
    """A GAN without some of its feature maps.

    dropped: bool [F]. inside_right, outside_right: the regression's accuracy inside and outside of the boxes.
    """

    gan: TrainedGAN
    dropped: np.ndarray
    inside_right: float
    outside_right: float


def boxes_of(text: str, count: int, image_size: tuple[int, int]) -> list[Box]:
    """Boxes from a flag: TOP,LEFT,BOTTOM,RIGHT puts one in each of `count` samples; otherwise the name of a JSON file.

    Raises UserError for a box that does not fit in the images, and as `read_boxes` does.
    """
    sides = text.split(",")
    if len(sides) != 4 or not all(side.isdecimal() and len(side) < 10 for side in sides):
        return read_boxes(text, image_size)
    box = Box(0, *map(int, sides))
    check(box, image_size)
    return [box._replace(sample=i) for i in range(count)]


def read_boxes(path: str, image_size: tuple[int, int]) -> list[Box]:
    """The boxes in a JSON file. Raises UserError if it holds anything else, or a box does not fit in the images."""
    file = local_path(path, "--boxes")
    try:
        entries = json.loads(file.read_text())["boxes"]
        boxes = [Box(entry["sample"], *entry["box"]) for entry in entries]
        if not all(type(number) is int for box in boxes for number in box):
            raise TypeError("samples and boxes must be integers")
    except FileNotFoundError:
        raise UserError(
            f"--boxes: {path!r} does not exist, expected a file with {EXPECTED}, or TOP,LEFT,BOTTOM,RIGHT"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"--boxes: {path!r} cannot be read ({error!r}), expected {EXPECTED}") from error
    for box in boxes:
        check(box, image_size)
    if not boxes:
        raise UserError(f"--boxes: {path!r} holds none, expected {EXPECTED}")
    return boxes


def check(box: Box, image_size: tuple[int, int]) -> None:
    """Raises UserError if a box is empty or reaches beyond the image."""
    height, width = image_size
    if not (box.sample >= 0 and 0 <= box.top < box.bottom <= height and 0 <= box.left < box.right <= width):
        raise UserError(
            f"--boxes: found {list(box[1:])} in sample {box.sample}, expected top, left, bottom, right within "
            f"{height}x{width} pixels"
        )


def forget(gan: TrainedGAN, z: np.ndarray, boxes: list[Box], layer: int, labels: np.ndarray | None = None) -> Forgotten:
    """Makes a GAN forget what is inside the boxes of the samples of z [n, Z].

    layer: the generator's map whose features are dropped, numbered as in `TrainedGAN.generator_maps`.
    Raises UserError if a box belongs to no sample, or if no position, or every one, is inside.
    """
    maps = gan.generator_maps(z, layer, labels)
    inside = _inside(boxes, maps.shape[:3], gan.config.image_size)
    drawn = sorted({box.sample for box in boxes})
    examples, positive = maps[drawn].reshape(-1, maps.shape[-1]), inside[drawn].reshape(-1)
    if positive.all() or not positive.any():
        raise UserError(
            f"--boxes: {positive.mean():.0%} of the {positive.size} places of map {layer} are inside, expected some "
            "inside and some outside; draw other boxes"
        )
    regression = LogisticRegression(class_weight="balanced", max_iter=1000).fit(examples, positive)
    right = regression.predict(examples) == positive
    dropped = regression.coef_[0] > 0
    return Forgotten(
        without(gan, layer, dropped), dropped, float(right[positive].mean()), float(right[~positive].mean())
    )


def _inside(boxes: list[Box], shape: tuple[int, int, int], image_size: tuple[int, int]) -> np.ndarray:
    """Which positions of maps [n, height, width] have their centre inside a box: bool, the same shape."""
    inside = np.zeros(shape, bool)
    rows, columns = (
        (np.arange(positions) + 0.5) * (side / positions) for positions, side in zip(shape[1:], image_size, strict=True)
    )
    for sample, top, left, bottom, right in boxes:
        if sample >= len(inside):
            raise UserError(f"--boxes: found sample {sample}, expected numbers below {len(inside)}; raise --num")
        in_rows = (rows >= top) & (rows < bottom)
        inside[sample] |= in_rows[:, None] & ((columns >= left) & (columns < right))
    return inside


def without(gan: TrainedGAN, layer: int, dropped: np.ndarray) -> TrainedGAN:
    """The GAN with these features, bool [F], of the generator's map `layer` set to zero."""
    path = ("params", f"conv_{layer}", "kernel")
    variables = traverse_util.flatten_dict(gan.generator_variables)
    kernel = np.array(variables[path])
    kernel[..., np.flatnonzero(dropped)] = 0  # the last axis are the features that the convolution reads
    return gan.with_generator(traverse_util.unflatten_dict(variables | {path: kernel}))


def layer_of(gan: TrainedGAN, layer: int | None) -> int:
    """The number of a map of the generator, the second-largest by default. Raises UserError if there is none."""
    depth = len(gan.discriminator.strides)
    if depth < 2:
        raise UserError(f"--workdir: its generator has {depth} maps, expected at least 2, and so a second-highest")
    if layer is not None and not 0 <= layer < depth:
        raise UserError(f"--layer: found {layer}, expected a map of the generator from 0 to {depth - 1}")
    return depth - 2 if layer is None else layer


def figure(samples: Samples, boxes: list[Box], layer: int, count: int) -> Figure:
    """The first samples with their boxes, as they are, and without what is inside the boxes.

    count: the number of samples that the boxes may be in.
    """
    z = samples.z(range(count))
    forgotten = forget(samples.gan, z, boxes, layer, samples.labels(count))
    before, after = samples.images(z[:SHOWN_SAMPLES]), samples.images(z[:SHOWN_SAMPLES], forgotten.gan)
    framed = before.copy()
    for box in boxes:
        if box.sample < len(framed):
            frame(framed[box.sample], box)
    text = (
        f"Samples 0 to {len(before) - 1} before and after {forgotten.dropped.sum()} of the {len(forgotten.dropped)} "
        f"features of the generator's map {layer} were dropped: those with a positive weight in a logistic regression "
        f"of {len(boxes)} boxes in {len({box.sample for box in boxes})} samples, which is right on "
        f"{forgotten.inside_right:.0%} of the places inside and {forgotten.outside_right:.0%} of those outside."
    )
    numbers = tuple(map(str, range(len(before))))
    return Figure([Row("boxes", framed, numbers), Row("before", before), Row("after", after)], text)


def frame(image: np.ndarray, box: Box) -> None:
    """Draws the white border of a box into an image."""
    part = image[box.top : box.bottom, box.left : box.right]
    part[[0, -1]] = 255
    part[:, [0, -1]] = 255
