"""Forgetting an object: feature maps that go with it are dropped from the generator (section 6.3.1, figure 6).

Where an object is in samples is told by boxes. A logistic regression predicts from the activations at a place of a map
whether that place is in a box; the maps with a positive weight are dropped at all places.
"""

import json
from typing import NamedTuple

import numpy as np
from flax import traverse_util
from sklearn.linear_model import LogisticRegression

from dcgan_jax.errors import UserError, local_path
from dcgan_jax.inference import TrainedGAN
from dcgan_jax.interpret.pictures import Figure, Row
from dcgan_jax.interpret.samples import Samples

SHOWN = 10  # samples, in the figure
EXPECTED = '{"boxes": [{"sample": 3, "box": [top, left, bottom, right]}, ...]} in pixels'


class Box(NamedTuple):
    """The pixels of a sample from (top, left) to before (bottom, right)."""

    sample: int
    top: int
    left: int
    bottom: int
    right: int


class Forgotten(NamedTuple):
    """A GAN without some of its maps; which, bool [F]; and the share of places that the regression tells rightly, of
    those in boxes and of the others.
    """

    gan: TrainedGAN
    dropped: np.ndarray
    inside_right: float
    outside_right: float


def boxes_of(text: str, count: int, image_size: tuple[int, int]) -> list[Box]:
    """The box TOP,LEFT,BOTTOM,RIGHT in each of so many samples, or those in a JSON file of this name.

    Raises UserError for boxes outside of the images, and as `read_boxes` does.
    """
    sides = text.split(",")
    if len(sides) != 4 or not all(side.isdecimal() and len(side) < 10 for side in sides):
        return read_boxes(text, image_size)
    box = Box(0, *map(int, sides))
    check(box, image_size)
    return [box._replace(sample=i) for i in range(count)]


def read_boxes(path: str, image_size: tuple[int, int]) -> list[Box]:
    """The boxes in a JSON file. Raises UserError where it holds something else, or boxes outside of the images."""
    file = local_path(path, "--boxes")
    try:
        entries = json.loads(file.read_text())["boxes"]
        boxes = [Box(entry["sample"], *entry["box"]) for entry in entries]
        if not all(type(number) is int for box in boxes for number in box):
            raise TypeError("samples and boxes are not of whole numbers")
    except FileNotFoundError:
        raise UserError(f"--boxes: {path!r} does not exist, expected a file with {EXPECTED}") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"--boxes: {path!r} cannot be read ({error!r}), expected {EXPECTED}") from error
    for box in boxes:
        check(box, image_size)
    if not boxes:
        raise UserError(f"--boxes: {path!r} holds none, expected {EXPECTED}")
    return boxes


def check(box: Box, image_size: tuple[int, int]) -> None:
    """Raises UserError for a box that is empty or reaches beyond the image."""
    height, width = image_size
    if not (box.sample >= 0 and 0 <= box.top < box.bottom <= height and 0 <= box.left < box.right <= width):
        raise UserError(
            f"--boxes: found {list(box[1:])} in sample {box.sample}, expected top, left, bottom, right within "
            f"{height}x{width} pixels"
        )


def forget(gan: TrainedGAN, z: np.ndarray, boxes: list[Box], layer: int, labels: np.ndarray | None = None) -> Forgotten:
    """The GAN that has forgotten what is in the boxes of the samples of z [n, Z].

    layer: of the generator's maps, by its place in `TrainedGAN.generator_maps`.
    Raises UserError where a box is in no sample, or all places or none are inside.
    """
    maps = gan.generator_maps(z, layer, labels)
    inside = np.zeros(maps.shape[:3], bool)
    scale = [side / places for side, places in zip(gan.config.image_size, maps.shape[1:3], strict=True)]
    rows, columns = ((np.arange(places) + 0.5) * s for places, s in zip(maps.shape[1:3], scale, strict=True))
    for sample, top, left, bottom, right in boxes:
        if sample >= len(z):
            raise UserError(f"--boxes: found sample {sample}, expected numbers below {len(z)}; raise --num")
        within = (rows >= top) & (rows < bottom)
        inside[sample] |= within[:, None] & ((columns >= left) & (columns < right))
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


def without(gan: TrainedGAN, layer: int, dropped: np.ndarray) -> TrainedGAN:
    """The GAN whose generator takes these features, bool [F], of map `layer` for zero at all places."""
    path = ("params", f"conv_{layer}", "kernel")
    variables = traverse_util.flatten_dict(gan.generator_variables)
    kernel = np.array(variables[path])
    kernel[..., np.flatnonzero(dropped)] = 0  # its last axis are the maps that it enlarges
    return gan.with_generator(traverse_util.unflatten_dict(variables | {path: kernel}))


def layer_of(gan: TrainedGAN, layer: int | None) -> int:
    """A map of the generator by its number, by default the second-highest. Raises UserError where there is none."""
    depth = len(gan.discriminator.strides)
    if depth < 2:
        raise UserError(f"--workdir: its generator has {depth} maps, expected at least 2, and so a second-highest")
    if layer is not None and not 0 <= layer < depth:
        raise UserError(f"--layer: found {layer}, expected a map of the generator from 0 to {depth - 1}")
    return depth - 2 if layer is None else layer


def figure(samples: Samples, boxes: list[Box], layer: int, count: int) -> Figure:
    """The first samples with their boxes, as they were, and as they are when what is in the boxes is forgotten.

    count: how many samples there are for the boxes to be in.
    """
    z = samples.z(range(count))
    found = forget(samples.gan, z, boxes, layer, samples.labels(count))
    before, after = samples.images(z[:SHOWN]), samples.images(z[:SHOWN], found.gan)
    framed = before.copy()
    for box in boxes:
        if box.sample < len(framed):
            frame(framed[box.sample], box)
    text = (
        f"Samples before and after {found.dropped.sum()} of the {len(found.dropped)} features of the generator's map "
        f"{layer} were dropped: those with a positive weight in a logistic regression of {len(boxes)} boxes in "
        f"{len({box.sample for box in boxes})} samples, which is right on {found.inside_right:.0%} of the places "
        f"inside and {found.outside_right:.0%} of those outside."
    )
    return Figure([Row("boxes", framed), Row("before", before), Row("after", after)], text)


def frame(image: np.ndarray, box: Box) -> None:
    """Draws the border of a box into an image, white."""
    part = image[box.top : box.bottom, box.left : box.right]
    part[[0, -1]] = 255
    part[:, [0, -1]] = 255
