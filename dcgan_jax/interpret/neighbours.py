"""The training images nearest to samples: whether a network makes new images or remembers old ones."""

import numpy as np

from dcgan_jax.evaluation.distances import squared_distances
from dcgan_jax.evaluation.nearest_neighbour import NearestNeighbour
from dcgan_jax.inference import TrainedGAN
from dcgan_jax.interpret.pictures import Figure, Row
from dcgan_jax.interpret.samples import Samples

BLOCK = 512  # training images at a time: their features are large


def in_pixels(samples: np.ndarray, images: np.ndarray) -> np.ndarray:
    """For each sample the place of the nearest image, by the squared distance of pixels; uint8 [N, H, W, C] both."""
    search = NearestNeighbour(samples)
    search.show(images)
    return search.index


def in_features(gan: TrainedGAN, samples: np.ndarray, images: np.ndarray) -> np.ndarray:
    """For each sample the place of the nearest image, by the squared distance of the discriminator's features."""

    def features(block: np.ndarray) -> np.ndarray:
        return gan.features((block / 127.5 - 1).astype(np.float32)).astype(np.float64)

    wanted = features(samples)
    best = np.full(len(samples), np.inf)
    index = np.zeros(len(samples), np.int64)
    for start in range(0, len(images), BLOCK):
        found = squared_distances(wanted, features(np.asarray(images[start : start + BLOCK])))
        nearest = found.argmin(1)
        distances = found[np.arange(len(samples)), nearest]
        closer = distances < best
        best[closer], index[closer] = distances[closer], start + nearest[closer]
    return index


def figure(samples: Samples, images: np.ndarray, count: int) -> Figure:
    """Samples beside the training images, uint8 [N, H, W, C], that are nearest to them.

    In features too, where the discriminator has convolutions and takes no labels.
    """
    gan, shown = samples.gan, samples.images(samples.z(range(count)))
    rows = [Row("samples", shown), Row("nearest\nin pixels", np.asarray(images[in_pixels(shown, images)]))]
    if not gan.config.num_classes and gan.discriminator.features:
        rows.append(Row("nearest\nin features", np.asarray(images[in_features(gan, shown, images)])))
    spaces = "pixels and in the discriminator's features (all convolutions, max-pooled to 4x4)"
    text = (
        f"Samples 0 to {count - 1}, and of {len(images)} training images the nearest ones in "
        f"{spaces if len(rows) == 3 else 'pixels'}."
    )
    return Figure(rows, text)
