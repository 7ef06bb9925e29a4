"""Boxes drawn by two clicks, on samples that are shown large."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from dcgan_jax.explore import sheet
from dcgan_jax.interpret import forget
from dcgan_jax.interpret.forget import Box

CELL = 160  # pixels of a sample's height, about
COLUMNS = 3


class Corner(NamedTuple):
    """A pixel of a sample: one corner of a box, inclusive."""

    sample: int
    row: int
    column: int


def canvas(images: np.ndarray, numbers: list[int], boxes: list[Box], corner: Corner | None) -> Image.Image:
    """Samples of these numbers from images uint8 [N, H, W, C], large, with the borders of their boxes in white."""
    chosen = images[numbers].copy()
    drawn = boxes if corner is None else [*boxes, between(corner, corner)]
    for box in drawn:
        for place in (i for i, number in enumerate(numbers) if number == box.sample):
            forget.frame(chosen[place], box)
    return sheet.draw(chosen, {}, columns=COLUMNS, cell=CELL)


def corner_at(place: tuple[int, int], numbers: list[int], image_size: tuple[int, int]) -> Corner | None:
    """What was clicked at a place (x, y) of the canvas; None between samples."""
    hit = sheet.pixel_at(place, len(numbers), image_size, columns=COLUMNS, cell=CELL)
    return None if hit is None else Corner(numbers[hit[0]], hit[1], hit[2])


def between(first: Corner, second: Corner) -> Box:
    """The box with these opposite corners, of one sample."""
    top, bottom = sorted((first.row, second.row))
    left, right = sorted((first.column, second.column))
    return Box(first.sample, top, left, bottom + 1, right + 1)


def as_text(boxes: list[Box]) -> str:
    """Boxes as `parameters.boxes` reads them."""
    return "\n".join(f"{sample}: {', '.join(map(str, sides))}" for sample, *sides in boxes)
