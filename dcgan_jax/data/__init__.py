"""Images: a source is prepared once as an array on disk, and batches are a function of (seed, step)."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from dcgan_jax.data.batches import Batches, prefetch
from dcgan_jax.data.buckets import open_prepared, prepared_path
from dcgan_jax.data.preparation import find_or_prepare
from dcgan_jax.data.prepared import ImageSet, cards, check_classes, open_set
from dcgan_jax.data.sources.folder import open_source
from dcgan_jax.runtime.errors import UserError, rename_fields

__all__ = [
    "Batches",
    "ImageSet",
    "cards",
    "check_classes",
    "find_or_prepare",
    "held_out",
    "load",
    "open_set",
    "open_source",
    "prefetch",
    "prepared_path",
]


def load(config: ConfigDict, *, labelled: bool = False) -> ImageSet:
    """The prepared images of a validated configuration; they are prepared first if necessary.

    They have labels only if the configuration has classes. With `labelled`, for measures of quality, they have the
    labels of the source, whatever these are.

    Raises UserError if the source does not exist, cannot be read, has no image, or has labels that do not fit.
    """
    prepared = config.data.source == "prepared"
    # Measures compare them with a network's images, whose size is given.
    image_set = open_prepared(config, resizable=not labelled) if prepared else open_set(find_or_prepare(config))
    if labelled:
        return image_set
    if not config.num_classes:
        return image_set._replace(labels=None)
    _check_labels(image_set.labels, config.num_classes)
    return image_set


def held_out(config: ConfigDict) -> ImageSet | None:
    """The held-out images of a validated configuration, with their labels; None if there are none.

    `config.data.test` takes the place of `data.path` (for tfds, of `data.split`). If it is empty, they are the split
    'test' of tfds, the files t10k-... of idx, or the folder 'test' beside a folder 'train'.

    Raises UserError as `load` does, about `config.data.test`.
    """
    config = ConfigDict(config.to_dict())
    name, path = config.data.test, Path(config.data.path).expanduser()
    if name and config.data.source == "digits":
        raise UserError(
            f"config.data.test: found {name!r}, expected '': digits has no images beside those it trains on"
        )
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
    with rename_fields({"config.data.path": "config.data.test"}):
        return load(config, labelled=True)


def _check_labels(labels: np.ndarray | None, num_classes: int) -> None:
    if labels is None:
        raise UserError(
            f"config.num_classes: found {num_classes}, but the images have no labels, expected a folder for each class "
            "(folder) or a labels file beside the images (idx); or pass --config.num_classes=0"
        )
    present = np.unique(labels)
    if (len(present), present[0], present[-1]) != (num_classes, 0, num_classes - 1):
        without_gap = len(present) > 1 and present[-1] == len(present) - 1
        advice = (
            f"pass --config.num_classes={len(present)}" if without_gap else "number the classes from 0 without a gap"
        )
        raise UserError(
            f"config.num_classes: found {num_classes}, but the images have {len(present)} labels from {present[0]} to "
            f"{present[-1]}, expected all from 0 to {num_classes - 1}; {advice}"
        )
