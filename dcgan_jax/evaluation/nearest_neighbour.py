"""The exact nearest neighbour of images in pixels, among any number of others: the classifier of table 3."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

# Images compared with all queries at a time: this bounds the memory whatever their number.
ROWS = 2048
# With pixels as integers in [-128, 127], sums of this many products stay below 2**24, where float32 has every integer:
# matrix products are exact, in any order of their terms.
EXACT = 1024
# Sums of those, which are below 2**27, are kept as two int32: a multiple of 2**BITS and the rest.
BITS = 13


class NearestNeighbour:
    """For each query the nearest of all images that were shown, by the squared distance of their pixels.

    index, label: int [Q], of the nearest so far, of equally near ones the first; distance: int [Q], squared, in units
    of a pixel's 256 steps. label is -1 where the images had none.
    """

    def __init__(self, queries: np.ndarray):
        """queries: uint8 [Q, H, W, C]."""
        self._queries = jnp.asarray(_centred(queries))
        self._shape = queries.shape[1:]
        self.index = np.full(len(queries), -1, np.int64)
        self.label = np.full(len(queries), -1, np.int32)
        self.distance = np.full(len(queries), np.iinfo(np.int64).max, np.int64)
        self.shown = 0

    def show(self, images: np.ndarray, labels: np.ndarray | None = None) -> None:
        """Compares more images, uint8 [N, H, W, C] with labels int [N], with all queries."""
        assert images.shape[1:] == self._shape, (images.shape, self._shape)
        for start in range(0, len(images), ROWS):
            chunk = _centred(images[start : start + ROWS])
            filled = np.concatenate([chunk, np.repeat(chunk[:1], ROWS - len(chunk), axis=0)])  # one size to compile
            places, high, low = jax.device_get(_nearest(self._queries, jnp.asarray(filled)))
            distances = (high.astype(np.int64) << BITS) + low
            nearer = distances < self.distance
            self.distance[nearer] = distances[nearer]
            self.index[nearer] = self.shown + start + places[nearer]
            self.label[nearer] = -1 if labels is None else labels[start + places[nearer]]
        self.shown += len(images)


def _centred(images: np.ndarray) -> np.ndarray:
    """uint8 [N, ...] -> float32 [N, blocks, EXACT], integers in [-128, 127], filled up with zeros."""
    flat = images.reshape(len(images), -1).astype(np.float32) - 128
    missing = -flat.shape[1] % EXACT
    return np.pad(flat, ((0, 0), (0, missing))).reshape(len(images), -1, EXACT)


@jax.jit
def _nearest(queries: Array, images: Array) -> tuple[Array, Array, Array]:
    """Place in the images of each query's nearest, the first of equally near ones, and the squared distance as a
    multiple of 2**BITS and the rest; int32 all.
    """
    products = jnp.einsum("qbf,nbf->bqn", queries, images, precision=jax.lax.Precision.HIGHEST)
    of_queries, of_images = (jnp.sum(jnp.square(part), -1).T.astype(jnp.int32) for part in (queries, images))
    blocks = of_queries[:, :, None] + of_images[:, None] - 2 * products.astype(jnp.int32)
    low = jnp.sum(blocks & (2**BITS - 1), axis=0)
    high = jnp.sum(blocks >> BITS, axis=0) + (low >> BITS)
    low &= 2**BITS - 1
    least = jnp.min(high, axis=1, keepdims=True)
    places = jnp.argmin(jnp.where(high == least, low, 2**BITS), axis=1).astype(jnp.int32)
    return places, least[:, 0], jnp.take_along_axis(low, places[:, None], axis=1)[:, 0]
