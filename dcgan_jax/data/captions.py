"""Text below pictures, in white on black: what a picture shows, and the classes of the images in it."""

import functools
import importlib.util
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dcgan_jax.data.images import visible

SIZE = 11  # of the letters, in pixels
LETTER = 7  # the width of most letters
MARGIN = 3


def captioned(picture: Image.Image, text: str) -> Image.Image:
    """The picture, grey or colour, with a text below it, in lines that are as long as it is wide."""
    lines = textwrap.wrap(text, max(12, (picture.width - 2 * MARGIN) // LETTER))
    return _above(picture, lines, max([picture.width, *(_length(line) + 2 * MARGIN for line in lines)]))


def titled(images: np.ndarray, titles: list[str]) -> np.ndarray:
    """Images uint8 [N, H, W, C], as `visible`, with a title below each, which may make all wider: [N, H2, W2, C]."""
    shown = visible(images)
    width = max([shown.shape[2], *(_length(title) for title in set(titles))])
    squeezed = shown[..., 0] if shown.shape[-1] == 1 else shown
    cells = [
        np.asarray(_above(Image.fromarray(image), [title], width))
        for image, title in zip(squeezed, titles, strict=True)
    ]
    return np.stack(cells).reshape(len(cells), *cells[0].shape[:2], -1)


def _above(picture: Image.Image, lines: list[str], width: int) -> Image.Image:
    """The picture in the middle of a canvas of this width, above the lines."""
    canvas = Image.new(picture.mode, (width, picture.height + len(lines) * (SIZE + MARGIN) + MARGIN))
    canvas.paste(picture, ((width - picture.width) // 2, 0))
    draw = ImageDraw.Draw(canvas)
    for i, line in enumerate(lines):
        top = picture.height + MARGIN // 2 + i * (SIZE + MARGIN)
        draw.text(((width - _length(line)) // 2, top), line, fill="white", font=_font())
    return canvas


def _length(text: str) -> int:
    return int(np.ceil(_font().getlength(text)))


@functools.cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans, which comes with matplotlib: Pillow's own font has no letters beyond ASCII."""
    found = importlib.util.find_spec("matplotlib")  # without the seconds of its import
    file = Path(found.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf" if found and found.origin else None
    return ImageFont.truetype(file, SIZE) if file and file.is_file() else ImageFont.load_default(SIZE)
