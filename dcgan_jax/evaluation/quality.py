"""The quality of samples as one number that needs no labels, no weights from elsewhere and no decision.

It is the Frechet distance between samples and real images, as FID is (Heusel et al. 2017), on the features of a small
network that has learned from the real images which way up they are (Gidaris, Singh and Komodakis, "Unsupervised
Representation Learning by Predicting Image Rotations", 2018). That takes seconds, once a set. The features are the
means of all layers' maps. They are partly whitened: in full, directions that hardly vary would count as much as those
that tell images apart; not at all, few directions would count alone.

It tells better from worse checkpoints of runs on the same images; `benchmarks/quality.py` measures how well. Numbers
for different images, or of different seeds, cannot be compared, and it does not see copies of training images. Of
images that look alike whichever way they are turned the network learns little, and the number tells less.
"""

import functools
import json
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dcgan_jax import data
from dcgan_jax.evaluation import cache
from dcgan_jax.evaluation.feature_classifier import FeatureClassifier, fit, shapes
from dcgan_jax.evaluation.features import Extractor, Reader, extract
from dcgan_jax.evaluation.metrics import frechet_distance
from dcgan_jax.evaluation.moments import Moments, moments_of
from dcgan_jax.evaluation.reference import Reference
from dcgan_jax.runtime import devices, multihost
from dcgan_jax.runtime.files import digest

log = logging.getLogger("dcgan_jax")

Tree = Any

VERSION = 1  # to be raised if the network or its learning changes: what is cached is then not used
NUM_SAMPLES = 2000
MAX_REAL = 10_000  # a fixed random choice of the real images, if there are more
TURNS = 4  # quarters of a turn
WIDTHS = (16, 32, 64)
STEPS, BATCH, LEARNING_RATE = 200, 64, 5e-3
RIDGE = 3.0  # added to the variance of each principal component of the features, in units of their mean
MIN_VARIANCE = 1e-6  # the least that this mean is taken for: equal images have none


class Quality:
    """The quality of samples by the real images of a set, at least two; lower is better.

    The features are learned in a thread, unless they are in the cache, so that training need not wait for them; after:
    of which the thread waits first. Several processes, which all take part, learn them at the first call: they meet in
    the same order on each.
    """

    def __init__(self, image_set: data.ImageSet, seed: int = 0, *, after: Callable[[], object] = lambda: None):
        learn = functools.partial(_learn, image_set, seed, after)
        self._real = functools.cache(learn) if jax.process_count() > 1 else devices.in_thread(learn).result

    def __call__(self, read: Reader) -> float:
        """The quality of the first 2,000 samples; the same on all processes, which all take part."""
        real = self._real()
        samples = extract(real.extractor, read, np.arange(NUM_SAMPLES), "quality").vectors
        value = frechet_distance(moments_of(samples @ real.whitening), real.moments)
        return float(multihost.broadcast(np.array([value]))[0])


class _Real(NamedTuple):
    """What samples are compared with: features, their whitening [F, F], the whitened features of real images."""

    extractor: Extractor
    whitening: np.ndarray
    moments: Moments


def _learn(image_set: data.ImageSet, seed: int, after: Callable[[], object]) -> _Real:
    after()
    extractor = _learned_extractor(image_set, seed)
    vectors = Reference(image_set, extractor).vectors(MAX_REAL)
    whitening = _partial_whitening(moments_of(vectors))
    return _Real(extractor, whitening, moments_of(vectors @ whitening))


def _learned_extractor(image_set: data.ImageSet, seed: int) -> Extractor:
    """The features of a network that knows which way up these images are; learned by process 0, unless cached."""
    network = FeatureClassifier(TURNS, WIDTHS)
    expected = shapes(network, image_set.images.shape[1:])
    settings = [VERSION, seed, STEPS, BATCH, LEARNING_RATE, WIDTHS, image_set.card["sha256"]["images"]]
    key = digest(json.dumps(settings))

    def load_or_learn() -> Tree:
        cached = cache.load("quality", key, expected)
        if cached:
            return cached[0]
        log.info("learning features to measure quality with, once")
        batches = _turned(image_set, seed)
        variables = fit(network, batches, steps=STEPS, learning_rate=LEARNING_RATE, seed=seed, title="quality")
        cache.save("quality", key, variables, {"data": image_set.card["sha256"]})
        return variables

    def absent() -> Tree:
        return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), expected)

    variables = multihost.run_on_all(load_or_learn if jax.process_index() == 0 else absent)
    function = functools.partial(_features, network)
    return Extractor("quality", key, function, multihost.broadcast(variables), sum(WIDTHS))


def _features(network: FeatureClassifier, variables: Tree, images: jax.Array) -> tuple[jax.Array, None]:
    _, sown = network.apply(variables, images, mutable=["intermediates"])
    layers = sown["intermediates"]
    return jnp.concatenate([layers[f"layer_{i}"][0] for i in range(len(WIDTHS))], axis=-1), None


def _turned(image_set: data.ImageSet, seed: int) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    """Batches of images, a quarter each turned by 0, 90, 180 and 270 degrees, and by how many quarters."""
    batches = data.Batches(image_set._replace(labels=None), BATCH, seed)
    height, width, _ = image_set.images.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    turns = np.arange(BATCH) % TURNS

    def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
        squares = batches(step)["images"][:, top : top + side, left : left + side]
        turned = np.empty_like(squares)
        for turn in range(TURNS):
            turned[turns == turn] = np.rot90(squares[turns == turn], turn, axes=(1, 2))
        return turned, turns

    return batch


def _partial_whitening(moments: Moments) -> np.ndarray:
    """[F, F]: from features to their principal components, each divided by the root of its variance and the ridge."""
    variances, axes = np.linalg.eigh(moments.covariance)
    ridge = RIDGE * max(variances.mean(), MIN_VARIANCE)
    return axes / np.sqrt(np.maximum(variances, 0) + ridge)
