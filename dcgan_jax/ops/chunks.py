"""Arrays cut into chunks of one size, so that a compiled function sees a single shape however many entries come."""

from collections.abc import Callable, Iterator

import numpy as np


def fill(array: np.ndarray, size: int) -> np.ndarray:
    """The array [n, ...] with its last entry repeated up to `size` entries; 0 < n <= size."""
    return array if len(array) == size else np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])


def chunks(size: int, *arrays: np.ndarray) -> Iterator[tuple[slice, tuple[np.ndarray, ...]]]:
    """The arrays, all [n, ...], in chunks of exactly `size` entries, the last one filled up.

    Beside each chunk the slice of the arrays that it holds.
    """
    count = len(arrays[0])
    for start in range(0, count, size):
        place = slice(start, min(start + size, count))
        yield place, tuple(fill(np.asarray(array[place]), size) for array in arrays)


def map_chunks(function: Callable[..., np.ndarray], size: int, *arrays: np.ndarray) -> np.ndarray:
    """The results of `function` on chunks of exactly `size` entries, as one array; its rows belong to the entries."""
    parts = [np.asarray(function(*chunk))[: place.stop - place.start] for place, chunk in chunks(size, *arrays)]
    return np.concatenate(parts)
