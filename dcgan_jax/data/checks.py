"""What is told about images before training, because it explains what comes of it: their classes, and what is odd."""

import logging
from collections.abc import Iterator

import numpy as np

from dcgan_jax.data.classes import counted
from dcgan_jax.data.prepared import ImageSet
from dcgan_jax.data.resizing import OPACITY

log = logging.getLogger("dcgan_jax")

CHUNK = 256  # images looked at together
DARK = 64  # images without a larger value: 14 bits of 16 come out as 63


def tell(image_set: ImageSet, batch_size: int) -> None:
    """Logs the classes with their sizes, and warns of few, identical or dark images, a line each."""
    if image_set.labels is not None:
        log.info("classes: %s", counted(image_set))
    images = image_set.images
    if len(images) < batch_size:
        log.warning("%d images are fewer than a batch, %d, which will hold some several times", len(images), batch_size)
    # Both look at few images, unless these are odd.
    if len(images) > 1 and all((part == images[0]).all() for part in _parts(images)):
        log.warning("all %d images are identical: nothing but this picture can be learned", len(images))
    colours = images[..., :OPACITY] if images.shape[-1] == 4 else images
    if all(part.max() < DARK for part in _parts(colours)):
        largest = max(int(part.max()) for part in _parts(colours))
        log.warning("all images are dark: no value is above %d, expected values up to 255", largest)


def _parts(images: np.ndarray) -> Iterator[np.ndarray]:
    return (images[start : start + CHUNK] for start in range(0, len(images), CHUNK))
