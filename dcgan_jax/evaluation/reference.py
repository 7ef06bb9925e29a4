"""Features of real images, computed once for a set and an extractor, and kept for the next time."""

import json
from typing import Any

import jax
import numpy as np

from dcgan_jax import agreement
from dcgan_jax.data import ImageSet
from dcgan_jax.evaluation import store
from dcgan_jax.evaluation.extraction import extract, extract_moments, moments_of
from dcgan_jax.evaluation.features import Extractor, digest
from dcgan_jax.evaluation.moments import Moments

# Vectors of up to this many bytes are held and kept; of more, the moments alone.
KEPT_BYTES = 2**30
VERSION = 1  # of what is kept


class Reference:
    """The real images of one split, and what an extractor makes of them.

    What was computed is kept by process 0 under a hash of the images, the extractor, and which of the images: it is
    taken for nothing else.
    """

    def __init__(self, image_set: ImageSet, extractor: Extractor, split: str = "real"):
        self.image_set, self.extractor, self.split = image_set, extractor, split
        self.count = len(image_set.images)
        self._vectors: dict[int, np.ndarray] = {}

    def chosen(self, count: int) -> np.ndarray:
        """Which images stand for all where `count` are asked for: all if there are no more, in order."""
        if count >= self.count:
            return np.arange(self.count)
        return np.sort(np.random.default_rng(0).permutation(self.count)[:count])

    def vectors(self, count: int) -> np.ndarray:
        """The features of the chosen images, float32 [count, F]."""
        chosen = self.chosen(count)
        if len(chosen) not in self._vectors:

            def compute() -> dict[str, np.ndarray]:
                return {"vectors": extract(self.extractor, self._read, chosen, self._title).vectors}

            shape = (len(chosen), self.extractor.size)
            found = self._once("vectors", len(chosen), {"vectors": np.empty(shape, np.float32)}, compute)
            self._vectors[len(chosen)] = found["vectors"]
        return self._vectors[len(chosen)]

    def moments(self) -> Moments:
        """The moments of the features of all images."""
        size = self.extractor.size
        if self.count * size * 4 <= KEPT_BYTES:
            return moments_of(self.vectors(self.count))

        def compute() -> dict[str, np.ndarray]:
            moments = extract_moments(self.extractor, self._read, np.arange(self.count), self._title)
            return {"mean": moments.mean, "scatter": moments.scatter}

        expected = {"mean": np.empty(size), "scatter": np.empty((size, size))}
        return Moments(self.count, **self._once("moments", self.count, expected, compute))

    @property
    def _title(self) -> str:
        return f"{self.split} images"

    def _read(self, indices: np.ndarray) -> np.ndarray:
        return self.image_set.images[indices]

    def _once(self, kind: str, count: int, expected: dict[str, np.ndarray], compute: Any) -> dict[str, np.ndarray]:
        what = [VERSION, kind, count, self.count, self.image_set.card["sha256"]["images"]]
        key = digest(json.dumps(what), self.extractor.name, self.extractor.digest)
        first = jax.process_index() == 0
        found = store.kept(kind, key, expected) if first else None
        if agreement.gather("found" if found else "")[0]:
            return agreement.broadcast(found[0] if found else expected)
        computed = compute()
        if first:
            about = {"data": self.image_set.card["sha256"], "count": count, "extractor": self.extractor.name}
            store.keep(kind, key, computed, about)
        return computed
