"""Samples and the training images nearest to them: does the network make new images or copies?"""

from collections.abc import Sequence

import numpy as np

from dcgan_jax.evaluation.metrics import squared_distances
from dcgan_jax.evaluation.tables.nearest_neighbour import NearestNeighbour
from dcgan_jax.inference import TrainedGAN
from dcgan_jax.interpret.pictures import Figure, Row
from dcgan_jax.interpret.samples import Samples
from dcgan_jax.runtime.progress import progress

BLOCK = 512  # training images at a time: their features are large


def in_pixels(samples: np.ndarray, images: np.ndarray) -> np.ndarray:
    """For each sample the index of the nearest image, by squared distance of pixels; uint8 [N, H, W, C] both."""
    search = NearestNeighbour(samples)
    search.add(images)
    return search.index


def in_features(gan: TrainedGAN, samples: np.ndarray, images: np.ndarray) -> np.ndarray:
    """For each sample the index of the nearest image, by squared distance of the discriminator's features."""
    sample_features = gan.features(samples).astype(np.float64)
    smallest = np.full(len(samples), np.inf)
    index = np.zeros(len(samples), np.int64)
    for start in progress(range(0, len(images), BLOCK), "nearest images by features", "blocks"):
        block = gan.features(np.asarray(images[start : start + BLOCK])).astype(np.float64)
        distances = squared_distances(sample_features, block)
        nearest = distances.argmin(1)
        distance = distances[np.arange(len(samples)), nearest]
        closer = distance < smallest
        smallest[closer], index[closer] = distance[closer], start + nearest[closer]
    return index


def figure(samples: Samples, images: np.ndarray, numbers: Sequence[int]) -> Figure:
    """The samples of these numbers, and below each the nearest training image; images: uint8 [N, H, W, C].

    Nearest in pixels, and also in features if the discriminator has convolutions and takes no labels.
    """
    gan, made = samples.gan, samples.images(samples.z(list(numbers)))
    rows = [
        Row("samples", made, tuple(map(str, numbers))),
        Row("nearest\nin pixels", np.asarray(images[in_pixels(made, images)])),
    ]
    if not gan.config.num_classes and gan.discriminator.features:
        rows.append(Row("nearest\nin features", np.asarray(images[in_features(gan, made, images)])))
    spaces = "pixels and in the discriminator's features (all convolutions, max-pooled to 4x4)"
    known = f"0 to {len(numbers) - 1}" if isinstance(numbers, range) else ", ".join(map(str, numbers))
    text = (
        f"Samples {known}, and the nearest of {len(images)} training images in "
        f"{spaces if len(rows) == 3 else 'pixels'}."
    )
    return Figure(rows, text)
