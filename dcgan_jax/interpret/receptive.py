"""Receptive fields of the discriminator's convolutions."""

import numpy as np

from dcgan_jax.models import Discriminator
from dcgan_jax.ops.conv import padding

GREY = 128  # fills a patch beyond the image's border


def field(discriminator: Discriminator, layer: int) -> tuple[int, int, int]:
    """(start, step, size): position p on either axis of map `layer` sees `size` pixels from start + p * step on."""
    start, step, size = 0, 1, 1
    for stride in discriminator.strides[: layer + 1]:
        start -= padding(discriminator.kernel_size, stride) * step
        size += (discriminator.kernel_size - 1) * step
        step *= stride
    return start, step, size


def patch(image: np.ndarray, row: int, column: int, field: tuple[int, int, int]) -> np.ndarray:
    """The receptive field of position (row, column) in an image [H, W, C]: [size, size, C].

    field: as the function of that name gives it. Pixels beyond the border are grey.
    """
    start, step, size = field
    margin = size + abs(start)
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), constant_values=GREY)
    top, left = (margin + start + position * step for position in (row, column))
    return padded[top : top + size, left : left + size]
