"""A figure: rows of images with a label each, and a caption that says what they are of."""

import math
import textwrap
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

GAP = 2  # pixels between images
INCH = 100  # pixels of the figure
LINE = 0.19  # inches of a line of the caption


class Row(NamedTuple):
    """Images uint8 [N, H, W, C] beside one another, behind a label; `titles` stand above each of them."""

    label: str
    images: np.ndarray
    titles: tuple[str, ...] = ()


class Figure(NamedTuple):
    """What a figure shows: its rows, and a text that explains it.

    gaps: the numbers of images behind which there is a wider gap. frames: uint8 [N, H, W, C], of its animation if any.
    """

    rows: list[Row]
    text: str
    gaps: tuple[int, ...] = ()
    frames: np.ndarray | None = None


def draw(rows: list[Row], caption: str, file: Path, *, zoom: int = 0, gaps: tuple[int, ...] = ()) -> Path:
    """Writes the figure as a PNG.

    zoom: pixels of the figure for one of an image; by default images are about 64 pixels large. gaps: the numbers of
    images behind which there is a wider gap.
    """
    from matplotlib.figure import Figure  # imported late, for it takes a second

    zoom = zoom or max(1, round(64 / rows[0].images.shape[1]))
    strips = [_strip(row.images, zoom, gaps) for row in rows]
    widest = max(strip.shape[1] for strip in strips)
    label_inches = 0.15 + 0.075 * max((len(line) for row in rows for line in row.label.split("\n")), default=0)
    width = max(label_inches + widest / INCH + 0.1, 4.0)
    lines = [line for part in caption.split("\n") for line in textwrap.wrap(part, int(width / 0.07))]
    heights = [strip.shape[0] / INCH + (0.2 if row.titles else 0.05) for strip, row in zip(strips, rows, strict=True)]
    height = sum(heights) + LINE * len(lines) + 0.15
    figure = Figure(figsize=(width, height), dpi=INCH)
    top = height
    for strip, row, space in zip(strips, rows, heights, strict=True):
        bottom = top - space
        left = label_inches / width
        axes = figure.add_axes(
            (left, bottom / height, strip.shape[1] / INCH / width, strip.shape[0] / INCH / height), frameon=False
        )
        axes.imshow(strip, interpolation="nearest", aspect="auto")
        axes.set(xticks=[], yticks=[])
        middle = (bottom + strip.shape[0] / INCH / 2) / height
        figure.text(left - 0.08 / width, middle, row.label, ha="right", va="center", fontsize=8, parse_math=False)
        for i, title in enumerate(row.titles):
            place = _place(i, row.images.shape[2], zoom, gaps) + row.images.shape[2] * zoom / 2
            axes.text(place, -3, title, ha="center", va="bottom", fontsize=7)
        top = bottom
    figure.text(0.1 / width, 0.08 / height, "\n".join(lines), ha="left", va="bottom", fontsize=8, parse_math=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, format="png")
    return file


def animate(frames: np.ndarray, file: Path, *, zoom: int = 0, milliseconds: int = 60) -> Path:
    """Writes images uint8 [N, H, W, C] as an endless GIF."""
    zoom = zoom or max(1, math.ceil(128 / frames.shape[1]))
    pictures = [Image.fromarray(_coloured(_enlarged(frame, zoom))) for frame in frames]
    file.parent.mkdir(parents=True, exist_ok=True)
    pictures[0].save(file, save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0)
    return file


def _strip(images: np.ndarray, zoom: int, gaps: tuple[int, ...]) -> np.ndarray:
    count, height, width = images.shape[:3]
    canvas = np.full((height * zoom, _place(count - 1, width, zoom, gaps) + width * zoom, 3), 255, np.uint8)
    for i, image in enumerate(images):
        left = _place(i, width, zoom, gaps)
        canvas[:, left : left + width * zoom] = _coloured(_enlarged(image, zoom))
    return canvas


def _place(number: int, width: int, zoom: int, gaps: tuple[int, ...]) -> int:
    return number * (width * zoom + GAP) + 6 * GAP * sum(number >= gap for gap in gaps)


def _enlarged(image: np.ndarray, zoom: int) -> np.ndarray:
    return image.repeat(zoom, 0).repeat(zoom, 1)


def _coloured(image: np.ndarray) -> np.ndarray:
    return image if image.shape[-1] == 3 else image.repeat(3, -1)
