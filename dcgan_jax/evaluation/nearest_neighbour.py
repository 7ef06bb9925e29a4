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


class NearestNeighbour:
    """For each query the nearest of all images that were shown, by the squared distance of their pixels.

    index, label: int [Q], of the nearest so far, of equally near ones the first; distance: int [Q], squared, in units
    of a pixel's 256 steps. label is -1 where the images had none.
    """

    def __init__(self, queries: np.ndarray):
        """queries: uint8 [Q, H, W, C], of at most 33,000 values each."""
        self._queries = jnp.asarray(_centred(queries))
        self._shape = queries.shape[1:]
        self.index = np.full(len(queries), -1, np.int64)
        self.label = np.full(len(queries), -1, np.int32)
        self.distance = np.full(len(queries), np.iinfo(np.int32).max, np.int32)
        self.shown = 0

    def show(self, images: np.ndarray, labels: np.ndarray | None = None) -> None:
        """Compares more images, uint8 [N, H, W, C] with labels int [N], with all queries."""
        assert images.shape[1:] == self._shape, (images.shape, self._shape)
        for start in range(0, len(images), ROWS):
            chunk = _centred(images[start : start + ROWS])
            filled = np.concatenate([chunk, np.repeat(chunk[:1], ROWS - len(chunk), axis=0)])  # one size to compile
            places, distances = jax.device_get(_nearest(self._queries, jnp.asarray(filled)))
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
def _nearest(queries: Array, images: Array) -> tuple[Array, Array]:
    """Place in the images, and squared distance, of the nearest image of each query; int32 both."""

    def whole(sums: Array) -> Array:
        return jnp.sum(sums.astype(jnp.int32), axis=0)

    products = jnp.einsum("qbf,nbf->bqn", queries, images, precision=jax.lax.Precision.HIGHEST)
    squares = (whole(jnp.sum(jnp.square(part), -1).T) for part in (queries, images))
    of_queries, of_images = squares
    distances = of_queries[:, None] + of_images[None] - 2 * whole(products)
    places = jnp.argmin(distances, axis=1).astype(jnp.int32)
    return places, jnp.take_along_axis(distances, places[:, None], axis=1)[:, 0]
