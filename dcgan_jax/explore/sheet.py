"""The sheet of samples to click on: each in a cell of its own, framed by the colours of the trays that it lies in."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from dcgan_jax.data.images import visible

CELL = 64  # pixels of a sample's height, about
GAP = 8  # pixels between samples, which hold the frames
# Told apart by people who do not see some colours, too (Okabe and Ito); the trays also list their numbers.
COLOURS = {"A": (230, 159, 0), "B": (0, 114, 178), "C": (0, 158, 115)}
FRAME = 3  # pixels


def zoom_of(height: int, cell: int = CELL) -> int:
    """The whole number that images of this height are enlarged by."""
    return max(1, round(cell / height))


def draw(images: np.ndarray, trays: Mapping[str, Sequence[int]], *, columns: int = 0, cell: int = CELL) -> Image.Image:
    """Images uint8 [N, H, W, C] in rows, a square by default; a frame for each tray that lists a sample's number."""
    zoom = zoom_of(images.shape[1], cell)
    shown = np.repeat(np.repeat(visible(images), zoom, axis=1), zoom, axis=2)
    shown = shown if shown.shape[-1] == 3 else shown.repeat(3, -1)
    count, height, width, _ = shown.shape
    columns = columns or _columns(count)
    canvas = np.full((-(-count // columns) * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), 255, np.uint8)
    for i, image in enumerate(shown):
        top, left = GAP + i // columns * (height + GAP), GAP + i % columns * (width + GAP)
        inside = [letter for letter in trays if i in trays[letter]]
        for depth, letter in reversed(list(enumerate(inside))):
            margin = FRAME + 2 * depth
            canvas[top - margin : top + height + margin, left - margin : left + width + margin] = COLOURS[letter]
        canvas[top : top + height, left : left + width] = image
    return Image.fromarray(canvas)


def pixel_at(
    place: tuple[int, int], count: int, image_size: tuple[int, int], *, columns: int = 0, cell: int = CELL
) -> tuple[int, int, int] | None:
    """(number, row, column) of an image and its pixel at a place (x, y) of what `draw` gives; None between images."""
    height, width = image_size
    zoom, columns = zoom_of(height, cell), columns or _columns(count)
    (column, x), (row, y) = (
        divmod(side - GAP, size * zoom + GAP) for side, size in zip(place, (width, height), strict=True)
    )
    number = row * columns + column
    inside = 0 <= column < columns and row >= 0 and number < count and x < width * zoom and y < height * zoom
    return (number, y // zoom, x // zoom) if inside else None


def _columns(count: int) -> int:
    return math.ceil(math.sqrt(count))
