"""Images in: a source is prepared once as an array on disk, and batches are a function of (seed, step)."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from dcgan_jax.data.batches import Batches, ahead
from dcgan_jax.data.files import open_source
from dcgan_jax.data.prepare import find_or_prepare
from dcgan_jax.data.prepared import ImageSet, cards, check_classes, open_prepared, open_set
from dcgan_jax.errors import UserError, told_of

__all__ = [
    "Batches",
    "ImageSet",
    "ahead",
    "cards",
    "check_classes",
    "find_or_prepare",
    "held_out",
    "load",
    "open_set",
    "open_source",
]


def load(config: ConfigDict, *, labelled: bool = False) -> ImageSet:
    """The prepared images of a validated configuration, with labels where it has classes; prepared first if need be.

    labelled: with whatever labels there are, for measures of quality.
    Raises UserError where the source does not exist, cannot be read, holds no image, or has no fitting labels.
    """
    image_set = open_prepared(config) if config.data.source == "prepared" else open_set(find_or_prepare(config))
    if labelled:
        return image_set
    if not config.num_classes:
        return image_set._replace(labels=None)
    _check_labels(image_set.labels, config.num_classes)
    return image_set


def held_out(config: ConfigDict) -> ImageSet | None:
    """The images beside the training images of a validated configuration, with their labels; None if there are none.

    `config.data.test` names them, in place of `data.path` (for tfds, of `data.split`). Where it is '', they are tfds's
    split 'test', idx's files t10k-..., or the folder 'test' beside one called 'train'. Raises UserError as `load` does,
    of `config.data.test`.
    """
    config = ConfigDict(config.to_dict())
    name, path = config.data.test, Path(config.data.path).expanduser()
    if config.data.source == "tfds":
        config.data.split = name or "test"
        return load(config, labelled=True)
    if not name and config.data.source == "idx":
        folder = path if path.is_dir() else path.parent
        name = next((str(file) for file in sorted(folder.glob("t10k-images*"))), "")
    if not name and config.data.source == "folder" and path.name == "train":
        name = str(path.with_name("test")) if path.with_name("test").is_dir() else ""
    if not name:
        return None
    config.data.path = name
    with told_of("config.data.test", "config.data.path"):
        return load(config, labelled=True)


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
