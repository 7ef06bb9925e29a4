"""Arrays cut into chunks of one size, so that a compiled function sees a single shape however many entries come."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

Item = TypeVar("Item")

# An accelerator takes this many times the images of a CPU in a call, which costs it hardly more time ...
ON_ACCELERATORS = 8
# ... unless they have more pixels than this together: 512 images of 128x128. It bounds the memory of their activations.
MAX_PIXELS = 2**23
# Chunks of which a device may be given while the oldest result has not been fetched: more would only take memory.
IN_FLIGHT = 3


def suitable(on_cpu: int, image_size: Sequence[int]) -> int:
    """The images in a chunk for the default device: `on_cpu` on a CPU, elsewhere up to 8 times as many.

    image_size: (height, width). How many are asked for does not matter, so that each gets the same bits in any request.
    """
    if jax.default_backend() == "cpu":
        return on_cpu
    size = on_cpu * ON_ACCELERATORS
    while size > 1 and size * math.prod(image_size) > MAX_PIXELS:
        size //= 2
    return size


def ahead(results: Iterable[tuple[Item, Any]]) -> Iterator[tuple[Item, Any]]:
    """The pairs of anything and arrays, a few later: meanwhile devices compute them and send them to the host.

    JAX returns arrays before they are computed. Fetched at once, each would leave the device idle until the next.
    """
    waiting: deque[tuple[Item, Any]] = deque()
    for item, arrays in results:
        for array in jax.tree.leaves(arrays):
            if isinstance(array, jax.Array):
                array.copy_to_host_async()
        waiting.append((item, arrays))
        if len(waiting) == IN_FLIGHT:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()


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


def map_chunks(
    function: Callable[..., jax.Array],
    size: int,
    *arrays: np.ndarray,
    done: Callable[[int], object] = lambda count: None,
) -> np.ndarray:
    """The results of `function` on chunks of exactly `size` entries, as one array; its rows belong to the entries.

    done: is called with the number of entries of each chunk, when its result is there.
    """
    parts = []
    for place, result in ahead((place, function(*chunk)) for place, chunk in chunks(size, *arrays)):
        count = place.stop - place.start
        parts.append(np.asarray(result)[:count])
        done(count)
    return np.concatenate(parts)
