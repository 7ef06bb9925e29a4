"""Images in: a source is prepared once as an array on disk, and batches are a function of (seed, step)."""

import numpy as np
from ml_collections import ConfigDict

from dcgan_jax.data.batches import Batches, ahead
from dcgan_jax.data.prepare import find_or_prepare
from dcgan_jax.data.prepared import ImageSet, cards, open_prepared, open_set
from dcgan_jax.errors import UserError

__all__ = ["Batches", "ImageSet", "ahead", "cards", "find_or_prepare", "load", "open_set"]


def load(config: ConfigDict) -> ImageSet:
    """The prepared images of a validated configuration, with labels where it has classes; prepared first if need be.

    Raises UserError where the source does not exist, cannot be read, holds no image, or has no fitting labels.
    """
    image_set = open_prepared(config) if config.data.source == "prepared" else open_set(find_or_prepare(config))
    if not config.num_classes:
        return image_set._replace(labels=None)
    _check_labels(image_set.labels, config.num_classes)
    return image_set


def _check_labels(labels: np.ndarray | None, num_classes: int) -> None:
    if labels is None:
        raise UserError(
            f"config.num_classes: found {num_classes}, but the images have no labels, expected a folder for each class "
            "(folder) or a labels file beside the images (idx); or pass --config.num_classes=0"
        )
    found = np.unique(labels)
    if (len(found), found[0], found[-1]) != (num_classes, 0, num_classes - 1):
        whole = len(found) > 1 and found[-1] == len(found) - 1
        advice = f"pass --config.num_classes={len(found)}" if whole else "number the classes from 0 without a gap"
        raise UserError(
            f"config.num_classes: found {num_classes}, but the images have {len(found)} labels from {found[0]} to "
            f"{found[-1]}, expected all from 0 to {num_classes - 1}; {advice}"
        )
