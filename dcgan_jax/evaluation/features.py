"""Images to feature vectors, on all devices and processes: the metrics compare sets of these vectors."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from dcgan_jax.evaluation.moments import Moments
from dcgan_jax.ops.chunks import ahead, fill, suitable
from dcgan_jax.runtime import devices, multihost
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.progress import Progress

Tree = Any

# Images by their indices, int [N] -> uint8 [N, H, W, C].
Reader = Callable[[np.ndarray], np.ndarray]

BLOCK = 1024  # images in memory at a time


class NotFinite(UserError):
    """Features, or a metric of them, are not finite."""


class Features(NamedTuple):
    """Of N images: vectors float32 [N, F], and logits of K classes float32 [N, K], or None."""

    vectors: np.ndarray
    logits: np.ndarray | None


@dataclass(frozen=True)
class Extractor:
    """A function from images to features.

    name: for results. digest: a hash of everything that the features depend on.
    function: jittable, (variables, images uint8 [B, H, W, C]) -> (vectors [B, F], logits [B, K] or None).
    size: F. classes: K, or 0. about: fields to add to results.
    chunk: images per device and call on a CPU; an accelerator takes more (`dcgan_jax.ops.chunks.suitable`).
    resized: (height, width) to which the function resizes images, or ().
    """

    name: str
    digest: str
    function: Callable[[Tree, jax.Array], tuple[jax.Array, jax.Array | None]]
    variables: Tree
    size: int
    classes: int = 0
    chunk: int = 64
    resized: tuple[int, ...] = ()
    about: dict[str, Any] = field(default_factory=dict)

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[Features]:
        """The features of batches of images, uint8 [N, H, W, C], in their order, in parts of any size.

        The local devices work in parallel; their number does not change the features, bit for bit.
        """
        for count, (vectors, logits) in ahead(self._dispatched(batches)):
            yield Features(_rows(vectors, count), None if logits is None else _rows(logits, count))

    def _dispatched(self, batches: Iterable[np.ndarray]) -> Iterator[tuple[int, tuple[jax.Array, jax.Array | None]]]:
        """The number of images of each call, and what the devices are computing: arrays [devices, chunk, X]."""
        run = devices.over_devices(self.function, self.variables)
        num_devices = jax.local_device_count()
        batches = iter(batches)
        first = next(batches, None)
        if first is None:
            return
        chunk = suitable(self.chunk, self.resized or first.shape[1:3])
        for images in _rebatch(itertools.chain([first], batches), num_devices * chunk):
            filled = fill(images, num_devices * chunk)
            yield len(images), run(filled.reshape(num_devices, chunk, *images.shape[1:]))

    def __call__(self, images: np.ndarray) -> Features:
        """The features of images, uint8 [N, H, W, C]."""
        return concatenate(list(self.stream([images])))


def concatenate(parts: list[Features]) -> Features:
    """The features of at least one part, in one."""
    logits = [part.logits for part in parts if part.logits is not None]
    return Features(np.concatenate([part.vectors for part in parts]), np.concatenate(logits) if logits else None)


def extract(extractor: Extractor, read: Reader, indices: np.ndarray, title: str) -> Features:
    """The features of the images at `indices`, int [N], in their order, on every process; each computes a share.

    Raises NotFinite, on every process.
    """
    own = concatenate(list(_stream_share(extractor, read, indices, title)))
    vectors = np.concatenate(multihost.gather_arrays(own.vectors))
    logits = None if own.logits is None else np.concatenate(multihost.gather_arrays(own.logits))
    _check_finite(extractor, title, vectors, *(() if logits is None else (logits,)))
    return Features(vectors, logits)


def extract_moments(extractor: Extractor, read: Reader, indices: np.ndarray, title: str) -> Moments:
    """The moments of the features that `extract` returns, without holding these in memory."""
    own = Moments.empty(extractor.size)
    for part in _stream_share(extractor, read, indices, title):
        own.add(part.vectors)
    total = Moments.empty(extractor.size)
    counts, means, scatters = map(multihost.gather_arrays, (np.array([own.count]), own.mean, own.scatter))
    for count, mean, scatter in zip(counts, means, scatters, strict=True):
        total.merge(Moments(int(count[0]), mean, scatter))
    _check_finite(extractor, title, total.mean)
    return total


def _check_finite(extractor: Extractor, title: str, *arrays: np.ndarray) -> None:
    if not all(np.isfinite(array).all() for array in arrays):
        raise NotFinite(
            f"config.eval_features: {extractor.name!r} gives numbers for the {title} that are not finite; mend the "
            "function, or take other features"
        )


def _stream_share(extractor: Extractor, read: Reader, indices: np.ndarray, title: str) -> Iterator[Features]:
    """The features of this process's contiguous share of the images."""
    own = np.array_split(indices, jax.process_count())[jax.process_index()]
    starts = range(0, max(len(own), 1), BLOCK)
    blocks = (read(own[start : start + BLOCK]) for start in starts)
    shapes = extractor.name, extractor.variables, extractor.resized
    with Progress(f"features of {title}", len(own), "images", compiles=shapes) as shown:
        for part in extractor.stream(blocks):
            shown.update(len(part.vectors))
            yield part


def _rows(array: jax.Array, count: int) -> np.ndarray:
    """[devices, chunk, X] -> float32 [count, X], without the images that filled up the last chunk."""
    return np.asarray(array, np.float32).reshape(-1, array.shape[-1])[:count]


def _rebatch(batches: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
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
