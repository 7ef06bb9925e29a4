"""What turns images into vectors that distances between sets of images are taken on."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from dcgan_jax import parallel

Tree = Any


class Features(NamedTuple):
    """Of N images: vectors float32 [N, F], and logits of classes float32 [N, K], or None."""

    vectors: np.ndarray
    logits: np.ndarray | None


@dataclass(frozen=True)
class Extractor:
    """Features of images.

    name: what a result says it was measured by. digest: a hash of all that decides a feature.
    function: jittable, (variables, images uint8 [B, H, W, C]) -> (vectors [B, F], logits [B, K] or None).
    size: F. classes: K, or 0. chunk: images that a device takes at a time. about: what results say of it besides.
    """

    name: str
    digest: str
    function: Callable[[Tree, jax.Array], tuple[jax.Array, jax.Array | None]]
    variables: Tree
    size: int
    classes: int = 0
    chunk: int = 64
    about: dict[str, Any] = field(default_factory=dict)

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[Features]:
        """The features of a stream of images, uint8 [N, H, W, C] each, in their order, a chunk for each device at a
        time. The number of devices does not change a bit of them.
        """
        run = parallel.over_devices(self.function, self.variables)
        devices = jax.local_device_count()
        for images in _rebatched(batches, devices * self.chunk):
            count = len(images)
            filled = images[np.minimum(np.arange(devices * self.chunk), count - 1)]
            results = run(filled.reshape(devices, self.chunk, *images.shape[1:]))
            vectors, logits = jax.tree.map(
                lambda x: np.asarray(x, np.float32).reshape(-1, x.shape[-1])[:count],  # noqa: B023
                results,
            )
            yield Features(vectors, logits)

    def __call__(self, images: np.ndarray) -> Features:
        """The features of images, uint8 [N, H, W, C]."""
        return joined(list(self.stream([images])))


def joined(parts: list[Features]) -> Features:
    """Parts behind one another. There must be one at least."""
    logits = [part.logits for part in parts if part.logits is not None]
    return Features(np.concatenate([part.vectors for part in parts]), np.concatenate(logits) if logits else None)


def digest(*parts: Any) -> str:
    """SHA-256 of texts and arrays, as hexadecimal digits."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            found.update(part.encode() + b"\0")
        else:
            found.update(f"{part.dtype}{part.shape}\0".encode() + np.ascontiguousarray(part).tobytes())
    return found.hexdigest()


def _rebatched(batches: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same images in batches of `size`, the last one smaller."""
    waiting: list[np.ndarray] = []
    count = 0
    for batch in batches:
        start = 0
        while start < len(batch):
            piece = batch[start : start + size - count]
            start, count = start + len(piece), count + len(piece)
            waiting.append(piece)
            if count == size:
                yield np.concatenate(waiting)
                waiting, count = [], 0
    if waiting:
        yield np.concatenate(waiting)
