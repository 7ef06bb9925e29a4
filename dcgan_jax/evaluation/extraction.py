"""Features of many images: read block by block, shared out among all processes and their devices."""

from collections.abc import Callable, Iterator

import jax
import numpy as np
from tqdm import tqdm

from dcgan_jax import agreement
from dcgan_jax.evaluation.features import Extractor, Features, joined
from dcgan_jax.evaluation.moments import Moments, empty

# Images by their indices, int [N] -> uint8 [N, H, W, C].
Reader = Callable[[np.ndarray], np.ndarray]

BLOCK = 1024  # images in memory, and vectors added to the moments, at a time


def extract(extractor: Extractor, read: Reader, indices: np.ndarray, title: str) -> Features:
    """The features of these images, in their order, on every process: each computes a share."""
    parts = list(_stream(extractor, read, _share(indices), title))
    vectors = np.concatenate([part.vectors for part in parts])
    vectors = np.concatenate(agreement.gather_arrays(vectors))
    if parts[0].logits is None:
        return Features(vectors, None)
    logits = joined(parts).logits
    assert logits is not None
    return Features(vectors, np.concatenate(agreement.gather_arrays(logits)))


def extract_moments(extractor: Extractor, read: Reader, indices: np.ndarray, title: str) -> Moments:
    """The moments of the features of these images, on every process, for more of them than memory holds."""
    own = empty(extractor.size)
    for part in _stream(extractor, read, _share(indices), title):
        own.add(part.vectors)
    total = empty(extractor.size)
    counts, means, scatters = map(agreement.gather_arrays, (np.array([own.count]), own.mean, own.scatter))
    for count, mean, scatter in zip(counts, means, scatters, strict=True):
        total.merge(Moments(int(count[0]), mean, scatter))
    return total


def moments_of(vectors: np.ndarray) -> Moments:
    """The moments of vectors, float [N, F], added block by block."""
    moments = empty(vectors.shape[1])
    for start in range(0, len(vectors), BLOCK):
        moments.add(vectors[start : start + BLOCK])
    return moments


def _share(indices: np.ndarray) -> np.ndarray:
    """This process's part, one behind the other; all have one image at least where there are enough."""
    return np.array_split(indices, jax.process_count())[jax.process_index()]


def _stream(extractor: Extractor, read: Reader, indices: np.ndarray, title: str) -> Iterator[Features]:
    starts = range(0, max(len(indices), 1), BLOCK)
    blocks = (read(indices[start : start + BLOCK]) for start in starts)
    hidden = None if jax.process_index() == 0 else True  # None: where it is no terminal
    with tqdm(total=len(indices), desc=title, unit="image", leave=False, disable=hidden) as bar:
        for part in extractor.stream(blocks):
            bar.update(len(part.vectors))
            yield part
