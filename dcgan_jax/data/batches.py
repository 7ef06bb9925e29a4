"""Batches as a function of (seed, step): the same on any number of hosts, and after any resume."""

import functools

import numpy as np

from dcgan_jax.data.sources import ImageSet


class Batches:
    """Calling it with a step gives this process's share of that step's global batch.

    The epochs follow one another as one stream, each a fresh permutation of all images, and step s takes the stream's
    entries from s * batch_size on; a batch may span two epochs, and every image is seen once in each.
    """

    def __init__(
        self, image_set: ImageSet, batch_size: int, seed: int, *, process_index: int = 0, process_count: int = 1
    ):
        self.image_set = image_set
        self.batch_size = batch_size
        self.share = batch_size // process_count
        self.offset = process_index * self.share
        count = len(image_set.images)

        @functools.lru_cache(maxsize=2)
        def order(epoch: int) -> np.ndarray:
            return np.random.default_rng((seed, epoch)).permutation(count)

        self._order = order

    def indices(self, step: int) -> np.ndarray:
        """Which images this process takes at this step (0 is the first): int64 [batch_size / processes]."""
        count = len(self.image_set.images)
        positions = step * self.batch_size + self.offset + np.arange(self.share)
        return np.array([self._order(epoch)[place] for epoch, place in zip(*np.divmod(positions, count), strict=True)])

    def __call__(self, step: int) -> dict[str, np.ndarray]:
        """{'images': uint8 [B, H, W, C], 'labels': int32 [B] where the set has labels}."""
        indices = self.indices(step)
        batch = {"images": self.image_set.images[indices]}
        if self.image_set.labels is not None:
            batch["labels"] = self.image_set.labels[indices]
        return batch
