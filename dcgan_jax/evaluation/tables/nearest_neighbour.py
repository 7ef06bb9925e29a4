"""The exact nearest neighbour in pixels, among any number of images: the classifier of the paper's table 3."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dcgan_jax.ops.chunks import chunks
from dcgan_jax.runtime.progress import progress

# Images compared with all queries at a time, which bounds the memory.
CHUNK = 2048
# Pixels are integers in [-128, 127] here, and sums of this many products of two stay below 2**24, up to where float32
# has every integer: so the matrix products are exact, in any order of summation.
BLOCK_PIXELS = 1024
# Sums of blocks may exceed int32. They are kept as two int32: a multiple of 2**LOW_BITS and the rest.
LOW_BITS = 13


class NearestNeighbour:
    """For each query image, the nearest of all images added so far, by the squared distance of their pixels.

    index, label: int [Q], of the nearest image, the first if several are equally near; label is -1 if it has none.
    distance: int [Q], squared, with pixel values from 0 to 255.
    count: images added.
    """

    def __init__(self, queries: np.ndarray):
        """queries: uint8 [Q, H, W, C]."""
        self._queries = jnp.asarray(_blocks(queries))
        self._shape = queries.shape[1:]
        self.index = np.full(len(queries), -1, np.int64)
        self.label = np.full(len(queries), -1, np.int32)
        self.distance = np.full(len(queries), np.iinfo(np.int64).max, np.int64)
        self.count = 0

    def add(self, images: np.ndarray, labels: np.ndarray | None = None) -> None:
        """Compares images, uint8 [N, H, W, C], and their labels, int [N], with all queries."""
        assert images.shape[1:] == self._shape, (images.shape, self._shape)
        total = -(-len(images) // CHUNK)
        parts, shapes = chunks(CHUNK, images), self._queries
        for rows, (chunk,) in progress(parts, "nearest images", "blocks", total, compiles=shapes):
            places, high, low = jax.device_get(_nearest(self._queries, jnp.asarray(_blocks(chunk))))
            distances = (high.astype(np.int64) << LOW_BITS) + low
            nearer = distances < self.distance
            self.distance[nearer] = distances[nearer]
            self.index[nearer] = self.count + rows.start + places[nearer]
            self.label[nearer] = -1 if labels is None else labels[rows.start + places[nearer]]
        self.count += len(images)


def _blocks(images: np.ndarray) -> np.ndarray:
    """uint8 [N, ...] -> float32 [N, blocks, BLOCK_PIXELS], integers in [-128, 127], padded with zeros."""
    flat = images.reshape(len(images), -1).astype(np.float32) - 128
    missing = -flat.shape[1] % BLOCK_PIXELS
    return np.pad(flat, ((0, 0), (0, missing))).reshape(len(images), -1, BLOCK_PIXELS)


@jax.jit
def _nearest(queries: Array, images: Array) -> tuple[Array, Array, Array]:
    """The index of each query's nearest image, the first if several are equally near, and the squared distance: its
    multiple of 2**LOW_BITS, and the rest. All int32 [Q].
    """
    products = jnp.einsum("qbf,nbf->bqn", queries, images, precision=jax.lax.Precision.HIGHEST)
    query_squares, image_squares = (jnp.sum(jnp.square(part), -1).T.astype(jnp.int32) for part in (queries, images))
    block_distances = query_squares[:, :, None] + image_squares[:, None] - 2 * products.astype(jnp.int32)
    low = jnp.sum(block_distances & (2**LOW_BITS - 1), axis=0)
    high = jnp.sum(block_distances >> LOW_BITS, axis=0) + (low >> LOW_BITS)
    low &= 2**LOW_BITS - 1
    least = jnp.min(high, axis=1, keepdims=True)
    places = jnp.argmin(jnp.where(high == least, low, 2**LOW_BITS), axis=1).astype(jnp.int32)
    return places, least[:, 0], jnp.take_along_axis(low, places[:, None], axis=1)[:, 0]
