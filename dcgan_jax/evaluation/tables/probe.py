"""The quality of a network's features: accuracy of a linear classifier on them (sections 5.1 and 5.2 of the paper).

The features are the activations of all the discriminator's convolutions, max-pooled to 4x4, flattened and concatenated;
the classifier is a linear L2-SVM (`svm`). C is chosen on held-out training images. With few labels, the accuracy is the
mean over classifiers of several random draws of labelled images.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from dcgan_jax.data import ImageSet, check_classes
from dcgan_jax.evaluation.tables import svm
from dcgan_jax.ops.pixels import to_unit_range
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.progress import Progress, progress

log = logging.getLogger("dcgan_jax")

# uint8 [n, H, W, C] -> float [n, F].
FeatureFunction = Callable[[np.ndarray], np.ndarray]

# The values of C that the released code tries.
GRID = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)
MAX_HELD_OUT = 10_000  # training images held out to choose C; at most a fifth of them
WORSE_BY = 0.005  # the search for C ends when the accuracy is this much below the best
DRAWS_FOR_C = 3  # draws of few labels that C is chosen on
BLOCK = 1024  # images whose features are computed at a time


class ProbeResult(NamedTuple):
    """Accuracy on test images.

    accuracy: of one classifier, or the mean over `draws`. deviation: standard deviation over draws. interval: half the
    width of the mean's 95% confidence interval. c: the C that was chosen.
    """

    accuracy: float
    deviation: float
    interval: float
    draws: int
    c: float


class Split:
    """Training images in random order, of which the first `num_held_out` are held out to choose settings.

    order: int [N], indices of training images; labels: int [N], in this order.
    Raises UserError if images have no labels, or test images have other classes.
    """

    def __init__(self, train: ImageSet, test: ImageSet, seed: int = 0):
        for name, images in (("training", train), ("test", test)):
            if images.labels is None:
                raise UserError(f"--data: found {name} images without labels, expected a folder for each class, or idx")
        assert train.labels is not None
        assert test.labels is not None
        self.classes = int(train.labels.max()) + 1
        if self.classes < 2 or test.labels.max() >= self.classes:
            raise UserError(
                f"--data: found {self.classes} classes to train on and labels up to {test.labels.max()} to test on, "
                "expected the same, at least 2"
            )
        check_classes("--test", train.card, test.card)
        self.seed = seed
        self.order = np.random.default_rng(seed).permutation(len(train.images))
        self.labels = train.labels[self.order]
        self.num_held_out = min(MAX_HELD_OUT, len(self.order) // 5)
        if not self.num_held_out:
            raise UserError(f"--data: found {len(self.order)} training images, expected at least 5")

    def draws(self, per_class: int, count: int, purpose: int = 0) -> Iterator[np.ndarray]:
        """`count` random draws of `per_class` images of each class, without held-out ones, as positions in `order`.

        They depend on the seed and the arguments only; each `purpose` has its own.
        Raises UserError if a class has fewer images.
        """
        self.check_per_class(per_class)
        labels, rng = self.labels[self.num_held_out :], np.random.default_rng((self.seed, per_class, purpose))
        by_class = [self.num_held_out + np.flatnonzero(labels == k) for k in range(self.classes)]
        for _ in range(count):
            yield np.sort(np.concatenate([rng.choice(places, per_class, replace=False) for places in by_class]))

    def check_per_class(self, per_class: int) -> None:
        """Raises UserError if a class has fewer than `per_class` images that are not held out."""
        smallest = np.bincount(self.labels[self.num_held_out :], minlength=self.classes).min()
        if smallest < per_class:
            raise UserError(
                f"--labels_per_class: found {per_class}, expected at most {smallest}, as many as the smallest class "
                "has beside the images held out to choose settings"
            )


class Probe:
    """Trains and tests linear classifiers on features of labelled images.

    split: of the training images. Features are stored as float16, 2 bytes per image and feature.
    Raises UserError if they are not finite.
    """

    def __init__(self, extract: FeatureFunction, train: ImageSet, test: ImageSet, split: Split):
        self.split = split
        self.labels, self.test_labels = split.labels, np.asarray(test.labels)
        self.features = _extract(extract, train.images, split.order)
        self.test_features = _extract(extract, test.images, np.arange(len(test.images)))

    def all_labels(self) -> ProbeResult:
        """The result with all training images. C is chosen with classifiers of those that are not held out."""
        c = self._best_c([slice(self.split.num_held_out, None)])
        log.info("C %g: training on all %d images", c, len(self.labels))
        with Progress("linear classifier of all images"):
            classifier = svm.fit(self.features, self.labels, self.split.classes, c)
            accuracy = classifier.accuracy(self.test_features, self.test_labels)
        return ProbeResult(accuracy, 0.0, 0.0, 1, c)

    def few_labels(self, per_class: int, draws: int) -> ProbeResult:
        """The result over random draws of `per_class` labelled images of each class. C is chosen on other draws.

        Raises UserError if a class has fewer images.
        """
        c = self._best_c(self.split.draws(per_class, min(DRAWS_FOR_C, draws), purpose=1))
        accuracies = []
        title = f"classifiers of {per_class} labels a class"
        for chosen in progress(self.split.draws(per_class, draws), title, "draws", draws):
            classifier = svm.fit(self.features[chosen], self.labels[chosen], self.split.classes, c)
            accuracies.append(classifier.accuracy(self.test_features, self.test_labels))
        deviation = float(np.std(accuracies, ddof=1)) if draws > 1 else 0.0
        return ProbeResult(float(np.mean(accuracies)), deviation, 1.96 * deviation / draws**0.5, draws, c)

    def _best_c(self, training_sets: Iterable[slice | np.ndarray]) -> float:
        """The C with the best accuracy on held-out images, averaged over classifiers of these training sets."""
        curves = [self._accuracies(places) for places in training_sets]
        return GRID[int(np.mean(curves, axis=0).argmax())]

    def _accuracies(self, places: slice | np.ndarray) -> list[float]:
        """For each C, the accuracy on held-out images after training on `places`.

        The search ends when it becomes worse: the accuracy of the last C tried stands for all larger ones.
        """
        solver = svm.Solver(self.features[places], self.labels[places], self.split.classes)
        held_out = slice(self.split.num_held_out)
        accuracies: list[float] = []
        for c in progress(GRID, "linear classifiers", "values of C at most", compiles=self.features.shape):
            classifier = solver.fit(c)
            accuracies.append(classifier.accuracy(self.features[held_out], self.labels[held_out]))
            log.info("C %g: %.2f%% of held-out images (%d passes)", c, 100 * accuracies[-1], classifier.passes)
            if accuracies[-1] < max(accuracies) - WORSE_BY:
                break
        return accuracies + accuracies[-1:] * (len(GRID) - len(accuracies))


def pixel_features(images: np.ndarray) -> np.ndarray:
    """The pixels themselves in [-1, 1], as a baseline: uint8 [n, H, W, C] -> float32 [n, H * W * C]."""
    return np.asarray(to_unit_range(images.reshape(len(images), -1)))


def _extract(extract: FeatureFunction, images: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The features of images[order], float16 [N, F]."""
    features = None
    for start in progress(range(0, len(order), BLOCK), "features", f"blocks of {BLOCK} images"):
        block = extract(np.asarray(images[order[start : start + BLOCK]]))
        if features is None:
            features = np.empty((len(order), block.shape[1]), np.float16)
            log.info("extracting %d features of each of %d images", block.shape[1], len(order))
        with np.errstate(over="ignore"):  # infinities are reported below
            features[start : start + BLOCK] = block
        if not np.isfinite(features[start : start + BLOCK]).all():
            raise UserError(
                "--workdir: its features are not finite, or beyond what 16 bits hold; has training diverged?"
            )
    assert features is not None
    return features
