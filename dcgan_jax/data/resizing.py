"""The channels of an image to another size, each by the same antialiased filter, colours by their opacity."""

import numpy as np
from PIL import Image

OPACITY = 3  # of four channels, the number of the one that says how opaque a pixel is

Box = tuple[float, float, float, float]  # left, top, right, bottom


def resize(image: np.ndarray, image_size: tuple[int, int], box: Box) -> np.ndarray:
    """The part of an image in a box, in another size: uint8 [height, width, C].

    image: [H, W, C], uint8, or float32 in [0, 255], which is rounded at the end. Each channel goes through Pillow's
    Lanczos filter. Of four channels the last is the opacity: a colour counts by it, so that transparent pixels lend
    edges no colour, and where nothing is seen it becomes 0. An image that has the size already stays as it is.
    """
    height, width = image_size
    if image.shape[:2] == image_size and np.allclose(box, (0, 0, width, height), atol=1e-6):
        return _rounded(image)
    if image.shape[-1] != OPACITY + 1:
        return _rounded(_each_channel(image, image_size, box))
    image = image.astype(np.float32)
    weighted = _each_channel(
        np.concatenate([image[..., :OPACITY] * image[..., OPACITY:] / 255, image[..., OPACITY:]], -1), image_size, box
    )
    # Not clipped yet: what the filter overshoots by, in colours and opacity alike, falls out of their quotient.
    opacity = weighted[..., OPACITY:]
    seen = np.rint(opacity) > 0
    colours = np.where(seen, weighted[..., :OPACITY] * 255 / np.where(seen, opacity, 1), 0)
    return _rounded(np.concatenate([colours, opacity], -1))


def _each_channel(image: np.ndarray, image_size: tuple[int, int], box: Box) -> np.ndarray:
    size = image_size[::-1]
    planes = [Image.fromarray(np.ascontiguousarray(image[..., channel])) for channel in range(image.shape[-1])]
    return np.stack([np.asarray(plane.resize(size, Image.Resampling.LANCZOS, box=box)) for plane in planes], -1)


def _rounded(image: np.ndarray) -> np.ndarray:
    return image if image.dtype == np.uint8 else np.clip(np.rint(image), 0, 255).astype(np.uint8)
