"""The part of an image that one place of a map of the discriminator sees."""

import numpy as np

from dcgan_jax.conv import padding
from dcgan_jax.models import Discriminator

GREY = 128  # of what lies beyond the image


def field(discriminator: Discriminator, layer: int) -> tuple[int, int, int]:
    """(start, step, size): place p of a row or column of map `layer` sees the pixels from start + p * step on."""
    start, step, size = 0, 1, 1
    for stride in discriminator.strides[: layer + 1]:
        start -= padding(discriminator.kernel_size, stride) * step
        size += (discriminator.kernel_size - 1) * step
        step *= stride
    return start, step, size


def patch(image: np.ndarray, row: int, column: int, field: tuple[int, int, int]) -> np.ndarray:
    """What the place (row, column) of a map with this field sees of an image [H, W, C]: [size, size, C].

    Grey where the field reaches beyond the image.
    """
    start, step, size = field
    margin = size + abs(start)
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), constant_values=GREY)
    top, left = (margin + start + place * step for place in (row, column))
    return padded[top : top + size, left : left + size]
