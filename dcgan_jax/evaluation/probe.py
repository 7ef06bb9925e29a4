"""How good a network's features are: accuracy of a linear classifier on them (sections 5.1 and 5.2 of the paper).

The features are the activations of all the discriminator's convolutions, each max-pooled to 4x4, flattened and joined;
the classifier is a linear L2-SVM (`svm`). C is chosen on held-out training images. With few labels, the classifier is
trained on many draws of them, of which the mean is reported.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from dcgan_jax.data import ImageSet, check_classes
from dcgan_jax.errors import UserError
from dcgan_jax.evaluation import svm

log = logging.getLogger("dcgan_jax")

Features = Callable[[np.ndarray], np.ndarray]

# The released code's grid, for C.
GRID = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)
VALIDATION = 10_000  # training images held out to choose C, at most a fifth of them
WORSE = 0.005  # below the best accuracy, at which the search for C ends
CHOOSING_DRAWS = 3  # draws of few labels by which C is chosen
BLOCK = 1024  # images whose features are computed at a time


class Result(NamedTuple):
    """Accuracy on test images: of one classifier, or the mean of `draws`, with its standard deviation over them and
    half the width of the mean's 95% interval; and the C that was chosen.
    """

    accuracy: float
    deviation: float
    interval: float
    draws: int
    c: float


class Split:
    """Training images in an order of their own, of which the first `held_out` serve to choose settings.

    order: int [N], the place of each in the training images; labels: int [N], in this order.
    Raises UserError where images have no labels, or the test images other ones.
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
        self.held_out = min(VALIDATION, len(self.order) // 5)
        if not self.held_out:
            raise UserError(f"--data: found {len(self.order)} training images, expected at least 5")

    def draws(self, per_class: int, count: int, purpose: int = 0) -> Iterator[np.ndarray]:
        """So many images a class of those not held out, as places in the order, `count` times.

        They follow from the seed and these arguments; another purpose has draws of its own.
        Raises UserError where a class has fewer.
        """
        self.check(per_class)
        free, rng = self.labels[self.held_out :], np.random.default_rng((self.seed, per_class, purpose))
        places = [self.held_out + np.flatnonzero(free == k) for k in range(self.classes)]
        for _ in range(count):
            yield np.sort(np.concatenate([rng.choice(own, per_class, replace=False) for own in places]))

    def check(self, per_class: int) -> None:
        """Raises UserError unless each class has so many images that are not held out."""
        fewest = np.bincount(self.labels[self.held_out :], minlength=self.classes).min()
        if fewest < per_class:
            raise UserError(
                f"--labels_per_class: found {per_class}, expected at most {fewest}, as many as the smallest class has "
                "beside the images held out to choose settings"
            )


class Probe:
    """Features of training and test images, to train and test classifiers on.

    train, test: with labels; split: of the training images. extract: uint8 [n, H, W, C] to float [n, F]. Features are
    kept as float16: 2 bytes times images times features of memory. Raises UserError where they are not finite.
    """

    def __init__(self, extract: Features, train: ImageSet, test: ImageSet, split: Split):
        self.split = split
        self.labels, self.test_labels = split.labels, np.asarray(test.labels)
        self.features = _extracted(extract, train.images, split.order)
        self.test_features = _extracted(extract, test.images, np.arange(len(test.images)))

    def whole(self) -> Result:
        """All training images. C is the best of the grid on held-out ones, by classifiers of the others."""
        c = self._best_c([slice(self.split.held_out, None)])
        log.info("C %g: learning all %d images", c, len(self.labels))
        found = svm.fit(self.features, self.labels, self.split.classes, c)
        return Result(found.accuracy(self.test_features, self.test_labels), 0.0, 0.0, 1, c)

    def few(self, per_class: int, draws: int) -> Result:
        """Draws of so many labelled images a class. C is the best of the grid on held-out images, over draws apart.

        Raises UserError where a class has fewer images.
        """
        c = self._best_c(self.split.draws(per_class, min(CHOOSING_DRAWS, draws), purpose=1))
        accuracies = []
        for chosen in self.split.draws(per_class, draws):
            found = svm.fit(self.features[chosen], self.labels[chosen], self.split.classes, c)
            accuracies.append(found.accuracy(self.test_features, self.test_labels))
        deviation = float(np.std(accuracies, ddof=1)) if draws > 1 else 0.0
        return Result(float(np.mean(accuracies)), deviation, 1.96 * deviation / draws**0.5, draws, c)

    def _best_c(self, trials: Iterable[slice | np.ndarray]) -> float:
        """The C of the grid with the best accuracy on held-out images, over classifiers of these training images."""
        curves = [self._curve(places) for places in trials]
        return GRID[int(np.mean(curves, axis=0).argmax())]

    def _curve(self, places: slice | np.ndarray) -> list[float]:
        """Accuracies on held-out images, of classifiers of these training images, for each C of the grid.

        The search ends where it becomes worse: larger ones count as the last one that was tried.
        """
        solver = svm.Solver(self.features[places], self.labels[places], self.split.classes)
        held_out = slice(self.split.held_out)
        curve: list[float] = []
        for c in GRID:
            classifier = solver.fit(c)
            curve.append(classifier.accuracy(self.features[held_out], self.labels[held_out]))
            log.info("C %g: %.2f%% of held-out images (%d passes)", c, 100 * curve[-1], classifier.passes)
            if curve[-1] < max(curve) - WORSE:
                break
        return curve + curve[-1:] * (len(GRID) - len(curve))


def pixels(images: np.ndarray) -> np.ndarray:
    """The baseline: the pixels themselves, in [-1, 1]."""
    return (images.reshape(len(images), -1) / 127.5 - 1).astype(np.float32)


def _extracted(extract: Features, images: np.ndarray, order: np.ndarray) -> np.ndarray:
    features = None
    for start in range(0, len(order), BLOCK):
        found = extract(np.asarray(images[order[start : start + BLOCK]]))
        if features is None:
            features = np.empty((len(order), found.shape[1]), np.float16)
            log.info("extracting %d features of each of %d images", found.shape[1], len(order))
        with np.errstate(over="ignore"):  # told below
            features[start : start + BLOCK] = found
        if not np.isfinite(features[start : start + BLOCK]).all():
            raise UserError(
                "--workdir: its features are not finite, or beyond what 16 bits hold; has training diverged?"
            )
    assert features is not None
    return features
