"""One image of any kind to the pixels that a network is trained on."""

import math

import numpy as np
from PIL import Image, ImageOps


def prepare(image: Image.Image, image_size: tuple[int, int], channels: int) -> np.ndarray:
    """An image as uint8 [height, width, channels]: turned upright, cropped to the middle, and resized.

    The crop is the largest centred rectangle of the wanted proportions; the resize is Lanczos, antialiased.
    Transparent pixels become white. 16-bit greys are scaled to 8 bits. An animation gives its first frame.

    Raises ValueError for pixels that have no agreed meaning (32-bit floats), OSError for an image that does not decode.
    """
    image = ImageOps.exif_transpose(image)
    image = _eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB" if channels == 3 else "L")
    height, width = image_size
    image = image.resize((width, height), Image.Resampling.LANCZOS, box=_centre(image.size, width / height))
    return np.asarray(image, np.uint8).reshape(height, width, channels)


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


def _centre(size: tuple[int, int], proportion: float) -> tuple[float, float, float, float]:
    """The box (left, top, right, bottom) of the largest centred rectangle with this width / height."""
    width, height = size
    crop_width, crop_height = min(width, height * proportion), min(height, width / proportion)
    left, top = (width - crop_width) / 2, (height - crop_height) / 2
    return left, top, left + crop_width, top + crop_height


def grid(images: np.ndarray) -> Image.Image:
    """Images uint8 [N, H, W, C], N at least 1, in rows of as many as columns, with 2 black pixels between them."""
    count, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(count))
    rows, gap = -(-count // columns), 2
    canvas = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return Image.fromarray(canvas[:, :, 0] if channels == 1 else canvas)
