"""Pixels as networks see them: uint8 images to [-1, 1] and back."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

Images = TypeVar("Images", Array, np.ndarray)


def to_unit_range(images: Images, dtype: DTypeLike = np.float32) -> Images:
    """uint8 images to [-1, 1]; numpy arrays give numpy arrays."""
    return images.astype(dtype) / np.asarray(127.5, dtype) - np.asarray(1, dtype)


def to_uint8(images: Images) -> Images:
    """Images in [-1, 1] to uint8, the inverse of `to_unit_range`; what lies outside is clipped.

    Numpy arrays give numpy arrays, with the same bits as JAX's.
    """
    library: Any = jnp if isinstance(images, Array) else np
    return library.clip(library.rint((images + 1) * 127.5), 0, 255).astype(np.uint8)


def to_bytes(images: Array) -> Array | np.ndarray:
    """`to_uint8` of images that go to the host: on an accelerator before they do, as four times less is to be fetched.

    It is a program apart from what made the images, whose bits it leaves as they are.
    """
    return to_uint8(np.asarray(images)) if jax.default_backend() == "cpu" else jax.jit(to_uint8)(images)
