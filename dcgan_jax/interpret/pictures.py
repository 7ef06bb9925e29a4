"""Draws figures: rows of images with labels, and a caption."""

import math
import textwrap
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dcgan_jax.data.captions import captioned
from dcgan_jax.data.images import visible

GAP = 2  # pixels between images
DPI = 100
LINE_INCHES = 0.19  # height of a line of the caption


class Row(NamedTuple):
    """Images uint8 [N, H, W, C] side by side, with a label on the left and a title above each image."""

    label: str
    images: np.ndarray
    titles: tuple[str, ...] = ()


class Figure(NamedTuple):
    """The content of a figure: rows, and a text that explains them.

    gaps: image numbers before which the gap is wider. frames: of the animation, if any, uint8 [N, H, W, C].
    """

    rows: list[Row]
    text: str
    gaps: tuple[int, ...] = ()
    frames: np.ndarray | None = None


def draw(rows: list[Row], caption: str, file: Path, *, zoom: int = 0, gaps: tuple[int, ...] = ()) -> Path:
    """Writes a figure as PNG.

    zoom: an integer factor; by default one that makes images about 64 pixels tall. gaps: as in `Figure`.
    """
    from matplotlib.figure import Figure  # imported late: it takes a second

    zoom = zoom or max(1, round(64 / rows[0].images.shape[1]))
    strips = [_strip(row.images, zoom, gaps) for row in rows]
    widest = max(strip.shape[1] for strip in strips)
    label_inches = 0.15 + 0.075 * max((len(line) for row in rows for line in row.label.split("\n")), default=0)
    width = max(label_inches + widest / DPI + 0.1, 4.0)
    lines = [line for part in caption.split("\n") for line in textwrap.wrap(part, int(width / 0.07))]
    heights = [strip.shape[0] / DPI + (0.2 if row.titles else 0.05) for strip, row in zip(strips, rows, strict=True)]
    height = sum(heights) + LINE_INCHES * len(lines) + 0.15
    figure = Figure(figsize=(width, height), dpi=DPI)
    top = height
    for strip, row, row_height in zip(strips, rows, heights, strict=True):
        bottom = top - row_height
        left = label_inches / width
        axes = figure.add_axes(
            (left, bottom / height, strip.shape[1] / DPI / width, strip.shape[0] / DPI / height), frameon=False
        )
        axes.imshow(strip, interpolation="nearest", aspect="auto")
        axes.set(xticks=[], yticks=[])
        middle = (bottom + strip.shape[0] / DPI / 2) / height
        figure.text(left - 0.08 / width, middle, row.label, ha="right", va="center", fontsize=8, parse_math=False)
        for i, title in enumerate(row.titles):
            centre = _left_edge(i, row.images.shape[2], zoom, gaps) + row.images.shape[2] * zoom / 2
            axes.text(centre, -3, title, ha="center", va="bottom", fontsize=7)
        top = bottom
    figure.text(0.1 / width, 0.08 / height, "\n".join(lines), ha="left", va="bottom", fontsize=8, parse_math=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, format="png")
    return file


def animate(frames: np.ndarray, caption: str, file: Path, *, zoom: int = 0, milliseconds: int = 60) -> Path:
    """Writes images uint8 [N, H, W, C] as a GIF that repeats forever, with a caption below."""
    zoom = zoom or max(1, math.ceil(128 / frames.shape[1]))
    pictures = [captioned(Image.fromarray(_enlarge(_to_rgb(frame), zoom)), caption) for frame in frames]
    file.parent.mkdir(parents=True, exist_ok=True)
    pictures[0].save(file, save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0)
    return file


def _strip(images: np.ndarray, zoom: int, gaps: tuple[int, ...]) -> np.ndarray:
    """One row of images on white: uint8 [height, width, 3]."""
    count, height, width = images.shape[:3]
    canvas = np.full((height * zoom, _left_edge(count - 1, width, zoom, gaps) + width * zoom, 3), 255, np.uint8)
    for i, image in enumerate(images):
        left = _left_edge(i, width, zoom, gaps)
        canvas[:, left : left + width * zoom] = _enlarge(_to_rgb(image), zoom)
    return canvas


def _left_edge(number: int, width: int, zoom: int, gaps: tuple[int, ...]) -> int:
    return number * (width * zoom + GAP) + 6 * GAP * sum(number >= gap for gap in gaps)


def _enlarge(image: np.ndarray, zoom: int) -> np.ndarray:
    return image.repeat(zoom, 0).repeat(zoom, 1)


def _to_rgb(image: np.ndarray) -> np.ndarray:
    shown = visible(image)
    return shown if shown.shape[-1] == 3 else shown.repeat(3, -1)
