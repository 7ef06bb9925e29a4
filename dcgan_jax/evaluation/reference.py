"""Features of real images, computed once per image set and extractor, and cached."""

import json
from collections.abc import Callable

import jax
import numpy as np

from dcgan_jax.data import ImageSet
from dcgan_jax.evaluation import cache
from dcgan_jax.evaluation.features import Extractor, extract, extract_moments
from dcgan_jax.evaluation.moments import Moments, moments_of
from dcgan_jax.runtime import multihost
from dcgan_jax.runtime.files import digest

# Vectors of up to this many bytes are held and cached; beyond, only their moments.
MAX_VECTOR_BYTES = 2**30
VERSION = 1  # to be raised if what is cached changes

Arrays = dict[str, np.ndarray]


class Reference:
    """The real images of one split, and their features by one extractor. title: what to call these images.

    Process 0 reads and writes the cache. The key is a hash of the images, the extractor and the choice of images.
    """

    def __init__(self, image_set: ImageSet, extractor: Extractor, title: str = "real images"):
        self.image_set, self.extractor, self._title = image_set, extractor, title
        self.count = len(image_set.images)
        self._vectors: dict[int, np.ndarray] = {}

    def chosen(self, count: int) -> np.ndarray:
        """Indices of a fixed random choice of `count` images, ascending; all if there are no more."""
        if count >= self.count:
            return np.arange(self.count)
        return np.sort(np.random.default_rng(0).permutation(self.count)[:count])

    def vectors(self, count: int) -> np.ndarray:
        """The features of the chosen images, float32 [count, F]."""
        chosen = self.chosen(count)
        if len(chosen) not in self._vectors:

            def compute() -> Arrays:
                return {"vectors": extract(self.extractor, self._read, chosen, self._title).vectors}

            expected = {"vectors": np.empty((len(chosen), self.extractor.size), np.float32)}
            self._vectors[len(chosen)] = self._cached("vectors", len(chosen), expected, compute)["vectors"]
        return self._vectors[len(chosen)]

    def moments(self) -> Moments:
        """The moments of the features of all images."""
        size = self.extractor.size
        if self.count * size * 4 <= MAX_VECTOR_BYTES:
            return moments_of(self.vectors(self.count))

        def compute() -> Arrays:
            moments = extract_moments(self.extractor, self._read, np.arange(self.count), self._title)
            return {"mean": moments.mean, "scatter": moments.scatter}

        expected = {"mean": np.empty(size), "scatter": np.empty((size, size))}
        return Moments(self.count, **self._cached("moments", self.count, expected, compute))

    def _read(self, indices: np.ndarray) -> np.ndarray:
        return self.image_set.images[indices]

    def _cached(self, kind: str, count: int, expected: Arrays, compute: Callable[[], Arrays]) -> Arrays:
        """The arrays from process 0's cache on all processes, or else computed by all of them and cached."""
        choice = [VERSION, kind, count, self.count, self.image_set.card["sha256"]["images"]]
        key = digest(json.dumps(choice), self.extractor.name, self.extractor.digest)
        first = jax.process_index() == 0
        cached = cache.load(kind, key, expected) if first else None
        if multihost.gather("cached" if cached else "")[0]:
            return multihost.broadcast(cached[0] if cached else expected)
        computed = compute()
        if first:
            about = {"data": self.image_set.card["sha256"], "count": count, "extractor": self.extractor.name}
            cache.save(kind, key, computed, about)
        return computed
