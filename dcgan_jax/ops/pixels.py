"""Pixels as networks see them: uint8 images to [-1, 1] and back."""

from typing import TypeVar

import numpy as np
from jax import Array
from jax.typing import DTypeLike

Images = TypeVar("Images", Array, np.ndarray)


def to_unit_range(images: Images, dtype: DTypeLike = np.float32) -> Images:
    """uint8 images to [-1, 1]; numpy arrays give numpy arrays."""
    return images.astype(dtype) / np.asarray(127.5, dtype) - np.asarray(1, dtype)


def to_uint8(images: Array | np.ndarray) -> np.ndarray:
    """Images in [-1, 1] to uint8, the inverse of `to_unit_range`; what lies outside is clipped."""
    return np.clip(np.rint((np.asarray(images) + 1) * 127.5), 0, 255).astype(np.uint8)
