"""One image of any kind to the pixels that a network is trained on."""

import math
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

# A larger picture is taken for a decompression bomb: a small file that fills the memory when it is decoded.
MOST_PIXELS = 2**27
# Others run programs (EPS), or are no pictures.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
Image.init()  # or Pillow loads what reads them while several threads open images
# A smaller picture (a web page's tracking pixel, say) shows nothing.
LEAST_SIDE = 4
CELEBA_SIZE = (178, 218)  # width and height of CelebA's aligned faces


def decode(file: Path | BinaryIO) -> Image.Image:
    """A picture from its file, in one of `FORMATS`; its pixels are not decoded yet.

    Raises ValueError for a picture that is too large or too small, and what Pillow raises for one it cannot read.
    """
    image = Image.open(file, formats=FORMATS)
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise ValueError(f"{width}x{height} pixels, expected at most {MOST_PIXELS} in all; shrink it")
    if min(image.size) < LEAST_SIDE:
        raise ValueError(f"{width}x{height} pixels, expected at least {LEAST_SIDE} a side")
    return image


def prepare(image: Image.Image, image_size: tuple[int, int], channels: int, crop: str = "center") -> np.ndarray:
    """An image as uint8 [height, width, channels]: turned upright, cropped, and resized.

    crop: 'center' is the largest centred rectangle of the wanted proportions; 'celebaN' the centred square that has
    N pixels a side where the aligned face is 178 wide; 'none' the whole image, whatever that does to its proportions.

    The resize is Lanczos, antialiased. Transparent pixels become white. 16-bit greys are scaled to 8 bits. An
    animation gives its first frame.

    Raises ValueError for pixels that have no agreed meaning (32-bit floats) and for an image that a crop is not made
    for, OSError for one that does not decode.
    """
    image = _eight_bits(_upright(image))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB" if channels == 3 else "L")
    height, width = image_size
    image = image.resize((width, height), Image.Resampling.LANCZOS, box=_box(image.size, width / height, crop))
    return np.asarray(image, np.uint8).reshape(height, width, channels)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        # The tags are damaged: it may be the picture that is, too, and then this raises what tells so.
        image.load()
        return image


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("32-bit float pixels; convert it to 8 or 16 bits a channel")
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255 instead of scaling.
        values = np.asarray(image).astype(np.int64)
        if values.max(initial=0) > 65535 or values.min(initial=0) < 0:
            raise ValueError("32-bit integer pixels; convert it to 8 or 16 bits a channel")
        return Image.fromarray((values // 257).astype(np.uint8))
    return image


def _box(size: tuple[int, int], proportion: float, crop: str) -> tuple[float, float, float, float]:
    """The box (left, top, right, bottom) that a crop keeps, for a result of this width / height."""
    width, height = size
    if crop == "none":
        return 0, 0, width, height
    if crop == "center":
        crop_width, crop_height = min(width, height * proportion), min(height, width / proportion)
    else:
        full_width, full_height = CELEBA_SIZE
        if abs(height - width * full_height / full_width) > 1:
            raise ValueError(f"{width}x{height} pixels are not in the proportions of 178x218 that crop={crop!r} is for")
        crop_width = crop_height = width * int(crop.removeprefix("celeba")) / full_width
    left, top = (width - crop_width) / 2, (height - crop_height) / 2
    return left, top, left + crop_width, top + crop_height


def grid(images: np.ndarray, columns: int = 0) -> Image.Image:
    """Images uint8 [N, H, W, C], N at least 1, with 2 black pixels between them; by default as many rows as columns."""
    count, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows, gap = -(-count // columns), 2
    canvas = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return Image.fromarray(canvas[:, :, 0] if channels == 1 else canvas)
