"""What the numbers in arrays of images mean: which axis are the channels, and which values are black and white."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from dcgan_jax.runtime.array_files import release
from dcgan_jax.runtime.progress import progress

SLACK = 1e-3  # by which floats may lie outside of a range, by rounding; they are clipped
CHUNK = 2**24  # numbers looked at together
CONVERTED = {(1, 3): "grey repeated as colour", (3, 1): "colour made grey", (1, 4): "opaque grey", (3, 4): "opaque"}
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue, as Pillow makes grey of them

Shape = tuple[int, ...]


def channels_first(shape: Shape, channels: int) -> bool:
    """Whether three axes are (C, H, W), and not (H, W, C). channels: as many as are asked for.

    They are if the first is `channels`, the last is not, and the last is not the shortest either; or if the first alone
    is shorter than both others.
    """
    first, middle, last = shape
    looks_last = last < min(first, middle)
    if first == channels != last:
        return not looks_last
    return first < min(middle, last) and not looks_last


def is_one_image(shape: Shape, channels: int) -> bool:
    """Whether an array of 2 or 3 axes is one image, [H, W], [H, W, C] or [C, H, W], and not [N, H, W].

    channels: as many as are asked for.
    """
    if len(shape) == 2:
        return True
    ends = ((shape[2], shape[:2]), (shape[0], shape[1:]))
    return len(shape) == 3 and any((end <= 4 or end == channels) and end < min(sides) for end, sides in ends)


class Values(NamedTuple):
    """How values become pixels. told: what they were taken for. convert: to uint8, or to float32 in [0, 255]."""

    told: str
    convert: Callable[[np.ndarray], np.ndarray]


def values_of(dtype: np.dtype, extremes: Callable[[], tuple[float, float]]) -> Values:
    """How the values of arrays of this dtype, checked before, become pixels.

    extremes: looks for the smallest and largest of all. Floats are in [-1, 1] if one is below 0, else in [0, 1]. Raises
    ValueError for floats that are neither.
    """
    if dtype.kind == "f":
        low, high = extremes()
        if low < -1 - SLACK or high > 1 + SLACK:
            divided = "images / 255" if low >= 0 and high <= 255 else "(images - low) / (high - low)"
            raise ValueError(
                f"has floats from {low:.6g} to {high:.6g}, expected 0 to 1, or -1 to 1; save {divided}, or uint8"
            )
        signed = low < -SLACK
        told = f"values from {low:.4g} to {high:.4g}, taken for {'[-1, 1]' if signed else '[0, 1]'}"
        shift, scale = (1, 255 / 2) if signed else (0, 255)
        return Values(told, lambda image: (image.astype(np.float32) + np.float32(shift)) * np.float32(scale))
    if dtype == np.uint8:
        return Values("", lambda image: image)
    if dtype == np.bool_:
        return Values("False is black, True white", lambda image: image * np.uint8(255))
    return Values("divided by 257", lambda image: image.astype(np.float32) / np.float32(257))


def check_dtype(dtype: np.dtype) -> None:
    """Raises ValueError for what is neither uint8, uint16, bool nor floats."""
    if dtype.kind in "fb" or (dtype.kind == "u" and dtype.itemsize <= 2):
        return
    if dtype.hasobject:
        raise ValueError("holds Python objects, which are not opened; save one array of numbers, np.stack(images)")
    advice = "for values from 0 to 255 save images.astype('uint8')" if dtype.kind in "iu" else "save images of these"
    raise ValueError(f"holds {dtype}, expected uint8, uint16, bool or floats; {advice}")


def extremes(arrays: Iterable[tuple[str, np.ndarray]]) -> tuple[float, float]:
    """The smallest and the largest value of arrays [N, ...] with their names. Raises ValueError for nan or infinity."""
    lowest, highest = np.inf, -np.inf
    for name, array in arrays:
        rows = max(1, CHUNK // array[0].size)
        for start in progress(range(0, len(array), rows), f"reading values {name}".strip(), "parts"):
            part = array[start : start + rows]
            low, high = float(part.min()), float(part.max())
            if not (np.isfinite(low) and np.isfinite(high)):
                finite = np.isfinite(part).reshape(len(part), -1).all(1)
                raise ValueError(
                    f"has nan or infinity, first in image {start + int(finite.argmin())}{name and f' of {name!r}'}; "
                    "replace them (np.nan_to_num), or leave these images out"
                )
            lowest, highest = min(lowest, low), max(highest, high)
            release(array)
    return lowest, highest


def to_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """An image [H, W, C] with as many channels as are asked for; if these are not C, as `CONVERTED` has it."""
    count = image.shape[-1]
    if channels == 1 and count == 3:
        return (image.astype(np.float32) @ LUMINANCE)[..., None]
    if count == 1 and channels >= 3:
        image = image.repeat(3, -1)
    if count < channels == 4:
        return np.concatenate([image, np.full_like(image[..., :1], 255)], -1)
    return image
